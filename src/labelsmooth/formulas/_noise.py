"""Formulas that correct label noise with a known rate."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from labelsmooth._core.checks import Interval
from labelsmooth._core.statistics import Factors, RowStatistics, times
from labelsmooth.formulas._base import Formula, log_likelihood


@dataclass(frozen=True)
class ForwardCorrection(Formula):
    r"""The NLL of a label that was replaced, with probability eps, by a label drawn from the prior.

    .. math::
        \ell = -\log (T^\top q)_y = -\log \left( (1 - \epsilon) q_y + \epsilon \pi_y \right), \qquad
        T = (1 - \epsilon) I + \epsilon\, \mathbf{1} \pi^\top, \quad \epsilon \in [0, 1]

    With the uniform prior the noise is symmetric, and the share of wrong labels is eps (K - 1) / K. The prior
    must not depend on the class; for a general matrix T see :doc:`/explanation/methods`.

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
        # A masked label has no probability in the prior.
        drawn = torch.where(log_q > -torch.inf, eps * s.overlap, 0.0)
        kept = (1 - eps) * log_q.exp()
        # Relative to the larger of the two, neither the other one nor its derivative overflows.
        rare, largest = drawn > kept, math.log(torch.finfo(log_q.dtype).max) - 1
        likely = torch.log1p(torch.where(rare, 0.0, drawn * (-log_q).clamp(max=largest).exp() - eps))
        noisy = torch.where(rare, torch.log(torch.where(rare, kept + drawn, 1.0)), log_q + likely)
        return times(s.target_mass, -noisy)


@dataclass(frozen=True)
class BackwardCorrection(Formula):
    r"""The loss whose expectation over noisy labels is the cross entropy with the true labels.

    .. math::
        \ell = \sum_k (T^{-1})_{yk} (-\log q_k), \qquad T = (1 - \epsilon) I + \epsilon\, \mathbf{1} \pi^\top,
        \quad \epsilon \in [0, 1)

    It is label smoothing with the strength :math:`-\epsilon / (1 - \epsilon)` and so unbounded below;
    :class:`NegativeSmoothing` is the guarded alternative. The noise model is that of
    :class:`ForwardCorrection`.

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

    def factors(self, eps: float | Tensor) -> Factors:
        negative = -eps / (1 - eps)
        return Factors(nll=1 - negative, prior=negative)
