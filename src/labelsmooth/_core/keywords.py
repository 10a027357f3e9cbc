"""A decorator for public functions and constructors whose ``**options`` are the keys of a TypedDict."""

import difflib
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, ParamSpec, TypeVar

BATCH = ("sample_weight", "denominator", "return_nll", "return_predictions")

P = ParamSpec("P")
R = TypeVar("R")


def takes(
    options: Any = None, defaults: Mapping[str, object] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show every option in the signature, with its default or None, and refuse unknown keywords.

    The error is a TypeError worded as Python's, with the public name and the nearest option.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        shown = _with_options(signature(function), options, defaults or {})
        known = frozenset(shown.parameters) - {"self"}
        required = frozenset(
            p.name for p in shown.parameters.values() if p.kind is p.KEYWORD_ONLY and p.default is p.empty
        )
        of_class = function.__name__ == "__init__"

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if not known.issuperset(kwargs):
                name = next(name for name in kwargs if name not in known)
                public = type(args[0]).__name__ if of_class else function.__name__
                raise TypeError(f"{public}() got an unexpected keyword argument {name!r}{_hint(name, known)}")
            if required and not required.issubset(kwargs):
                name = next(name for name in shown.parameters if name in required and name not in kwargs)
                raise TypeError(f"{function.__name__}() missing a required keyword argument: {name!r}")
            return function(*args, **kwargs)

        call.__signature__ = shown  # pyright: ignore[reportAttributeAccessIssue]
        return call

    return decorate


def _with_options(own: Signature, options: Any, defaults: Mapping[str, object]) -> Signature:
    named = [p for p in own.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    annotations: Mapping[str, Any] = {} if options is None else options.__annotations__
    required: frozenset[str] = frozenset() if options is None else options.__required_keys__
    more = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if name in required else defaults.get(name),
            annotation=annotation,
        )
        for name, annotation in annotations.items()
        if name not in own.parameters
    ]
    return own.replace(parameters=[*named, *more])


def _hint(name: str, known: frozenset[str]) -> str:
    if near := difflib.get_close_matches(name, sorted(known), 1):
        return f"; did you mean {near[0]!r}?"
    if name in BATCH:
        return f"; {name} belongs to a batch and is given in the call"
    return "; the number of classes is that of input" if "class" in name else ""
