"""Parsing of arms, and the facts about a fit that they need."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from labelsmooth._modules.online import OnlineLabelSmoothing
from labelsmooth.schedules import Schedule
from labelsmooth.study.arms.expressions import Call
from labelsmooth.study.arms.options import Value, spelled
from labelsmooth.study.arms.table import ARMS


@dataclass(frozen=True)
class Spec:
    """An arm: the name of a method, and its options. ``str`` is the full name that identifies its runs."""

    method: str
    options: Mapping[str, Value] = field(default_factory=dict)

    def __str__(self) -> str:
        return self._spelled(self.options)

    @property
    def label(self) -> str:
        """A short name for tables: the strength of a plain smoothing, and no option with its default."""
        if self.method == "ls":
            return spelled(self.options["eps"])
        defaults = {name: option.default for name, option in ARMS[self.method].options.items()}
        return self._spelled({name: v for name, v in self.options.items() if v != defaults[name]})

    @property
    def eps(self) -> float | None:
        """The strength of a plain smoothing, 0 for hard targets, None for any other arm."""
        if self.method in ("hard", "ls"):
            return float(self.options.get("eps", 0.0))
        return None

    @cached_property
    def loss(self) -> Call:
        """The expression that constructs the loss."""
        method = ARMS[self.method]
        return method.loss(**{name: self.options.get(name) for name in method.options})

    def _spelled(self, options: Mapping[str, Value]) -> str:
        said = ",".join(f"{name}={spelled(value)}" for name, value in options.items())
        return f"{self.method}:{said}" if said else self.method


def parse(text: str) -> Spec:
    """Parse ``name`` or ``name:option=value,option=value``; a number alone is a plain smoothing.

    Raises:
        ValueError: if the text is invalid; the message names the arm, the option, its value and the rule.

    Example:
        >>> str(parse("ls")), str(parse("0.2")), parse("others:eps=0.1").label
        ('ls:eps=0.1', 'ls:eps=0.2', 'others')
        >>> parse("ls:eps=2")
        Traceback (most recent call last):
        ValueError: arm ls:eps=2: eps must be a number in [0, 1], got 2
    """
    if _is_number(text):
        text = f"ls:eps={text}"
    name, colon, rest = text.partition(":")
    if name not in ARMS:
        raise ValueError(f"no arm is named {name!r}{_hint(name)} (labelsmooth arms lists them)")
    options, given = ARMS[name].options, dict[str, str]()
    for said in rest.split(",") if colon else ():
        key, equals, value = said.partition("=")
        if key not in options or not equals:
            known = (
                f"one of {', '.join(f'{o}=' for o in options)}" if options else "nothing: it has no options"
            )
            raise ValueError(f"arm {text}: after the colon must come {known}, got {said!r}")
        if key in given:
            raise ValueError(f"arm {text}: {key} must be given once, got {given[key]} and {value}")
        given[key] = value
    values = {}
    for key, option in options.items():
        try:
            value = option.read(given[key]) if key in given else option.default
        except ValueError:
            raise ValueError(f"arm {text}: {key} must {option.rule}, got {given[key]}") from None
        if value is not None:
            values[key] = value
    return Spec(name, values)


def spelled_in_full(text: str) -> Spec | None:
    """The arm of a full name with every option; None for any other name."""
    try:
        spec = parse(text)
    except ValueError:
        return None
    return spec if str(spec) == text else None


def select(arms: Sequence[str], fits: Mapping[str, object]) -> list[str]:
    """The full names of hard targets and each arm once, in order; ``all`` is every arm that fits support.

    Raises:
        ValueError: if an arm is invalid, or needs a missing attribute of a fit.
    """
    specs = [Spec("hard")]
    for text in arms:
        if text == "all":
            specs += [spec for spec in map(parse, ARMS) if not missing(spec, fits)]
            continue
        if text.startswith("all:"):
            raise ValueError(f"arm all takes no options, since every arm has its defaults, got {text!r}")
        spec = parse(text)
        for fit, fact in missing(spec, fits):
            raise ValueError(
                f"arm {text} needs {FACTS[fact]}: set it on the fit of {fit!r}, as in fit.{fact} = ..."
            )
        specs.append(spec)
    for spec in specs:
        for name, fit in fits.items():
            known = facts_of(fit)
            for fact in sorted(spec.loss.facts):
                _check_fact(name, fact, known[fact])
            try:
                spec.loss(known)
            except ValueError as error:
                raise ValueError(f"arm {spec.label} of {name}: {error}") from None
    # Smoothing with eps = 0 is hard targets.
    return list(dict.fromkeys(str(Spec("hard") if spec.eps == 0 else spec) for spec in specs))


FACTS = {
    "num_classes": "the number of classes, K",
    "epochs": "the number of epochs",
    "counts": "the number of training rows of each class, (K,)",
    "embeddings": "a vector for each class, (K, D)",
}


def _check_fact(fit: str, fact: str, value: object) -> None:
    got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    if fact in ("num_classes", "epochs"):
        form, good = "an integer", isinstance(value, int) and not isinstance(value, bool)
    elif fact == "counts":
        form, good = "a tensor (K,)", isinstance(value, Tensor) and value.dim() == 1
    else:
        form = "a floating-point tensor (K, D)"
        good = isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point()
    if not good:
        raise ValueError(f"{fit}: {fact} must be {form}, got {got}")


def missing(spec: Spec, fits: Mapping[str, object]) -> list[tuple[str, str]]:
    """The (fit, fact) pairs that an arm needs and that are missing."""
    return [
        (name, fact) for name, fit in fits.items() for fact in sorted(spec.loss.facts - facts_of(fit).keys())
    ]


def left_out(fits: Mapping[str, object]) -> dict[str, str]:
    """The arms that ``all`` leaves out, since a fit does not support them, and the reasons."""
    return {
        name: "; ".join(
            f"the fit of {fit!r} has no attribute {fact}" for fit, fact in missing(parse(name), fits)
        )
        for name in ARMS
        if missing(parse(name), fits)
    }


def by_epoch(loss: nn.Module) -> bool:
    """Whether a loss changes with each epoch."""
    return any(isinstance(module, Schedule | OnlineLabelSmoothing) for module in loss.modules())


def facts_of(fit: object) -> dict[str, object]:
    """The facts about a fit, from its attributes."""
    return {name: known for name in FACTS if (known := getattr(fit, name, None)) is not None}


def _hint(name: str) -> str:
    """A hint for an unknown name of an arm."""
    if "," in name:
        return f": separate arms by spaces, as in {name.replace(',', ' ')}"
    close = difflib.get_close_matches(name.lower(), [*ARMS, "all"], n=1)
    return f": did you mean {close[0]}?" if close else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
