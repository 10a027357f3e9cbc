"""How torch runs at the moment, and so what may be asked of a tensor."""

import sys
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

NO_DISPATCH: Final = Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]


DEPTH_IS_TRACED: Final = torch.__version__ >= "2.13"


def readable(*tensors: Tensor) -> bool:
    """Whether values may be read: eagerly, on a CPU, outside every transform. Elsewhere it would cost a
    synchronisation or a graph break, or is impossible."""
    return (
        not torch.compiler.is_compiling()
        and not transformed()
        and not recorded()
        and all(plain(t) and t.device.type == "cpu" for t in tensors)
    )


def transformed(*tensors: Tensor) -> bool:
    """Whether a transform of ``torch.func`` is at work, or one of the tensors is a batch of gradients."""
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    # Of the ways to ask, torch.compile understands the first since 2.13, and before that the second.
    if DEPTH_IS_TRACED:
        if functorch.get_dynamic_layer_stack_depth() > 0:
            return True
    elif functorch.maybe_current_level() is not None:
        return True
    return bool(tensors) and any(map(functorch.is_legacy_batchedtensor, tensors))


def recorded() -> bool:
    """Whether somebody records or fakes torch's operators, to whom values do not exist."""
    if torch.compiler.is_compiling():  # whose older versions cannot ask the rest
        return False
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or _get_current_dispatch_mode() is not None


def captured() -> bool:
    """Whether operators go into a graph, which sees what a kernel does if that is an operator too."""
    if torch.compiler.is_compiling():
        return True
    proxy = torch._C._TorchDispatchModeKey.PROXY  # pyright: ignore[reportAttributeAccessIssue]
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or torch._C._get_dispatch_mode(proxy) is not None


def plain(tensor: Tensor) -> bool:
    """Whether its numbers lie in memory with strides: torch's own kind, or a subclass without a dispatch."""
    kind = type(tensor)
    own = kind in (Tensor, torch.nn.Parameter) or getattr(kind, "__torch_dispatch__", None) is NO_DISPATCH
    return own and tensor.layout is torch.strided and not tensor._is_zerotensor()


def is_dtensor(x: object) -> "TypeGuard[DTensor]":
    """Whether x is a DTensor, without importing what would tell."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)
