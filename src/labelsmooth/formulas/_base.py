"""What a formula is, and what one is made of."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval
from labelsmooth._core.statistics import Factors, RowStatistics, times


def nll(s: RowStatistics) -> Tensor:
    """H(target, q): the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, prior_nll(s))


def prior_nll(s: RowStatistics) -> Tensor:
    """H(prior, q)."""
    return s.prior_mass * s.lse - s.prior_z


def hinge(s: RowStatistics) -> Tensor:
    return s.hinge


def model_entropy(s: RowStatistics) -> Tensor:
    """H(q)."""
    return s.lse - s.model_z


def log_likelihood(s: RowStatistics) -> Tensor:
    """log q_y; for class probabilities t, and labels that are mixed, <t, log q> by their mass."""
    mass = s.target_mass
    return torch.where(mass == 0, 0.0, s.target_z / mass.masked_fill(mass == 0, 1.0) - s.lse)


def _part(factor: float | Tensor, term: Tensor) -> Tensor:
    if isinstance(factor, Tensor):
        return times(factor, term)
    return term if factor == 1 else times(term.new_tensor(factor), term)


@dataclass(frozen=True)
class Formula:
    """A loss of a row. A method of one's own is a subclass with ``factors``, where the loss is a sum of the
    terms that :class:`Factors` names, or with a ``__call__``.

    Class attributes say what it takes: the range of its strength, and the statistics it uses that not every
    loss needs. To use one without asking for it is a ``ValueError``, or NaN in ``torch.compile``.
    """

    strengths: ClassVar[Interval] = Interval(0, 1)
    """The range of its strength."""
    spread: ClassVar[bool] = False
    """Whether it uses ``model_z``, the mean of the logits under the model."""
    overlap: ClassVar[bool] = False
    """Whether it uses ``overlap``, what the prior gives the label."""
    draws: ClassVar[bool] = False
    """Whether it takes wrong labels to be drawn from the prior, which then cannot depend on the label."""

    @property
    def hinge(self) -> tuple[float, bool] | None:
        """The margin of the hinge that it uses, and whether that is squared; None if it uses none."""
        return None

    def factors(self, eps: float | Tensor) -> Factors:
        """Of a linear formula: those of the nll, of H(prior, q), of the hinge and of H(q)."""
        raise NotImplementedError("a formula has a __call__ or, if it is linear in its terms, factors")

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        """One loss per row; ``eps`` broadcasts against the rows."""
        terms = zip(self.factors(eps), (nll, prior_nll, hinge, model_entropy), strict=True)
        parts = [_part(factor, term(s)) for factor, term in terms if isinstance(factor, Tensor) or factor]
        return reduce(torch.add, parts)

    @property
    def linear(self) -> bool:
        """Whether it is given by its factors alone; engines compute such a loss and its gradient directly."""
        return type(self).__call__ is Formula.__call__


def check_formula(name: str, formula: object) -> None:
    if not isinstance(formula, Formula):
        got = f"the class {formula.__name__}" if isinstance(formula, type) else type(formula).__name__
        raise ValueError(f"{name} must be a Formula, such as MaxSup(), got {got}")
