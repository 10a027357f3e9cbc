"""Support for ``__torch_function__``, on tensor subclasses and modes, and for tracing by ``torch.fx``."""

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
    """Call the ``__torch_function__`` of an argument or mode first, as every torch function does."""

    @wraps(loss)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = (*args, *kwargs.values())
        # torch.compile traces into the loss instead, and into its operations on a subclass.
        if has_torch_function(given) and not torch.compiler.is_compiling():
            return handle_torch_function(call, given, *args, **kwargs)
        return loss(*args, **kwargs)

    return call


def as_node(module: nn.Module, input: Any, *args: Any, **kwargs: Any) -> Any:
    """A call of a module as one node of a ``torch.fx`` trace, as for torch's own modules; else None.

    It is for modules whose forward pass inspects its arguments.
    """
    if torch.compiler.is_compiling() or not isinstance(input, Proxy):
        return None
    tracer: Any = input.tracer
    if module is tracer.root:
        name = type(module).__name__
        raise ValueError(f"{name} must be within the module that torch.fx traces, got it as the whole")
    return tracer.create_proxy("call_module", tracer.path_of_module(module), (input, *args), kwargs)
