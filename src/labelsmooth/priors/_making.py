"""Helpers that compute a prior once, in float64 on a CPU, for inputs of any dtype and device."""

import torch
from torch import Tensor

from labelsmooth._core.checks import check_tensor
from labelsmooth._core.modes import readable
from labelsmooth._core.precision import accurate
from labelsmooth.priors._distributions import Prior


def check_real(name: str, value: object) -> None:
    check_tensor(name, value)
    assert isinstance(value, Tensor)
    if value.is_complex() or value.dtype == torch.bool:
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")


def check_square(name: str, value: object) -> None:
    check_real(name, value)
    assert isinstance(value, Tensor)
    if value.dim() != 2 or value.size(0) != value.size(1) or not len(value):
        raise ValueError(f"{name} must have shape (K, K), got {tuple(value.shape)}")


def first_class(bad: Tensor) -> int | None:
    """The first class whose entry is true, if values may be read."""
    return int(bad.nonzero()[0]) if readable(bad) and bool(bad.any()) else None


def exact(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float64)


def positions(num_classes: int) -> tuple[Tensor, Tensor]:
    """The class indices, as a column (the targets) and as a row (the classes)."""
    k = torch.arange(num_classes, dtype=torch.float64, device="cpu")
    return k.unsqueeze(-1), k


def prior(probabilities: Tensor, description: str, like: Tensor | None = None) -> Prior:
    """A prior on the device of ``like``, in float64 if ``like`` is, else in at least float32."""
    double = like is not None and like.dtype == torch.float64
    device = torch.get_default_device() if like is None else like.device
    dtype = torch.float64 if double else accurate(torch.get_default_dtype())
    return Prior(probabilities.to(device, dtype), description)
