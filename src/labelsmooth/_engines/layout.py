"""The memory layout of the rows that a kernel reads."""

import math

import torch
from torch import Tensor

SIDE_BY_SIDE = 16
"""The smallest number of adjacent rows for which computing them side by side is faster."""


def in_rows(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """``x``, and (inner, outer, step): row i starts at (i // inner) * outer + (i % inner) * step.

    The classes of a row are adjacent. Any other layout of rows or classes is copied.
    """
    if x.is_contiguous():
        return x, (x.numel() // x.size(-1), 0, x.size(-1))
    merged: list[tuple[int, int]] = []  # size and stride of dimensions, merged where one stride serves both
    for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True):
        if merged and merged[-1][1] == size * stride:
            merged[-1] = (merged[-1][0] * size, stride)
        elif size > 1:
            merged.append((size, stride))
    if len(merged) > 2 or (x.size(-1) > 1 and x.stride(-1) != 1):
        return in_rows(x.contiguous())
    (_, outer), (inner, step) = [(1, 0)] * (2 - len(merged)) + merged
    return x, (inner, outer, step)


def in_columns(x: Tensor) -> tuple[int, int, int] | None:
    """(inner, outer, step) of adjacent rows whose classes are ``inner`` apart, or None for other layouts.

    The pixels of a segmentation map are such rows.
    """
    inner = math.prod(x.shape[1:-1])
    if inner < SIDE_BY_SIDE or not x.movedim(-1, 1).is_contiguous():
        return None
    return inner, inner * x.size(-1), 1


def rows_like(z: Tensor) -> Tensor:
    """Memory for a gradient with respect to ``z``, with the classes of each row adjacent."""
    return z.new_empty(z.shape)


def laid_like(z: Tensor) -> Tensor:
    """Memory for a gradient with respect to ``z``, in the layout of ``z`` for a segmentation map."""
    return rows_like(z) if in_columns(z) is None else torch.empty_like(z)
