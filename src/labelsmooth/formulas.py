r"""Losses of a row as functions of its statistics and a strength, in nats: one formula for every engine.

With the logits z, the model :math:`q = \mathrm{softmax}(z)`, the label y, the strength eps and the prior pi.
A formula is a value for ``formula=`` of every cross entropy here: of logits, of a linear head, of classes
that are sharded. Its strength is ``label_smoothing=``, its prior ``prior=``.
"""

import math
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval, check_number
from labelsmooth._core.statistics import RowStatistics, times

__all__ = [
    "BackwardCorrection",
    "ConfidencePenalty",
    "Focal",
    "Formula",
    "ForwardCorrection",
    "Interval",
    "LabelRelaxation",
    "LabelSmoothing",
    "MarginSmoothing",
    "MaxSup",
    "NegativeSmoothing",
    "RowStatistics",
    "log_likelihood",
    "model_entropy",
    "nll",
    "smoothed_nll",
    "times",
]


def nll(s: RowStatistics) -> Tensor:
    """H(target, q): the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, s.prior_mass * s.lse - s.prior_z)


def squared_lse(s: RowStatistics) -> Tensor:
    """lse(z)^2, which keeps the logits near normalised (Chowdhery et al., PaLM, 2022)."""
    return (s.lse + s.z_max).square()


def smoothed_entropy(eps: Tensor, num_classes: Tensor) -> Tensor:
    """H(p) of a target smoothed toward the uniform distribution over ``num_classes`` classes."""
    off, others = eps / num_classes, num_classes - 1
    entr = torch.special.entr
    # The entropy of nothing, which no other class has, has an infinite derivative.
    return entr(1 - eps + off) + others * entr(torch.where(others == 0, 1.0, off))


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
    draws: ClassVar[bool] = False
    """Whether it takes wrong labels to be drawn from the prior, which then cannot depend on the label."""

    @property
    def hinge(self) -> tuple[float, bool] | None:
        """The margin of the hinge that it uses, and whether that is squared; None if it uses none."""
        return None

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        """One loss per row; ``eps`` broadcasts against the rows."""
        raise NotImplementedError


@dataclass(frozen=True)
class LabelSmoothing(Formula):
    r"""Cross entropy to the smoothed target; the formula where none is named.

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

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return smoothed_nll(s, eps)


LABEL_SMOOTHING = LabelSmoothing()


@dataclass(frozen=True)
class NegativeSmoothing(Formula):
    r"""Label smoothing whose strength may be negative (also called generalised): it sharpens noisy targets.

    .. math::
        \ell = -\log q_y + \epsilon \min(z_y - \langle \pi, z \rangle,\ c), \qquad \epsilon \in (-\infty, 1]

    For eps < 0 the loss has no lower bound, and unguarded it collapses where labels are clean. So its reward
    ends where the label's logit is c above the prior's mean, and :func:`labelsmooth.schedules.delayed` holds
    it off while the model warms up on plain cross entropy, as in the paper. For eps >= 0 it is label
    smoothing.

    Args:
        clip: c, in units of the logits, above 0; ``math.inf`` is the paper's own, unguarded.

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
        # With class weights the two measures have masses of their own: not the logits, H(pi, q) - H(e_y, q).
        above = s.prior_mass * s.lse - s.prior_z - nll(s)
        rewarded = nll(s) + times(eps, above.clamp(max=self.clip))
        return torch.where(eps < 0, rewarded, smoothed_nll(s, eps))


@dataclass(frozen=True)
class MaxSup(Formula):
    r"""Max suppression: smoothing that pulls down the largest logit, right or wrong, instead of the label's.

    .. math::
        \ell = -\log q_y + \epsilon (\max_k z_k - \langle \pi, z \rangle), \qquad \epsilon \in [0, \infty)

    It is label smoothing on rows that are classified right, and :class:`MarginSmoothing` with margin 0. The
    paper lets eps rise from 0.1 to 0.2: :func:`labelsmooth.schedules.linear`.

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

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return nll(s) + times(eps, s.hinge)


@dataclass(frozen=True)
class MarginSmoothing(Formula):
    r"""Margin-based label smoothing (MbLS): only logits further than a margin below the largest count.

    .. math::
        \ell = -\log q_y + \epsilon \sum_k \pi_k \max(0,\ \max_j z_j - z_k - m), \qquad
        \epsilon \in [0, \infty)

    Args:
        margin: m, in units of the logits, at least 0: 10 in the paper for images, 5 or 6 elsewhere.
        squared: Whether to square the excess: the further, the stronger. After adaptive and conditional
            smoothing (ACLS), where the largest logit itself gets no gradient.

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

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return nll(s) + times(eps, s.hinge)


@dataclass(frozen=True)
class ConfidencePenalty(Formula):
    r"""A reward for the entropy of the model's own distribution, up to a threshold.

    .. math::
        \ell = -\log q_y - \epsilon\, H(q) \quad\text{or, with a threshold,}\quad
        -\log q_y + \epsilon \max(0,\ \Gamma - H(q)), \qquad \epsilon \in [0, \infty)

    Args:
        threshold: Gamma, in nats, above 0. None rewards entropy without end.

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

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        entropy = model_entropy(s)
        penalty = -entropy if self.threshold is None else (self.threshold - entropy).relu()
        return nll(s) + times(eps, penalty)


