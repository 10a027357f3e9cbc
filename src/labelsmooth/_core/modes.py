"""The mode in which torch is running, and whether a tensor's values may be read in it."""

import sys
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _get_current_dispatch_mode

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

NO_DISPATCH: Final = Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]


DEPTH_IS_TRACED: Final = torch.__version__ >= "2.13"


def readable(*tensors: Tensor) -> bool:
    """Whether values may be read: in eager mode, on a CPU, outside every transform.

    Elsewhere reading them costs a synchronisation or a graph break, or is impossible.
    """
    return (
        not torch.compiler.is_compiling()
        and not transformed()
        and not recorded()
        and all(plain(t) and t.device.type == "cpu" for t in tensors)
    )


def trains(module: nn.Module) -> bool:
    """Whether the module is in training mode and gradients are enabled."""
    return module.training and torch.is_grad_enabled()


def transformed(*tensors: Tensor) -> bool:
    """Whether a ``torch.func`` transform is active, or one of the tensors is a batch of gradients."""
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    # torch.compile supports the first of these calls since torch 2.13, and the second before.
    if DEPTH_IS_TRACED:
        if functorch.get_dynamic_layer_stack_depth() > 0:
            return True
    elif functorch.maybe_current_level() is not None:
        return True
    return bool(tensors) and any(map(functorch.is_legacy_batchedtensor, tensors))


def recorded() -> bool:
    """Whether a tracer or a dispatch mode intercepts operators, so that tensors may have no values."""
    if torch.compiler.is_compiling():  # older versions of torch.compile do not support the rest
        return False
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or _get_current_dispatch_mode() is not None


def captured() -> bool:
    """Whether operators are captured in a graph, for which a kernel has to be an operator itself."""
    if torch.compiler.is_compiling():
        return True
    proxy = torch._C._TorchDispatchModeKey.PROXY  # pyright: ignore[reportAttributeAccessIssue]
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or torch._C._get_dispatch_mode(proxy) is not None


def plain(tensor: Tensor) -> bool:
    """Whether the tensor is strided memory: torch's own class, or a subclass without its own dispatch."""
    kind = type(tensor)
    own = kind in (Tensor, nn.Parameter) or getattr(kind, "__torch_dispatch__", None) is NO_DISPATCH
    return own and tensor.layout is torch.strided and not tensor._is_zerotensor()


def is_dtensor(x: object) -> "TypeGuard[DTensor]":
    """Whether x is a DTensor, without importing the module that defines it."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)
