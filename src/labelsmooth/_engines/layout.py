"""Where the rows lie that a kernel reads."""

import math

import torch
from torch import Tensor

SIDE_BY_SIDE = 16
"""Fewer rows than these are not worth to be computed beside one another."""


def in_rows(x: Tensor) -> tuple[Tensor, tuple[int, int, int]]:
    """``x`` whose row i is at (i // inner) * outer + (i % inner) * step, its classes in turn, and these.

    Rows that are scattered otherwise, and classes that do not lie side by side, are copied.
    """
    if x.is_contiguous():
        return x, (x.numel() // x.size(-1), 0, x.size(-1))
    merged: list[tuple[int, int]] = []  # size and stride, neighbours in one where one stride serves both
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
    """The same of rows that lie side by side, as the pixels of a map do, and have their classes ``inner``
    apart; or None."""
    inner = math.prod(x.shape[1:-1])
    if inner < SIDE_BY_SIDE or not x.movedim(-1, 1).is_contiguous():
        return None
    return inner, inner * x.size(-1), 1


def rows_like(z: Tensor) -> Tensor:
    """Room for a gradient by ``z``, the classes of each row side by side."""
    return z.new_empty(z.shape)


def laid_like(z: Tensor) -> Tensor:
    """The same, but for a map, where the classes lie as in ``z``."""
    return rows_like(z) if in_columns(z) is None else torch.empty_like(z)
