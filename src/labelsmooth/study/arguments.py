"""What a study is asked for: each message names the argument, the value and the rule."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Real

import torch

from labelsmooth.checks import check_strength
from labelsmooth.study.arms.specs import select
from labelsmooth.study.trials.files import slug

SMOOTHINGS = (0.05, 0.1, 0.2)
MOST_SEEDS = 1000


def check_arguments(
    fits: Mapping[str, object],
    arms: Sequence[str] | None,
    eps: Sequence[float] | None,
    seeds: int,
    workers: int | None,
) -> list[str]:
    """The arms as they are spelled: hard targets, each smoothing in order, and the others as they came."""
    if eps is None:
        eps = SMOOTHINGS if arms is None else ()
    elif not isinstance(eps, Sequence | torch.Tensor) or isinstance(eps, str):
        raise ValueError(f"eps must be a list of smoothings, got {eps!r}")
    for e in eps:
        if not isinstance(e, Real | torch.Tensor) or (isinstance(e, torch.Tensor) and e.numel() != 1):
            raise ValueError(f"eps must hold numbers, got {e!r}")
        check_strength("eps", float(e))
    listed = isinstance(arms, Sequence) and not isinstance(arms, str)
    if arms is not None and not (listed and all(isinstance(arm, str) for arm in arms)):
        raise ValueError(f'arms must be a list of names, or ["all"], got {arms!r}')
    if not isinstance(seeds, int) or not 2 <= seeds <= MOST_SEEDS:
        raise ValueError(f"seeds must be a whole number in [2, {MOST_SEEDS}], got {seeds!r}")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers must be a whole number, at least 1, got {workers!r}")
    if not fits:
        raise ValueError("fit must name at least one fit, got none")
    for name, fit in fits.items():
        if not isinstance(name, str) or not callable(fit):
            raise ValueError(f"fit must be a function, or a mapping of functions by name, got {fit!r}")
        _check_signature(name, fit)
    if len({slug(name) for name in fits} - {""}) < len(fits):
        raise ValueError(f"fit must have names that differ in letters or digits, got {', '.join(fits)}")
    selected = select([*(f"ls:eps={e}" for e in sorted(set(map(float, eps)))), *(arms or ())], fits)
    if len(selected) == 1:
        if arms is not None:
            raise ValueError(f"arms must name at least one besides hard, got {list(arms)}")
        raise ValueError(f"eps must hold at least one smoothing above 0, got {list(eps)}")
    return selected


def _check_signature(name: str, fit: Callable[..., object]) -> None:
    """Whether a fit takes what it will be given; a builtin may not say."""
    try:
        signature = inspect.signature(fit)
    except ValueError:
        return
    try:
        signature.bind("criterion", 0)
    except TypeError as error:
        raise ValueError(f"{name}: fit must take (criterion, seed), got {signature}: {error}") from None


def check_keys(key: object, fits: Mapping[str, object]) -> Mapping[str, str]:
    """The key of each fit that has one, by its name."""
    if key is None:
        return {}
    keys = key if isinstance(key, Mapping) else dict.fromkeys(fits, key)
    for name, value in keys.items():
        if name not in fits:
            raise ValueError(f"key must be by the names of fits, {', '.join(fits)}, got {name!r}")
        if not isinstance(value, str) or not value:
            raise ValueError(f"key must be a string, or strings by the names of fits, got {value!r}")
    return keys
