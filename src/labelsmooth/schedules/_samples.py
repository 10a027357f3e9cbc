"""Strengths per sample."""

import torch
from torch import Tensor

from labelsmooth._core.checks import check_strength, check_tensor
from labelsmooth._core.precision import accurate


def graduated(
    confidence: Tensor,
    thresholds: tuple[float, float] = (0.3, 0.7),
    strengths: tuple[float, float, float] = (0.0, 0.1, 0.3),
) -> Tensor:
    r"""A strength for each sample that increases with the confidence of a trained model.

    .. math::
        \epsilon_i = \begin{cases}
            \epsilon_0 & c_i < a \\ \epsilon_1 & a \le c_i \le b \\ \epsilon_2 & c_i > b
        \end{cases}

    Args:
        confidence: c, the probability of a model's prediction, or of the label, for each sample, of any
            shape, in ``[0, 1]``.
        thresholds: (a, b) with ``0 <= a <= b <= 1``.
        strengths: The three strengths, below, between and above the thresholds, each in ``[0, 1]``.

    Returns:
        A value for ``label_smoothing=``, one strength per sample in the shape of ``confidence``, float32
        (float64 if it is), without gradient.

    Raises:
        ValueError: if an argument is out of its range, or has a wrong dtype. Values of tensors are checked
            on a CPU in eager mode outside ``torch.func``; elsewhere a confidence outside ``[0, 1]`` gives
            NaN.

    Example:
        >>> import torch
        >>> graduated(torch.tensor([0.2, 0.5, 0.9]))
        tensor([0.0000, 0.1000, 0.3000])

    Reference:
        Wang et al., *On the Inference Calibration of Neural Machine Translation*, ACL 2020.
    """
    check_tensor("confidence", confidence)
    if not confidence.is_floating_point():
        raise ValueError(f"confidence must be floating point, got {confidence.dtype}")
    check_strength("confidence", confidence)
    _check_numbers("thresholds", thresholds, 2)
    _check_numbers("strengths", strengths, 3)
    low, high = thresholds
    if low > high:
        raise ValueError(f"thresholds must not decrease, got {thresholds}")
    below, between, above = strengths
    c = confidence.to(accurate(confidence.dtype))
    eps = torch.full_like(c, between).masked_fill(c < low, below).masked_fill(c > high, above)
    return eps.masked_fill(~((c >= 0) & (c <= 1)), torch.nan)


def _check_numbers(name: str, values: tuple[float, ...], length: int) -> None:
    if not isinstance(values, tuple | list) or len(values) != length:
        raise ValueError(f"{name} must be {length} numbers, got {values!r}")
    for value in values:
        check_strength(name, value)
