"""The losses as functions of torch: to subclasses of tensors, to modes, and to those who trace."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import nn
from torch.fx import Proxy
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


def as_node(module: nn.Module, input: Any, *args: Any, **kwargs: Any) -> Any:
    """Where ``torch.fx`` traces, this call of a module as one node, as one of torch's own is; else None.

    It is for modules whose forward pass looks at what it is given.
    """
    if torch.compiler.is_compiling() or not isinstance(input, Proxy):
        return None
    tracer: Any = input.tracer
    if module is tracer.root:
        name = type(module).__name__
        raise ValueError(f"{name} must be within the module that torch.fx traces, got it as the whole")
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (input, *args), kwargs)
