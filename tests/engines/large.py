"""Gradients that are large enough for their memory to be kept."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from labelsmooth import functional
from labelsmooth._engines import kept
from tests.cases import kernel

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

N, K = 64, 2**17  # 32 MiB of float32
Y = torch.arange(N)
NBYTES = 4 * N * K


LARGE = [
    kernel,
    pytest.mark.skipif(kept.most() < 10 * NBYTES, reason="nothing is kept on this machine"),
    pytest.mark.usefixtures("nothing_is_kept"),
]


def logits(value: float = 0.0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Whose gradient depends on the value."""
    z = torch.zeros(N, K, dtype=dtype)
    z[:, :9] = value
    return z.requires_grad_()


def gradient(value: float = 0.0, z: Tensor | None = None, **options: Any) -> Tensor:
    z = logits(value) if z is None else z
    loss = cross_entropy(z, Y, **{"label_smoothing": 0.1, **options})
    return torch.autograd.grad(loss.sum(), z)[0]


def is_reused(make: Callable[[], Tensor]) -> bool:
    """Whether the second takes the place of the first, once that has died."""
    first = make()
    at, other = first.data_ptr(), torch.empty_like(first, device="meta")
    del first
    in_between = torch.empty_like(other, device="cpu")  # would be in its place, if that had been freed
    return make().data_ptr() == at != in_between.data_ptr()
