"""What a formula is, and what one is made of."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval
from labelsmooth._core.statistics import RowStatistics, times


def nll(s: RowStatistics) -> Tensor:
    """H(target, q): the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, s.prior_mass * s.lse - s.prior_z)


def model_entropy(s: RowStatistics) -> Tensor:
    """H(q)."""
    return s.lse - s.model_z


def log_likelihood(s: RowStatistics) -> Tensor:
    """log q_y; for class probabilities t, and labels that are mixed, <t, log q> by their mass."""
    mass = s.target_mass
    return torch.where(mass == 0, 0.0, s.target_z / mass.masked_fill(mass == 0, 1.0) - s.lse)


@dataclass(frozen=True)
class Formula:
    """A loss of a row. A method of one's own is a subclass with a ``__call__``.

    Class attributes say what it takes: the range of its strength, and the statistics it uses that not every
    loss needs. To use one without asking for it is a ``ValueError``, or NaN in ``torch.compile``.
    """

    strengths: ClassVar[Interval] = Interval(0, 1)
    """The range of its strength."""
    spread: ClassVar[bool] = False
    """Whether it uses ``model_z``, the mean of the logits under the model."""
    overlap: ClassVar[bool] = False
    """Whether it uses ``overlap``, what the prior gives the label."""
    linear: ClassVar[bool] = False
    """Whether it is linear in the logits' statistics ``lse``, ``target_z``, ``prior_z``, ``hinge`` and
    ``model_z``: its gradient is then found without autograd."""
    draws: ClassVar[bool] = False
    """Whether it takes wrong labels to be drawn from the prior, which then cannot depend on the label."""

    @property
    def hinge(self) -> tuple[float, bool] | None:
        """The margin of the hinge that it uses, and whether that is squared; None if it uses none."""
        return None

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        """One loss per row; ``eps`` broadcasts against the rows."""
        raise NotImplementedError


def check_formula(formula: object) -> None:
    if not isinstance(formula, Formula):
        is_class = isinstance(formula, type)
        name = f"the class {formula.__name__}" if is_class else type(formula).__name__
        raise ValueError(f"formula must be a Formula, such as MaxSup(), got {name}")
