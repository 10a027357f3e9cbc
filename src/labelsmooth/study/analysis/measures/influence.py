"""Metrics that are not means of rows, written as means so that one analysis applies to all metrics.

A ratio or an area under a curve is approximated by the mean of its value plus the influence of each row.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def leaving_out(value: float, without: Callable[[int], float], groups: int) -> Tensor:
    """The jackknife: ``value`` as the mean of one pseudo-value for each group of rows, ``(groups,)``.

    ``without(g)`` is the metric without the rows of group ``g``. Groups without a defined value are left
    out.

    Reference:
        Efron and Stein, *The jackknife estimate of variance*, Annals of Statistics 1981.
    """
    left = torch.tensor([without(g) for g in range(groups)], dtype=torch.float64)
    left = left[left.isfinite()]
    if len(left) < 2:
        return torch.tensor([value], dtype=torch.float64)
    return value + (len(left) - 1) * (left.mean() - left)


def by_groups(metric: Callable[[Tensor], float], groups: Tensor) -> Tensor:
    """The jackknife of a metric of row indices; ``groups`` is the group of each row, ``(N,)``."""
    every = torch.arange(len(groups))
    return leaving_out(metric(every), lambda g: metric(every[groups != g]), int(groups.max()) + 1)
