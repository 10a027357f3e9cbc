"""The one place that divides."""

from typing import Literal, assert_never

import torch
from torch import Tensor

Reduction = Literal["none", "mean", "sum"]


def reduce(
    loss: Tensor,
    counts: Tensor,
    reduction: Reduction,
    denominator: float | Tensor | None = None,
) -> Tensor:
    """Reduce a loss per row, in which rows that do not count are 0.

    Args:
        loss: One loss per row.
        counts: What each row counts in a mean, of the same shape.
        reduction: "mean" divides the sum by the sum of ``counts``: NaN when nothing counts, as in torch.
        denominator: Divides a "mean" instead, and then a mean over nothing is 0.
    """
    match reduction:
        case "none":
            return loss
        case "sum":
            return loss.sum()
        case "mean":
            return loss.sum() / divisor(counts, denominator)
        case _:
            assert_never(reduction)


def divisor(counts: Tensor, denominator: float | Tensor | None = None) -> Tensor:
    """What a "mean" divides the sum by."""
    if denominator is None:
        return counts.sum()
    nothing = (counts == 0).all()
    given = torch.as_tensor(denominator, dtype=counts.dtype, device=counts.device).reshape(())
    return given.masked_fill(nothing, 1.0)
