"""Reduction of one loss per row to a scalar."""

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
    """Reduce a loss per row, which is 0 in ignored rows.

    Args:
        loss: One loss per row.
        counts: The count of each row in a mean, of the same shape.
        reduction: "mean" divides the sum by the sum of ``counts``. An empty mean is NaN, as in torch.
        denominator: Divides a "mean" in place of the sum of ``counts``. An empty mean is then 0.
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
    """The divisor of a "mean"."""
    if denominator is None:
        return counts.sum()
    nothing = (counts == 0).all()
    given = torch.as_tensor(denominator, dtype=counts.dtype, device=counts.device).reshape(())
    return given.masked_fill(nothing, 1.0)
