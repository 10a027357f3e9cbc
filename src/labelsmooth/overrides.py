"""The losses as functions of torch: to subclasses of tensors, to modes, and to those who trace."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch.overrides import handle_torch_function, has_torch_function

P = ParamSpec("P")
R = TypeVar("R")


def overridable(loss: Callable[P, R]) -> Callable[P, R]:
    """What an argument says in ``__torch_function__`` is asked first, as by every function of torch."""

    @wraps(loss)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        if has_torch_function(given):
            return handle_torch_function(call, given, *args, **kwargs)
        return loss(*args, **kwargs)

    return call
