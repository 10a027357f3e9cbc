r"""Formulas: the loss of a row as a function of its row statistics and a strength, in nats.

Notation: logits z, model :math:`q = \mathrm{softmax}(z)`, label y, strength eps and prior pi. A formula is a
value for ``formula=`` of every cross entropy: of logits, of a linear head, and of classes sharded across
processes. The strength is ``label_smoothing=``, the prior ``prior=``.
"""

from labelsmooth._core.checks import Interval as Interval
from labelsmooth._core.statistics import Factors as Factors
from labelsmooth._core.statistics import RowStatistics as RowStatistics
from labelsmooth._core.statistics import model_entropy as model_entropy
from labelsmooth._core.statistics import nll as nll
from labelsmooth._core.statistics import times as times
from labelsmooth.formulas._base import Formula as Formula
from labelsmooth.formulas._base import log_likelihood as log_likelihood
from labelsmooth.formulas._base import smoothed_nll as smoothed_nll
from labelsmooth.formulas._confidence import ConfidencePenalty as ConfidencePenalty
from labelsmooth.formulas._confidence import Focal as Focal
from labelsmooth.formulas._confidence import LabelRelaxation as LabelRelaxation
from labelsmooth.formulas._noise import BackwardCorrection as BackwardCorrection
from labelsmooth.formulas._noise import ForwardCorrection as ForwardCorrection
from labelsmooth.formulas._smoothing import LabelSmoothing as LabelSmoothing
from labelsmooth.formulas._smoothing import MarginSmoothing as MarginSmoothing
from labelsmooth.formulas._smoothing import MaxSup as MaxSup
from labelsmooth.formulas._smoothing import NegativeSmoothing as NegativeSmoothing

__all__ = [
    "BackwardCorrection",
    "ConfidencePenalty",
    "Factors",
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
