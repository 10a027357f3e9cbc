"""The losses as functions of torch: to subclasses of tensors, to modes, and to those who trace."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch.overrides import handle_torch_function, has_torch_function

P = ParamSpec("P")
R = TypeVar("R")


def overridable(loss: Callable[P, R]) -> Callable[P, R]:
    """What an argument says in ``__torch_function__`` is asked first, as by every function of torch."""

    @wraps(loss)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        # A compiler looks into the loss instead, and at what it does to a subclass.
        if has_torch_function(given) and not torch.compiler.is_compiling():
            return handle_torch_function(call, given, *args, **kwargs)
        return loss(*args, **kwargs)

    return call
