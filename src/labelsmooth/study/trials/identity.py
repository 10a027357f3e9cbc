"""What tells one fit from another, so that the runs of two are never mixed."""

import dataclasses
import functools
import hashlib
import inspect
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def identify(fit: object) -> str:
    """A digest of a fit's source and of what it refers to: its fields, arguments, closure and globals.

    Functions and classes count by their source if they are of the fit's own module, and by name otherwise;
    numbers, strings, tuples, mappings and arrays by their values; anything else by its type, a data loader,
    say, or a list, which is where a fit may write down what it did.
    """
    return hashlib.sha256(repr(_describe(fit, _module(fit), set())).encode()).hexdigest()


def _describe(value: Any, home: str, seen: set[int]) -> object:
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return value
    if id(value) in seen:
        return "..."
    seen = seen | {id(value)}

    def inside(x: object) -> object:
        return _describe(x, home, seen)

    match value:
        case torch.Tensor():
            return (
                "tensor",
                tuple(value.shape),
                str(value.dtype),
                _bytes(value.detach().cpu().double().numpy()),
            )
        case np.ndarray():
            return "array", value.shape, str(value.dtype), _bytes(value)
        case Mapping():
            return [(str(key), inside(x)) for key, x in value.items()]
        case tuple():
            return [inside(x) for x in value]
        case functools.partial():
            return "partial", inside(value.func), inside(value.args), inside(value.keywords)
        case types.MethodType():
            return inside(value.__func__), inside(value.__self__)
        case types.FunctionType() if value.__module__ == home:
            names = inspect.getclosurevars(value)
            return (
                _source(value),
                inside(dict(names.nonlocals)),
                inside(dict(names.globals)),
                inside(vars(value)),
            )
        case type() if value.__module__ == home:
            return _source(value)
        case types.FunctionType() | types.BuiltinFunctionType() | type() | types.ModuleType():
            return value.__name__
        case _ if dataclasses.is_dataclass(value) or _module(value) == home:
            return inside(type(value)), inside(vars(value)) if hasattr(value, "__dict__") else None
        case _:
            return f"{type(value).__module__}.{type(value).__qualname__}"


def _module(value: Any) -> str:
    if isinstance(value, functools.partial):
        return _module(value.func)
    return value.__module__ if inspect.isroutine(value) else type(value).__module__


def _source(value: Any) -> str:
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):  # typed at a prompt
        functions = (
            [value]
            if inspect.isfunction(value)
            else [f for f in vars(value).values() if inspect.isfunction(f)]
        )
        return repr([_code(f.__code__) for f in functions])


def _code(code: types.CodeType) -> list[object]:
    inner = [_code(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return [code.co_name, code.co_code.hex(), code.co_names, inner]


def _bytes(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
