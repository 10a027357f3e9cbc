"""The choice of an engine."""

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

from labelsmooth._core.checks import check_choice
from labelsmooth._core.modes import plain, transformed
from labelsmooth._core.statistics import Measures, RowStatistics
from labelsmooth._engines import dense, gpu, native, reference
from labelsmooth._engines.operator import Kernels

Engine = Literal["reference", "dense", "triton"]


class Operator(Kernels, Protocol):
    """An engine that is registered as a torch operator."""

    def serves(self, z: Tensor, measures: Measures, /) -> str | None: ...


ENGINES: Final[dict[str, Operator]] = {"triton": gpu, "dense": dense}
"""The engines besides the reference, fastest first; each serves some calls only."""


def choose(z: Tensor, measures: Measures, engine: Engine | None = None) -> Kernels:
    """The named engine, or by default the fastest that serves these logits."""
    if engine is not None:
        check_choice("engine", engine, Engine)
        return _named(engine, z, opaque([z], measures), measures)
    if torch.compiler.is_exporting():  # an exported graph has to run without this package
        return reference
    return _fastest(z, opaque([z], measures), measures)


def kernels(z: Tensor, measures: Measures, engine: Engine | None = None) -> Kernels:
    """As :func:`choose`, for logits outside of autograd."""
    return _fastest(z, None, measures) if engine is None else _named(engine, z, None, measures)


def row_statistics(z: Tensor, measures: Measures, engine: Engine | None = None) -> RowStatistics:
    """The statistics of each row of ``z``, by the named engine or the fastest that serves."""
    return choose(z, measures, engine).row_statistics(z, measures)


def obstacles(z: Tensor, measures: Measures) -> dict[str, str | None]:
    """For each engine, fastest first, why it cannot serve a call, or None if it can."""
    hidden = opaque([z], measures)
    return {name: hidden or engine.serves(z, measures) for name, engine in ENGINES.items()}


def refusal(engine: str, obstacle: str, instead: str) -> ValueError:
    return ValueError(f"engine={engine!r} cannot serve: {obstacle}; engine={instead!r} can")


def _fastest(z: Tensor, obstacle: str | None, measures: Measures) -> Kernels:
    engine = gpu if z.is_cuda else dense
    obstacle = obstacle or engine.serves(z, measures)
    if obstacle is None:
        return engine
    if obstacle == dense.ABSENCE and not torch.compiler.is_compiling():
        native.warn_of_absence()
    return reference


def _named(engine: Engine, z: Tensor, obstacle: str | None, measures: Measures) -> Kernels:
    if engine == "reference":
        return reference
    if obstacle := obstacle or ENGINES[engine].serves(z, measures):
        serving = (name for name, why in obstacles(z, measures).items() if why is None)
        raise refusal(engine, obstacle, next(serving, "reference"))
    return ENGINES[engine]


def opaque(tensors: Sequence[Tensor | None], measures: Measures) -> str | None:
    """What an operator on these tensors would hide from torch, such as a gradient, or None if nothing."""
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