@dataclass(frozen=True)
class LabelRelaxation(Formula):
    r"""The divergence from the nearest distribution with at least 1 - eps on the label; 0 once q has that.

    .. math::
        \ell = \begin{cases} 0 & q_y \ge 1 - \epsilon \\
        (1 - \epsilon) \log \frac{1 - \epsilon}{q_y} + \epsilon \log \frac{\epsilon}{1 - q_y}
        & \text{otherwise} \end{cases}, \qquad \epsilon \in [0, 1]

    The derivative by eps is -inf at eps = 0, so start a strength that is learned above 0.

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
        # Any numbers whose logarithms have a derivative.
        log_q, eps = log_q.masked_fill(relaxed, -1.0), torch.where(relaxed, 0.5, eps)
        entropy = torch.special.entr(1 - eps) + torch.special.entr(eps)
        divergence = -times(1 - eps, log_q) - times(eps, torch.log(-torch.expm1(log_q))) - entropy
        return s.target_mass * divergence.masked_fill(relaxed, 0.0)


@dataclass(frozen=True)
class Focal(Formula):
    r"""The focal loss, of smoothed targets if there is a strength: rows that are classified well count less.

    .. math::
        \ell = (1 - q_y)^\gamma \left[ (1 - \epsilon) H(e_y, q) + \epsilon H(\pi, q) \right], \qquad
        \epsilon \in [0, 1]

    It is here to compare with: it calibrates too, and is no kind of smoothing. A class whose weight is 0 has
    no loss.

    Args:
        gamma: At least 0; 0 is label smoothing.

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
        # Where q_y is 0 the factor is 1, and its derivative 0 however large the loss.
        wrong = -torch.expm1(log_q.masked_fill(log_q.exp() == 0, -torch.inf))
        # For gamma < 1 the power has no derivative at 0, where the product has one: 0.
        certain = wrong <= 0
        factor = (wrong.masked_fill(certain, 1.0) ** self.gamma).masked_fill(certain, 0.0**self.gamma)
        return times(factor, smoothed_nll(s, eps))


@dataclass(frozen=True)
class ForwardCorrection(Formula):
    r"""The likelihood of a label that was replaced, with probability eps, by one drawn from the prior.

    .. math::
        \ell = -\log (T^\top q)_y = -\log \left( (1 - \epsilon) q_y + \epsilon \pi_y \right), \qquad
        T = (1 - \epsilon) I + \epsilon\, \mathbf{1} \pi^\top, \quad \epsilon \in [0, 1]

    With the uniform prior the noise is symmetric, and eps (K - 1) / K the share of wrong labels. The prior
    cannot depend on the class; for a T of any kind see :doc:`methods`.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=ForwardCorrection())
        tensor(0.2322)

    Reference:
        Patrini et al., *Making Deep Neural Networks Robust to Label Noise: a Loss Correction
        Approach*, CVPR 2017.
    """

    overlap: ClassVar[bool] = True
    draws: ClassVar[bool] = True

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        assert s.overlap is not None
        log_q = log_likelihood(s)
        # Of a masked label no prior has a share.
        drawn = torch.where(log_q > -torch.inf, eps * s.overlap, 0.0)
        kept = (1 - eps) * log_q.exp()
        # Beside the larger of the two the other one neither overflows nor has a derivative that does.
        rare, largest = drawn > kept, math.log(torch.finfo(log_q.dtype).max) - 1
        likely = torch.log1p(torch.where(rare, 0.0, drawn * (-log_q).clamp(max=largest).exp() - eps))
        noisy = torch.where(rare, torch.log(torch.where(rare, kept + drawn, 1.0)), log_q + likely)
        return times(s.target_mass, -noisy)


@dataclass(frozen=True)
class BackwardCorrection(Formula):
    r"""The loss whose mean over labels replaced, with probability eps, is that over the true ones.

    .. math::
        \ell = \sum_k (T^{-1})_{yk} (-\log q_k), \qquad T = (1 - \epsilon) I + \epsilon\, \mathbf{1} \pi^\top,
        \quad \epsilon \in [0, 1)

    It is label smoothing by :math:`-\epsilon / (1 - \epsilon)`, unbounded below as that is; see
    :class:`NegativeSmoothing`, which is guarded. Its noise is that of :class:`ForwardCorrection`.

    Example:
        >>> from labelsmooth.functional import cross_entropy
        >>> z, y = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
        >>> cross_entropy(z, y, label_smoothing=0.1, formula=BackwardCorrection())
        tensor(-0.0153)

    Reference:
        Patrini et al., *Making Deep Neural Networks Robust to Label Noise: a Loss Correction
        Approach*, CVPR 2017.
    """

    strengths: ClassVar[Interval] = Interval(0, 1, open=True)
    draws: ClassVar[bool] = True

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return smoothed_nll(s, -eps / (1 - eps))


def check_formula(formula: object) -> None:
    if not isinstance(formula, Formula):
        is_class = isinstance(formula, type)
        name = f"the class {formula.__name__}" if is_class else type(formula).__name__
        raise ValueError(f"formula must be a Formula, such as MaxSup(), got {name}")
