"""The interval of a mean over seeds and test rows, where every seed meets every row."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from labelsmooth.study.analysis.figures import Difference, Estimate

LEVEL = 0.05


@dataclass(frozen=True)
class Mean:
    """A mean, the variance of that mean, its degrees of freedom, and what it is made of."""

    mean: float
    variance: float
    degrees: float
    parts: tuple[float, float, float]  # of the variance: from seeds, from rows, from both together

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        from scipy.special import stdtrit  # slow to import, and not needed to read results back

        return float(stdtrit(self.degrees, 1 - LEVEL / 2)) * math.sqrt(self.variance)

    @property
    def p(self) -> float:
        """How likely a mean so far from 0 is by chance: the level at which the interval touches 0."""
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
    r"""The mean of ``values``, ``(seeds, rows)``, where seeds and rows are both a sample of what could be.

    Of the mean squares of a two-way analysis of variance with random effects,

    .. math::
        \mathrm{var} = (MS_\text{seeds} + MS_\text{rows} - MS_\text{residual}) / (S N)

    and never less than the variance from the seeds, or from the rows, alone. The residual is what a seed and
    a row have together: it is in both other mean squares, and counts once. The degrees of freedom are
    Satterthwaite's.

    Reference:
        Satterthwaite, *An approximate distribution of estimates of variance components*, Biometrics 1946.
    """
    num_seeds, num_rows = values.shape
    mean = values.mean()
    if num_seeds * num_rows == 1:  # one number says nothing of how it varies
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
