"""Intervals of means over crossed seeds and test rows."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labelsmooth.study.analysis.figures import Difference, Estimate

LEVEL = 0.05


@dataclass(frozen=True)
class Mean:
    """A mean, its variance with its components, and the degrees of freedom."""

    mean: float
    variance: float
    degrees: float
    parts: tuple[float, float, float]  # of the variance: seeds, rows, interaction

    @property
    def half_width(self) -> float:
        """Half the width of the 95 % interval."""
        from scipy.special import stdtrit  # slow to import, and not needed to read results

        return float(stdtrit(self.degrees, 1 - LEVEL / 2)) * math.sqrt(self.variance)

    @property
    def p(self) -> float:
        """The p-value of the mean: 1 minus the level of the interval that touches 0."""
        from scipy.special import stdtr

        if not self.mean:
            return 1.0
        if not self.variance:
            return 0.0
        return 2 * float(stdtr(self.degrees, -abs(self.mean) / math.sqrt(self.variance)))

    def estimate(self) -> Estimate:
        return Estimate(self.mean, self.mean - self.half_width, self.mean + self.half_width)

    def difference(self) -> Difference:
        return Difference(**vars(self.estimate()), p=self.p, parts=self.parts)


def crossed(values: Tensor) -> Mean:
    r"""The mean of ``values``, ``(seeds, rows)``, with seeds and rows as crossed random effects.

    From the mean squares of a two-way analysis of variance,

    .. math::
        \mathrm{var} = (MS_\text{seeds} + MS_\text{rows} - MS_\text{residual}) / (S N)

    and at least the variance from the seeds, or from the rows, alone. The residual is the interaction of seed
    and row: it is part of both other mean squares, and is subtracted once. The degrees of freedom are
    Satterthwaite's.

    Reference:
        Satterthwaite, *An approximate distribution of estimates of variance components*, Biometrics 1946.
    """
    num_seeds, num_rows = values.shape
    mean = values.mean()
    if num_seeds * num_rows == 1:  # one number has no variance estimate
        return Mean(float(mean), math.inf, 1, (0.0, 0.0, math.inf))
    seed, row = values.mean(1) - mean, values.mean(0) - mean
    residual = values - mean - seed.unsqueeze(1) - row
    free = torch.tensor([num_seeds - 1, num_rows - 1], dtype=torch.float64).clamp_min(1)
    degrees = torch.cat([free, free.prod(0, keepdim=True)])
    sums = [num_rows * seed.square().sum(), num_seeds * row.square().sum(), residual.square().sum()]
    squares = torch.stack(sums).double().cpu() / degrees
    seeds, rows, both = squares.tolist()
    variance = max(seeds + rows - both, seeds, rows)
    spread = float((squares**2 / degrees).sum())
    freedom = max(variance**2 / spread, num_seeds - 1) if spread else math.inf
    count = num_seeds * num_rows
    parts = max(seeds - both, 0.0) / count, max(rows - both, 0.0) / count, both / count
    return Mean(float(mean), variance / count, freedom, parts)
