"""The one place that picks an engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from types import NoneType
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from labelsmooth._core.checks import check_choice
from labelsmooth._core.modes import plain, recorded, transformed
from labelsmooth._core.reduction import Reduction
from labelsmooth._core.statistics import Measures, RowStatistics
from labelsmooth.engines import dense, gpu, native, reference
from labelsmooth.engines.operator import DTYPES, Backward, Forward
from labelsmooth.schedules import Schedule
from labelsmooth.targets import Strength

Engine = Literal["reference", "dense", "triton"]


class Kernels(Protocol):
    """The two halves of an engine, for those that hold logits of their own."""

    @property
    def forward(self) -> Forward: ...

    @property
    def backward(self) -> Backward: ...


class Operator(Kernels, Protocol):
    """An engine that is an operator of torch."""

    def serves(self, z: Tensor, measures: Measures, /) -> str | None: ...

    @property
    def row_statistics(self) -> Callable[[Tensor, Measures], RowStatistics]: ...


@dataclass(frozen=True)
class Availability:
    """Whether an engine is there; printed, it is what it runs on, or why it is absent."""

    present: bool
    detail: str
    """What it runs on (of the CPU kernel: the instruction set), or the reason why it is absent."""

    def __str__(self) -> str:
        return self.detail if self.present else f"absent, {self.detail}"


def available() -> dict[str, Availability]:
    """The engines, and whether each is there.

    Example:
        >>> available()["reference"]
        Availability(present=True, detail='plain torch')
        >>> lines = [f"{name}: {engine}" for name, engine in available().items()]  # such as "dense: avx512"
        >>> lines[0]
        'reference: plain torch'
    """

    def unless(absence: str | None, detail: str) -> Availability:
        return Availability(True, detail) if absence is None else Availability(False, absence)

    sharding = None if torch.distributed.is_available() else "this torch has no torch.distributed"
    return {
        "reference": Availability(True, "plain torch"),
        "dense": unless(dense.ABSENCE, native.isa() if dense.ABSENCE is None else ""),
        "triton": unless(gpu.absence(), "an interpreter" if gpu._INTERPRETED else "CUDA"),
        "linear": Availability(True, "chunks of rows"),
        "sharded": unless(sharding, "torch.distributed"),
    }


def row_statistics(z: Tensor, measures: Measures, engine: Engine | None = None) -> RowStatistics:
    """The statistics of each row of ``z``, by that engine or else by the fastest that can."""
    if engine is not None:
        check_choice("engine", engine, Engine)
    if engine == "reference" or (engine is None and torch.compiler.is_exporting()):
        # An exported graph is to run where this package is not.
        return reference.row_statistics(z, measures)
    operator = _operator(z, engine)
    obstacle = opaque([z], measures) or operator.serves(z, measures)
    if obstacle is None:
        return operator.row_statistics(z, measures)
    if engine is not None:
        raise ValueError(f"engine={engine!r} cannot serve: {obstacle}")
    _tell_of(obstacle)
    return reference.row_statistics(z, measures)


def uniform(
    input: Tensor,
    target: Tensor,
    eps: Strength,
    ignore_index: int,
    reduction: Reduction,
    class_dim: int | None = None,
    divergence: bool = False,
) -> tuple[Tensor, float] | None:
    """The smoothed loss and the plain one, reduced, at once; None where that takes more care.

    This is for class indices, the uniform prior and one strength, and looks at nothing but whether they are:
    what is wrong with arguments is left to those who say it. Of a divergence, the target's entropy is taken
    from the smoothed loss.
    """
    if (
        dense.ABSENCE is not None
        or torch.compiler.is_compiling()
        or not plain(input)
        or not plain(target)
        or target.dtype != torch.int64
        or not input.is_cpu
        or not target.is_cpu
        or input.dtype not in DTYPES
        or input.is_neg()  # a lazy minus sign, which only torch's own operators see
        or not input.dim()
        or type(class_dim) not in (int, NoneType)
        or type(ignore_index) is not int
        or ignore_index.bit_length() > 63
        or reduction not in ("mean", "sum")
        or transformed()
        or recorded()
        or forward_ad._current_level >= 0
    ):
        return None
    eps = eps.eps if isinstance(eps, Schedule) else eps
    if type(eps) is Tensor and eps.is_cpu and not eps.dim() and not eps.requires_grad:
        eps = eps.item()
    if not isinstance(eps, (float, int, Real)) or not 0 <= eps <= 1:
        return None
    class_dim = min(1, input.dim() - 1) if class_dim is None else class_dim
    if not -input.dim() <= class_dim < input.dim():
        return None
    z = input if class_dim % input.dim() == input.dim() - 1 else input.movedim(class_dim, -1)
    if target.shape != z.shape[:-1] or not z.size(-1):
        return None
    return dense.uniform(z, target, float(eps), ignore_index, reduction == "mean", divergence)


def opaque(tensors: Sequence[Tensor | None], measures: Measures) -> str | None:
    """What of a call an operator on these tensors would hide from torch, or None: its gradient is right."""
    others = [x for x in measures.tensors if x is not None]
    if not torch.compiler.is_compiling() and not all(x is None or plain(x) for x in (*tensors, *others)):
        return "a tensor is of a subclass with a dispatch of its own"
    if transformed():
        return "a transform of torch.func is at work"
    devices = {x.device for x in (*tensors, *others) if x is not None}
    if len(devices) > 1:
        return f"the tensors are on {len(devices)} devices"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation is on"
    if torch.is_grad_enabled() and any(x.requires_grad for x in others):
        return "a gradient is asked for by the target, the prior or the class weights"
    return None


def kernels(z: Tensor, measures: Measures) -> Kernels:
    """The fastest engine that serves these logits, of which no autograd knows."""
    operator = _operator(z)
    obstacle = operator.serves(z, measures)
    if obstacle is None:
        return operator
    _tell_of(obstacle)
    return reference


def _tell_of(obstacle: str) -> None:
    """Warn where the kernel would serve and is not there."""
    if obstacle == dense.ABSENCE and not torch.compiler.is_compiling():
        native.warn_of_absence()


def _operator(z: Tensor, engine: Engine | None = None) -> Operator:
    return gpu if engine == "triton" or (engine is None and z.is_cuda) else dense
