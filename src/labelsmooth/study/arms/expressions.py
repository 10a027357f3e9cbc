"""Expressions that construct a loss: a study evaluates them and prints them as code."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from torch import Tensor

SHORT = 32  # longer lists of numbers are printed as names


@dataclass(frozen=True)
class Fact:
    """A fact about a fit, by the name of the fit's attribute."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Share:
    """A rounded share of an integer fact."""

    share: float
    of: Fact

    def __str__(self) -> str:
        return f"round({_written(self.share, {})} * {self.of})"


@dataclass(frozen=True)
class Call:
    """A deferred call, whose arguments may be deferred calls and facts."""

    function: Callable[..., Any]
    args: tuple[object, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def facts(self) -> set[str]:
        """The names of the facts in the call."""
        found: set[str] = set()
        for value in (*self.args, *self.options.values()):
            match value:
                case Fact(name) | Share(of=Fact(name)):
                    found.add(name)
                case Call():
                    found |= value.facts
        return found

    def __call__(self, known: Mapping[str, object]) -> Any:
        """Evaluate the call with the given facts."""

        def made(value: object) -> object:
            match value:
                case Fact(name):
                    return known[name]
                case Share(share, Fact(name)):
                    whole = known[name]
                    assert isinstance(whole, int)
                    return round(share * whole)
                case Call():
                    return value(known)
            return value

        return self.function(*map(made, self.args), **{k: made(v) for k, v in self.options.items()})

    def __str__(self) -> str:
        """The code after ``from labelsmooth import *`` and ``import labelsmooth.study``, with facts as
        names."""
        return self.written({})

    def written(self, known: Mapping[str, object]) -> str:
        """The code with the values of short facts in place of their names."""
        args = [
            *(_written(value, known) for value in self.args),
            *(f"{name}={_written(value, known)}" for name, value in self.options.items()),
        ]
        return f"{_path(self.function)}({', '.join(args)})"


def call(function: Callable[..., Any], *args: object, **options: object) -> Call:
    """A call with the options that are not None."""
    return Call(function, args, {name: value for name, value in options.items() if value is not None})


def _written(value: object, known: Mapping[str, object]) -> str:
    match value:
        case Call():
            return value.written(known)
        case Fact(name) if name in known:
            return _fact(known[name]) or name
        case Share(share, Fact(name)) if isinstance(whole := known.get(name), int):
            return repr(round(share * whole))
        case Fact() | Share():
            return str(value)
        case float():
            return repr(value).removesuffix(".0")
        case str():
            return json.dumps(value)
    return repr(value)


def _fact(value: object) -> str:
    """The code of a number or a few numbers; empty for longer lists."""
    if isinstance(value, Tensor):
        short = value.dim() == 1 and len(value) <= SHORT
        return f"torch.tensor({value.tolist()})" if short else ""
    return repr(value)


def _path(function: Callable[..., Any]) -> str:
    """The public name of a callable, from the highest package that exports it."""
    package, *modules = function.__module__.split(".")
    root = "" if package == "labelsmooth" and modules[0] != "study" else f"{package}."
    for depth in range(len(modules) + 1):
        module = import_module(".".join([package, *modules[:depth]]))
        if getattr(module, function.__name__, None) is function:
            return root + ".".join([*modules[:depth], function.__name__])
    return function.__name__
