"""Formulas that depend on the model's confidence."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval, check_number
from labelsmooth._core.statistics import Factors, RowStatistics, model_entropy, nll, times
from labelsmooth.formulas._base import Formula, log_likelihood, smoothed_nll


@dataclass(frozen=True)
class ConfidencePenalty(Formula):
    r"""Cross entropy with a reward for the entropy of the model's distribution, up to a threshold.

    .. math::
        \ell = -\log q_y - \epsilon\, H(q) \quad\text{or, with a threshold,}\quad
        -\log q_y + \epsilon \max(0,\ \Gamma - H(q)), \qquad \epsilon \in [0, \infty)

    Args:
        threshold: Gamma, in nats, above 0. None rewards entropy without a limit.

    Raises:
        ValueError: if ``threshold`` is not above 0.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=ConfidencePenalty())
        tensor(0.1174)

    Reference:
        Pereyra et al., *Regularizing Neural Networks by Penalizing Confident Output Distributions*, 2017.
    """

    threshold: float | None = None
    strengths: ClassVar[Interval] = Interval(0, math.inf)
    spread: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_number("threshold", self.threshold, above_zero=True)

    @property
    def linear(self) -> bool:
        return self.threshold is None

    def factors(self, eps: float | Tensor) -> Factors:
        return Factors(nll=1.0, entropy=-eps)

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        if self.threshold is None:
            return super().__call__(s, eps)
        return nll(s) + times(eps, (self.threshold - model_entropy(s)).relu())


@dataclass(frozen=True)
class LabelRelaxation(Formula):
    r"""The KL divergence from the closest distribution with at least 1 - eps on the label; 0 if q is one.

    .. math::
        \ell = \begin{cases} 0 & q_y \ge 1 - \epsilon \\
        (1 - \epsilon) \log \frac{1 - \epsilon}{q_y} + \epsilon \log \frac{\epsilon}{1 - q_y}
        & \text{otherwise} \end{cases}, \qquad \epsilon \in [0, 1]

    The derivative by eps is -inf at eps = 0, so initialise a learnt strength above 0.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=LabelRelaxation())
        tensor(0.0134)

    Reference:
        Lienen and Hüllermeier, *From Label Smoothing to Label Relaxation*, AAAI 2021.
    """

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        log_q = log_likelihood(s)
        relaxed = log_q >= torch.log1p(-eps)
        # Placeholders whose logarithms have a finite derivative.
        log_q, eps = log_q.masked_fill(relaxed, -1.0), torch.where(relaxed, 0.5, eps)
        entropy = torch.special.entr(1 - eps) + torch.special.entr(eps)
        divergence = -times(1 - eps, log_q) - times(eps, torch.log(-torch.expm1(log_q))) - entropy
        return s.target_mass * divergence.masked_fill(relaxed, 0.0)


@dataclass(frozen=True)
class Focal(Formula):
    r"""The focal loss, with optional label smoothing: it down-weights rows that are classified well.

    .. math::
        \ell = (1 - q_y)^\gamma \left[ (1 - \epsilon) H(e_y, q) + \epsilon H(\pi, q) \right], \qquad
        \epsilon \in [0, 1]

    The focal loss is not a kind of smoothing; it is included for comparison, since it also improves
    calibration. A class of weight 0 has no loss.

    Args:
        gamma: The exponent of the weight, at least 0; 0 is label smoothing.

    Raises:
        ValueError: if ``gamma`` is negative or not finite.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, formula=Focal(gamma=3))
        tensor(0.0006)

    Reference:
        Mukhoti et al., *Calibrating Deep Neural Networks using Focal Loss*, NeurIPS 2020.
    """

    gamma: float = 3.0

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma)

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        log_q = log_likelihood(s)
        # If q_y is 0 the factor is 1, and its derivative is 0 however large the loss is.
        wrong = -torch.expm1(log_q.masked_fill(log_q.exp() == 0, -torch.inf))
        # For gamma < 1 the power has no derivative at 0, but the product has the derivative 0.
        certain = wrong <= 0
        factor = (wrong.masked_fill(certain, 1.0) ** self.gamma).masked_fill(certain, 0.0**self.gamma)
        return times(factor, smoothed_nll(s, eps))
