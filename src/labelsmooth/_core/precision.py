"""The floating-point types of the computation."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def as_given(device: torch.device) -> AbstractContextManager[object]:
    """A context without autocast, in which matrix products keep the dtype of their operands."""
    return torch.autocast(device.type, enabled=False) if autocast(device.type) else nullcontext()


def autocast(device: str) -> bool:
    """Whether autocast is enabled on this type of device."""
    # The meta device has no autocast, and older versions of torch.compile do not support the call for it.
    return device != "meta" and torch.is_autocast_enabled(device)


def compute_dtype(input: Tensor) -> torch.dtype:
    return accurate(input.dtype)


def accurate(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the computation and its result: float64 for float64, otherwise float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
