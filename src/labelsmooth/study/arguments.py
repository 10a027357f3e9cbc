"""Validation of a study's arguments."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from labelsmooth._core.checks import check_strength
from labelsmooth.study.analysis.metrics import CARES
from labelsmooth.study.arms.specs import parse, select
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.course import Course
from labelsmooth.study.trials.early import first_jobs
from labelsmooth.study.trials.files import Job, slug
from labelsmooth.study.trials.ledger import Ledger
from labelsmooth.study.trials.ranks import are_together
from labelsmooth.study.trials.search import Family

SMOOTHINGS = (0.05, 0.1, 0.2)
MOST_SEEDS = 1000
MOST_SUGGESTIONS = 1000


@dataclass(frozen=True)
class Asked:
    """The validated arguments of a study."""

    fits: Mapping[str, Fit]
    arms: Sequence[str]
    seeds: int
    folder: Path
    workers: int | None
    storage: str | None
    settings: Mapping[str, object]
    keys: Mapping[str, str]
    extend: bool
    families: Sequence[Family]
    search: int
    care: str

    @property
    def jobs(self) -> list[Job]:
        """The jobs of each setting that are known before any run."""
        return first_jobs([Job(arm, seed) for seed in range(self.seeds) for arm in self.arms])

    def ledgers(self) -> dict[str, Ledger]:
        return {
            name: Ledger(self.folder, name, fit, self.settings, self.storage, self.keys.get(name))
            for name, fit in self.fits.items()
        }

    def digest(self, ledgers: Mapping[str, Ledger]) -> str:
        """A digest of everything that determines the results. Arms that a study adds are determined by it."""
        added = ["extend"] if self.extend else []
        if self.care != "overall":
            added.append(f"care={self.care}")
        if self.search:
            added += [f"search={self.search}", *map(str, self.families)]
        return " ".join(
            [*(ledger.digest for ledger in ledgers.values()), *self.arms, str(self.seeds), *added]
        )

    def course(self) -> Course:
        return Course(self.fits, [*self.arms], self.seeds, self.extend, self.families, self.search)


def ask(
    fit: Fit | Mapping[str, Fit],
    *,
    eps: Sequence[float] | None,
    arms: Sequence[str] | None,
    seeds: int,
    output: str | Path,
    workers: int | None,
    storage: str | None,
    settings: Mapping[str, object] | None,
    key: str | Mapping[str, str] | None,
    extend: bool | None,
    search: int,
    care: str = "overall",
) -> Asked:
    """Check the arguments of :func:`labelsmooth.study.run`, which documents them.

    Raises:
        ValueError: if an argument is invalid; the message names the argument, its value and the rule.
    """
    check_output(output)
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"settings must be a mapping by name, got {settings!r}")
    fits: Mapping[str, Any] = fit if isinstance(fit, Mapping) else {"your data": fit}
    compared = check_arguments(fits, arms, eps, seeds, workers)
    keys = check_keys(key, fits)
    families = check_search(search, arms, compared)
    if are_together() and workers:
        raise ValueError(f"workers must be None if several processes train each run, got {workers}")
    check_care(care, fits)
    if extend not in (None, True, False):
        raise ValueError(f"extend must be True, False or None, got {extend!r}")
    if extend is None:
        extend = eps is None and arms is None and not search
    elif extend and not any(parse(arm).eps for arm in compared):
        raise ValueError(f"extend requires a plain smoothing among the arms, got {', '.join(compared)}")
    return Asked(
        fits,
        compared,
        seeds,
        Path(output),
        workers,
        storage,
        settings or {},
        keys,
        extend,
        families,
        search,
        care,
    )


def check_arguments(
    fits: Mapping[str, object],
    arms: Sequence[str] | None,
    eps: Sequence[float] | None,
    seeds: int,
    workers: int | None,
) -> list[str]:
    """The full names of the arms: hard targets, the smoothings in order, and the other arms as given."""
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
        raise ValueError(f"seeds must be an integer in [2, {MOST_SEEDS}], got {seeds!r}")
    if workers is not None and (not isinstance(workers, int) or workers < 1):
        raise ValueError(f"workers must be an integer of at least 1, got {workers!r}")
    if not fits:
        raise ValueError("fit must hold at least one fit, got an empty mapping")
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


def check_search(search: int, arms: Sequence[str] | None, compared: Sequence[str]) -> list[Family]:
    """The methods whose options are searched; plain smoothing without arms."""
    if not isinstance(search, int) or isinstance(search, bool) or not 0 <= search <= MOST_SUGGESTIONS:
        raise ValueError(f"search must be an integer in [0, {MOST_SUGGESTIONS}], got {search!r}")
    if not search:
        return []
    named = [name for arm in arms or ["ls"] for name in (ARMS if arm == "all" else [arm])]
    served = {parse(arm).method for arm in compared}
    parts = [name.partition(":") for name in named]
    families = [
        family for method, _, given in parts if method in served and (family := Family(method, given)).scales
    ]
    if not families:
        raise ValueError(f"search requires an arm with options that are not given, got {', '.join(named)}")
    return [*dict.fromkeys(families)]


def check_output(output: object) -> Path:
    """The output folder; raises a ``ValueError`` if it cannot be a folder."""
    if not isinstance(output, str | Path) or str(output) == "":
        raise ValueError(f"output must name a folder, got {output!r}")
    folder = Path(output)
    for place in (folder, *folder.parents):
        if place.exists():
            if not place.is_dir():
                raise ValueError(f"output must be a folder, got {str(output)!r}: {place} is a file")
            break
    return folder


def check_care(care: object, fits: Mapping[str, object] | None = None) -> None:
    """Raise a ``ValueError`` unless ``care`` is in the table and the fits declare what it needs."""
    if care not in CARES:
        nearest = difflib.get_close_matches(str(care), CARES, n=1)
        hint = f" (did you mean {nearest[0]}?)" if nearest else ""
        raise ValueError(f"care must be one of {', '.join(CARES)}, got {care!r}{hint}")
    for name, fit in (fits or {}).items():
        if care == "ordinal" and getattr(fit, "ordinal", False) is not True:
            raise ValueError(
                f"care='ordinal' requires ordinal labels: set ordinal = True on the fit {name!r} "
                "(--ordinal for a table)"
            )


def _check_signature(name: str, fit: Callable[..., object]) -> None:
    """Raise a ``ValueError`` unless a fit takes ``(criterion, seed)``. Builtins may have no signature."""
    try:
        signature = inspect.signature(fit)
    except ValueError:
        return
    try:
        signature.bind("criterion", 0)
    except TypeError as error:
        raise ValueError(f"{name}: fit must take (criterion, seed), got {signature}: {error}") from None


def check_keys(key: object, fits: Mapping[str, object]) -> Mapping[str, str]:
    """The key of each fit with a key, by the fit's name."""
    if key is None:
        return {}
    keys = key if isinstance(key, Mapping) else dict.fromkeys(fits, key)
    for name, value in keys.items():
        if name not in fits:
            raise ValueError(f"key must be by the names of fits, {', '.join(fits)}, got {name!r}")
        if not isinstance(value, str) or not value:
            raise ValueError(f"key must be a string, or strings by the names of fits, got {value!r}")
    return keys
