"""The types that are computed in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def as_given(device: torch.device) -> AbstractContextManager[object]:
    """Products in the types that they are given in, which autocast would shorten."""
    return torch.autocast(device.type, enabled=False) if autocast(device.type) else nullcontext()


def autocast(device: str) -> bool:
    """Whether products on such a device are shortened."""
    # The meta device has none, and to ask it whether it has is beyond older versions of torch.compile.
    return device != "meta" and torch.is_autocast_enabled(device)


def compute_dtype(input: Tensor) -> torch.dtype:
    return accurate(input.dtype)


def accurate(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything else is computed, and returned, in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
