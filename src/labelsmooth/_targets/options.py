"""The options that a cross entropy has, by name and type."""

from typing import Final, Literal, TypedDict

from torch import Tensor

from labelsmooth._core.reduction import Reduction
from labelsmooth.formulas import Formula
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import ByClass, Schedule

OffTarget = Literal["all", "others"]


Weighting = Literal["torch", "sample"]


Strength = float | Tensor | ByClass | Schedule


class CrossEntropyOptions(TypedDict, total=False):
    """The keyword options of :func:`labelsmooth.functional.cross_entropy` that its kin share."""

    ignore_index: int
    reduction: Reduction
    label_smoothing: Strength
    formula: Formula
    prior: Tensor | Prior | PerSample | None
    off_target: OffTarget
    weighting: Weighting
    sample_weight: Tensor | None
    denominator: float | Tensor | None
    z_loss: float


OPTIONS: Final = frozenset(CrossEntropyOptions.__annotations__)
