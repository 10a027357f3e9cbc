"""The options of the losses, by name and type: one list, of which every function and module has its part.

Their defaults are those of :func:`labelsmooth._targets.criterion.criterion`, and None for the others.
"""

from typing import TYPE_CHECKING, Literal, Required, TypedDict

from torch import Tensor

from labelsmooth._core.reduction import Reduction
from labelsmooth._engines.linear import HeadEngine
from labelsmooth._engines.route import Engine
from labelsmooth.formulas import Formula
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import ByClass, Schedule

if TYPE_CHECKING:
    import torch.distributed as dist

OffTarget = Literal["all", "others"]


Weighting = Literal["torch", "sample"]


Strength = float | Tensor | ByClass | Schedule


class LossOptions(TypedDict, total=False):
    """Those of every cross entropy, function or module."""

    ignore_index: int
    reduction: Reduction
    label_smoothing: Strength
    formula: Formula
    prior: Tensor | Prior | PerSample | None
    off_target: OffTarget
    weighting: Weighting
    z_loss: float


class ModuleOptions(LossOptions, total=False):
    """Those of a module."""

    weight: Tensor | None
    train_only: bool


class CrossEntropyOptions(LossOptions, total=False):
    """Those of a call, which also has what belongs to its batch."""

    sample_weight: Tensor | None
    denominator: float | Tensor | None


class LogitsOptions(CrossEntropyOptions, total=False):
    """Those of a call on logits."""

    engine: Engine | None


class HeadOptions(CrossEntropyOptions, total=False):
    """Those of a call on a linear head."""

    linear_bias: Tensor | None
    weight: Tensor | None
    softcap: float | None
    engine: HeadEngine | None


class ShardOptions(TypedDict, total=False):
    """Those of a call on some of the classes."""

    group: Required["dist.ProcessGroup | None"]
    num_classes: int | None
    start: int | None
    check_ranks: bool


class LogitsShardOptions(LogitsOptions, ShardOptions, total=False):
    """Those of a call on the logits of some of the classes."""


class HeadShardOptions(HeadOptions, ShardOptions, total=False):
    """Those of a call on a linear head of some of the classes."""
