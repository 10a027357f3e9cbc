"""Formulas that smooth the target toward the prior."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval, check_number
from labelsmooth._core.statistics import Factors, RowStatistics, nll, times
from labelsmooth.formulas._base import Formula, smoothed_nll


@dataclass(frozen=True)
class LabelSmoothing(Formula):
    r"""Cross entropy to the smoothed target; the default formula.

    .. math::
        \ell = (1 - \epsilon) H(e_y, q) + \epsilon H(\pi, q)
        = -\log q_y + \epsilon (z_y - \langle \pi, z \rangle), \qquad \epsilon \in [0, 1]

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=LabelSmoothing())
        tensor(0.3365)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """

    def factors(self, eps: float | Tensor) -> Factors:
        return Factors(nll=1 - eps, prior=eps)


LABEL_SMOOTHING = LabelSmoothing()


@dataclass(frozen=True)
class NegativeSmoothing(Formula):
    r"""Generalised label smoothing, whose strength may be negative; negative values sharpen noisy targets.

    .. math::
        \ell = -\log q_y + \epsilon \min(z_y - \langle \pi, z \rangle,\ c), \qquad \epsilon \in (-\infty, 1]

    For eps < 0 the loss has no lower bound, and without guards it collapses on clean labels. The reward
    therefore stops when the label's logit is c above the mean logit under the prior, and
    :func:`labelsmooth.schedules.delayed` starts with plain cross entropy, as in the paper. For eps >= 0 it is
    label smoothing.

    Args:
        clip: c, in units of the logits, above 0; ``math.inf`` is the paper's loss, without the guard.

    Raises:
        ValueError: if ``clip`` is not above 0.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=-0.4, formula=NegativeSmoothing())
        tensor(-0.4968)

    Reference:
        Wei et al., *To Smooth or Not? When Label Smoothing Meets Noisy Labels*, ICML 2022.
    """

    clip: float = 5.0
    strengths: ClassVar[Interval] = Interval(-math.inf, 1)

    def __post_init__(self) -> None:
        if not isinstance(self.clip, (int, float, Real)) or not self.clip > 0:
            raise ValueError(f"clip must be above 0, got {self.clip}")

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        # With class weights the two masses differ, so this is H(pi, q) - H(e_y, q), not a logit difference.
        above = s.prior_mass * s.lse - s.prior_z - nll(s)
        rewarded = nll(s) + times(eps, above.clamp(max=self.clip))
        return torch.where(eps < 0, rewarded, smoothed_nll(s, eps))


@dataclass(frozen=True)
class MaxSup(Formula):
    r"""Max suppression: label smoothing with the largest logit in place of the label's logit.

    .. math::
        \ell = -\log q_y + \epsilon (\max_k z_k - \langle \pi, z \rangle), \qquad \epsilon \in [0, \infty)

    It equals label smoothing on correctly classified rows, and :class:`MarginSmoothing` with margin 0. The
    paper increases eps from 0.1 to 0.2, as :func:`labelsmooth.schedules.linear` does.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=MaxSup())
        tensor(2.3365)

    Reference:
        Zhou et al., *MaxSup: Overcoming Representation Collapse in Label Smoothing*, NeurIPS 2025.
    """

    strengths: ClassVar[Interval] = Interval(0, math.inf)

    @property
    def hinge(self) -> tuple[float, bool]:
        return 0.0, False

    def factors(self, eps: float | Tensor) -> Factors:
        return Factors(nll=1.0, hinge=eps)


@dataclass(frozen=True)
class MarginSmoothing(Formula):
    r"""Margin-based label smoothing (MbLS): a penalty on logits more than a margin below the largest.

    .. math::
        \ell = -\log q_y + \epsilon \sum_k \pi_k \max(0,\ \max_j z_j - z_k - m), \qquad
        \epsilon \in [0, \infty)

    Args:
        margin: m, in units of the logits, at least 0; the paper uses 10 for images and 5 or 6 elsewhere.
        squared: Whether to square the excess, as in adaptive and conditional label smoothing (ACLS). Unlike
            here, the largest logit gets no gradient in ACLS.

    Raises:
        ValueError: if ``margin`` is negative or not finite.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=MarginSmoothing(margin=1))
        tensor(0.2698)

    Reference:
        Liu et al., *The Devil is in the Margin: Margin-based Label Smoothing for Network
        Calibration*, CVPR 2022.
    """

    margin: float = 10.0
    squared: bool = False
    strengths: ClassVar[Interval] = Interval(0, math.inf)

    def __post_init__(self) -> None:
        check_number("margin", self.margin)

    @property
    def hinge(self) -> tuple[float, bool]:
        return float(self.margin), self.squared

    def factors(self, eps: float | Tensor) -> Factors:
        return Factors(nll=1.0, hinge=eps)
