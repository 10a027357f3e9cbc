"""Numbers whose mean is a metric that is no mean itself, so that one analysis serves them all.

A ratio or an area under a curve is nearly a mean: its value, and how much each row moves it.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def leaving_out(value: float, without: Callable[[int], float], groups: int) -> Tensor:
    """The jackknife: ``value`` as the mean of one number for each group of rows, ``(groups,)``.

    ``without(g)`` is the metric of all rows but those of group ``g``. Groups in which it cannot be found are
    left out.

    Reference:
        Efron and Stein, *The jackknife estimate of variance*, Annals of Statistics 1981.
    """
    left = torch.tensor([without(g) for g in range(groups)], dtype=torch.float64)
    left = left[left.isfinite()]
    if len(left) < 2:
        return torch.tensor([value], dtype=torch.float64)
    return value + (len(left) - 1) * (left.mean() - left)


def by_groups(metric: Callable[[Tensor], float], groups: Tensor) -> Tensor:
    """The same of a metric of some rows, by their numbers; ``groups`` is the group of each row, ``(N,)``."""
    every = torch.arange(len(groups))
    return leaving_out(metric(every), lambda g: metric(every[groups != g]), int(groups.max()) + 1)
