"""The options of the losses: one list of names and types, from which functions and modules take theirs.

The defaults are ``DEFAULTS`` of :mod:`labelsmooth._targets.criterion`, and None for other options.
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
    """The options of every cross entropy, function or module."""

    ignore_index: int
    reduction: Reduction
    label_smoothing: Strength
    formula: Formula
    prior: Tensor | Prior | PerSample | None
    off_target: OffTarget
    weighting: Weighting
    z_loss: float


class ModuleOptions(LossOptions, total=False):
    """The options of a module."""

    weight: Tensor | None
    train_only: bool


class RowOptions(TypedDict, total=False):
    """The options that belong to a batch."""

    sample_weight: Tensor | None
    denominator: float | Tensor | None


class BatchOptions(RowOptions, total=False):
    """The options of a call of a module."""

    prior: PerSample | None


class CrossEntropyOptions(LossOptions, RowOptions, total=False):
    """The options of a function call, including those per batch."""


class LogitsOptions(CrossEntropyOptions, total=False):
    """The options of a call on logits."""

    engine: Engine | None


class HeadOptions(CrossEntropyOptions, total=False):
    """The options of a call on a linear head."""

    linear_bias: Tensor | None
    weight: Tensor | None
    scale: float | None
    softcap: float | None
    engine: HeadEngine | None


class ShardOptions(TypedDict, total=False):
    """The options of a call on a shard of the classes."""

    group: Required["dist.ProcessGroup | None"]
    num_classes: int | None
    start: int | None
    check_ranks: bool


class LogitsShardOptions(LogitsOptions, ShardOptions, total=False):
    """The options of a call on the logits of a shard of the classes."""


class HeadShardOptions(HeadOptions, ShardOptions, total=False):
    """The options of a call on a linear head with a shard of the classes."""
