"""The base class of the formulas, and their building blocks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval
from labelsmooth._core.statistics import RowStatistics, times


def nll(s: RowStatistics) -> Tensor:
    """H(target, q), the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, s.prior_mass * s.lse - s.prior_z)


def model_entropy(s: RowStatistics) -> Tensor:
    """H(q), the entropy of the model."""
    return s.lse - s.model_z


def log_likelihood(s: RowStatistics) -> Tensor:
    """log q_y; for class probabilities or mixup labels t, <t, log q> divided by the mass of t."""
    mass = s.target_mass
    return torch.where(mass == 0, 0.0, s.target_z / mass.masked_fill(mass == 0, 1.0) - s.lse)


@dataclass(frozen=True)
class Formula:
    """The loss of a row. A subclass with a ``__call__`` is a new method.

    Class attributes declare the range of the strength and the optional row statistics that the formula uses.
    Using a statistic without declaring it raises a ``ValueError``, or gives NaN in ``torch.compile``.
    """

    strengths: ClassVar[Interval] = Interval(0, 1)
    """The range of the strength."""
    spread: ClassVar[bool] = False
    """Whether the formula uses ``model_z``, the mean of the logits under the model."""
    overlap: ClassVar[bool] = False
    """Whether the formula uses ``overlap``, the prior's probability of the label."""
    draws: ClassVar[bool] = False
    """Whether the formula assumes that wrong labels are drawn from one prior, whatever the label."""

    @property
    def hinge(self) -> tuple[float, bool] | None:
        """The margin of the hinge, and whether the hinge is squared; None if the formula uses no hinge."""
        return None

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        """The loss of each row; ``eps`` broadcasts against the rows."""
        raise NotImplementedError


def check_formula(formula: object) -> None:
    if not isinstance(formula, Formula):
        is_class = isinstance(formula, type)
        name = f"the class {formula.__name__}" if is_class else type(formula).__name__
        raise ValueError(f"formula must be a Formula, such as MaxSup(), got {name}")
