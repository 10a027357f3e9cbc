"""The one place that picks an engine."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from labelsmooth._core.checks import check_choice
from labelsmooth._core.modes import plain, transformed
from labelsmooth._core.statistics import Measures, RowStatistics
from labelsmooth._engines import dense, gpu, native, reference
from labelsmooth._engines.operator import Backward, Forward

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
