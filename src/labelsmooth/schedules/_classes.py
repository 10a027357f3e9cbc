"""Strengths per class."""

import math
from typing import Literal, assert_never

import torch
from torch import Tensor

from labelsmooth._core.checks import (
    Interval,
    check_choice,
    check_number,
    check_strength,
    check_tensor,
    check_values,
)
from labelsmooth._core.exact import Exact, keep
from labelsmooth._core.modes import readable
from labelsmooth._core.precision import accurate

Shape = Literal["concave", "linear", "convex", "exponential"]


class ByClass(Exact):
    """A strength for each class. :func:`labelsmooth.by_class` and :func:`by_counts` make it."""

    eps: Tensor

    def __init__(self, eps: Tensor) -> None:
        super().__init__()
        check_tensor("by_class: eps", eps)
        if eps.dim() != 1:
            raise ValueError(f"by_class: eps must have shape (K,), got {tuple(eps.shape)}")
        check_strength("by_class: eps", eps, Interval(-math.inf, math.inf))
        keep(self, "eps", eps)

    def check_classes(self, name: str, num_classes: int) -> None:
        if self.eps.numel() != num_classes:
            raise ValueError(f"{name}: by_class has K={self.eps.numel()} classes, input K={num_classes}")

    def extra_repr(self) -> str:
        known = readable(self.eps) and self.eps.numel()
        return (f"{self.eps.min():.3g} to {self.eps.max():.3g}, " if known else "") + f"K={self.eps.numel()}"


def by_class(eps: Tensor) -> ByClass:
    r"""A strength for each class: a sample of class y is smoothed by ``eps[y]``.

    .. math:: \epsilon_i = \epsilon_{y_i}

    Args:
        eps: One strength per class, shape ``(K,)``, each in the range of the loss, which checks it.

    Returns:
        A value for ``label_smoothing=``, a module that moves and is saved with the loss that holds it.

    Raises:
        ValueError: if ``eps`` is not a vector, or a value is not finite.

    Example:
        >>> import torch, labelsmooth
        >>> rare_classes_less = labelsmooth.by_class(torch.tensor([0.2, 0.1, 0.0]))
        >>> loss = labelsmooth.CrossEntropyLoss(label_smoothing=rare_classes_less)
        >>> loss(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(1.0986)

    Reference:
        Zhong et al., *Improving Calibration for Long-Tailed Recognition*, CVPR 2021.
    """
    return ByClass(eps)


def by_counts(
    counts: Tensor, head: float, tail: float, shape: Shape = "concave", *, power: float | None = None
) -> ByClass:
    r"""Label-aware smoothing: strengths from ``head`` for the most frequent class to ``tail`` for the rarest.

    .. math::
        \epsilon_k = \epsilon_\mathrm{tail} + (\epsilon_\mathrm{head} - \epsilon_\mathrm{tail})\, f(r_k),
        \qquad r_k = \frac{n_k - \min_j n_j}{\max_j n_j - \min_j n_j}

    f is :math:`\sin(\pi r / 2)` ("concave"), :math:`r` ("linear"), :math:`1 - \cos(\pi r / 2)` ("convex") or
    :math:`r^p` ("exponential", the authors' name). If all classes are equally frequent, all get ``head``.

    Args:
        counts: n, the number of training samples of each class, ``(K,)``, at least 0 and not all 0.
        head: The strength of the most frequent class, in ``[0, 1]``; the authors use 0.1 to 0.4.
        tail: The strength of the rarest class, in ``[0, 1]``; the authors use 0 to 0.1.
        shape: "concave", "linear", "convex" or "exponential".
        power: p of "exponential", above 0; 2 if None.

    Returns:
        A value for ``label_smoothing=``, a module that moves and is saved with the loss that holds it.

    Raises:
        ValueError: if an argument is out of its range, or has a wrong shape or dtype.

    Example:
        >>> import torch
        >>> by_counts(torch.tensor([500, 50, 5]), head=0.3, tail=0.0).eps
        tensor([0.3000, 0.0427, 0.0000])

    Reference:
        Zhong et al., *Improving Calibration for Long-Tailed Recognition*, CVPR 2021.
    """
    _check_counts(counts)
    check_strength("head", head)
    check_strength("tail", tail)
    check_choice("shape", shape, Shape)
    if power is not None:
        if shape != "exponential":
            raise ValueError(f'power requires shape="exponential", got shape={shape!r}')
        check_number("power", power, above_zero=True)
    above = counts - counts.min()
    spread = above.max()
    r = torch.where(spread == 0, 1.0, above.to(accurate(counts.dtype)) / spread)
    match shape:
        case "concave":
            f = torch.sin(r * (math.pi / 2))
        case "linear":
            f = r
        case "convex":
            f = 1 - torch.cos(r * (math.pi / 2))
        case "exponential":
            f = r ** (2.0 if power is None else power)
        case _:
            assert_never(shape)
    return ByClass(tail + (head - tail) * f)


def _check_counts(counts: Tensor) -> None:
    check_tensor("counts", counts, typed=True)
    if counts.dim() != 1 or counts.numel() == 0:
        raise ValueError(f"counts must have shape (K,), got {tuple(counts.shape)}")
    if counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(f"counts must be integers or floating point, got {counts.dtype}")
    check_values("counts", "be finite and at least 0", counts, (counts >= 0) & (counts < torch.inf))
    if readable(counts) and not bool(counts.any()):
        raise ValueError("counts must not all be 0")
