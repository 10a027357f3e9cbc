"""The base class of the formulas, and their building blocks."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval
from labelsmooth._core.statistics import Factors, RowStatistics, model_entropy, nll, prior_nll, times


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, prior_nll(s))


def hinge(s: RowStatistics) -> Tensor:
    return s.hinge


def log_likelihood(s: RowStatistics) -> Tensor:
    """log q_y; for class probabilities or mixup labels t, <t, log q> divided by the mass of t."""
    mass = s.target_mass
    return torch.where(mass == 0, 0.0, s.target_z / mass.masked_fill(mass == 0, 1.0) - s.lse)


def _part(factor: float | Tensor, term: Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return times(factor, term)
    return term if factor == 1 else times(term.new_tensor(factor), term)


@dataclass(frozen=True)
class Formula:
    """The loss of a row. A new method is a subclass with ``factors``, if the loss is a sum of the terms of
    :class:`Factors`, or else with a ``__call__``.

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

    def factors(self, eps: float | Tensor) -> Factors:
        """The factors of the terms, for a loss that is their sum."""
        raise NotImplementedError("a formula defines factors or __call__")

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        """The loss of each row; ``eps`` broadcasts against the rows."""
        terms = zip(self.factors(eps), (nll, prior_nll, hinge, model_entropy), strict=True)
        parts = [_part(factor, term(s)) for factor, term in terms if isinstance(factor, Tensor) or factor]
        return reduce(torch.add, parts)

    @property
    def linear(self) -> bool:
        """Whether ``factors`` alone defines the loss; engines then compute it and its gradient directly."""
        return type(self).__call__ is Formula.__call__


def check_formula(name: str, formula: object) -> None:
    if not isinstance(formula, Formula):
        got = f"the class {formula.__name__}" if isinstance(formula, type) else type(formula).__name__
        raise ValueError(f"{name} must be a Formula, such as MaxSup(), got {got}")
