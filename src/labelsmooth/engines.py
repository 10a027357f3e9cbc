"""Engines compute the row statistics of logits, from which formulas compute the loss."""

from dataclasses import dataclass, field
from typing import Any, Unpack

import torch
from torch import Tensor

from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import is_dtensor
from labelsmooth._core.precision import accurate, compute_dtype
from labelsmooth._core.statistics import Measures
from labelsmooth._engines import dense, gpu, linear, native, route
from labelsmooth._engines.kept import empty_cache as empty_cache
from labelsmooth._engines.kept import memory_reserved as memory_reserved
from labelsmooth._engines.route import Engine as Engine
from labelsmooth._targets.criterion import DEFAULTS, Criterion, criterion
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import HeadOptions
from labelsmooth._targets.rows import as_rows
from labelsmooth.functional._linear import prepared
from labelsmooth.functional._logits import two_passes
from labelsmooth.functional._plain import OnePass, one_pass

__all__ = [
    "Availability",
    "Engine",
    "Explanation",
    "available",
    "empty_cache",
    "explain",
    "memory_reserved",
]


@dataclass(frozen=True)
class Availability:
    """Whether an engine is available. It prints as what the engine runs on, or why it is absent."""

    present: bool
    detail: str
    """What the engine runs on (for the CPU kernel, the instruction set), or why it is absent."""

    def __str__(self) -> str:
        return self.detail if self.present else f"absent, {self.detail}"


def available() -> dict[str, Availability]:
    """Return the engines, and whether each is available.

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


@dataclass(frozen=True)
class Explanation:
    """The engine that a call takes, and why it takes no faster one."""

    engine: str
    """A name of :func:`available`."""
    detail: str
    """How the engine computes this call."""
    obstacles: dict[str, str] = field(default_factory=dict[str, str])
    """Why the call takes none of the faster alternatives, by their names."""

    def __str__(self) -> str:
        return "\n".join(
            [
                f"{self.engine}: {self.detail}",
                *(f"  not {name}: {why}" for name, why in self.obstacles.items()),
            ]
        )


@takes(HeadOptions, DEFAULTS)
def explain(
    input: Tensor,
    target: Tensor | Mixed,
    *,
    linear_weight: Tensor | None = None,
    dim: int | None = None,
    return_nll: bool = False,
    **options: Unpack[HeadOptions],
) -> Explanation:
    """Explain which engine a call takes, and why it takes no faster one.

    The call is :func:`labelsmooth.functional.cross_entropy` with the same arguments or, where
    ``linear_weight`` is given, :func:`labelsmooth.functional.linear_cross_entropy`. Nothing is computed.

    Args:
        input: The logits, or the input of the linear head.
        target: As in the call.
        linear_weight: W, ``(K, D)``, of the linear head.
        dim: The class dimension of the logits. None is torch's.
        return_nll: As in the call; it changes nothing.
        **options: The other options of the call, as in :func:`labelsmooth.functional.cross_entropy`.

    Returns:
        The engine, how it computes the call, and why no faster alternative serves; printed, a line for each.

    Raises:
        ValueError: if the call itself would raise it.

    Example:
        >>> input, target = torch.zeros(2, 3), torch.tensor([0, 2])
        >>> found = explain(input, target, prior=torch.tensor([0.2, 0.3, 0.5]), engine="reference")
        >>> found.engine, found.obstacles["plain loss"]
        ('reference', 'prior is given')
    """
    given: Any = options
    if is_dtensor(input) or is_dtensor(linear_weight):
        return Explanation("sharded", "each process computes its own part of the DTensor")
    if linear_weight is not None:
        return _of_head(*prepared(input, linear_weight, target, **given)[:2])
    weight = given.pop("weight", None)
    plain = one_pass(input, target, weight, given, dim)
    if isinstance(plain, OnePass):
        return Explanation("dense", "the plain loss and its gradient in one pass")
    z, engine = as_rows(input, dim), given.pop("engine", None)
    wanted = criterion(
        input.shape, compute_dtype(input), input.device, target, weight, class_dim=dim, **given
    )
    kernels = route.choose(z, wanted.measures, engine)
    chosen, obstacles = _name(kernels), {"plain loss": plain}
    if chosen == "dense" and (why := two_passes(wanted, kernels)):
        obstacles["gradient with the loss"] = why
    return Explanation(chosen, DETAILS[chosen], obstacles | _against(z, wanted.measures, chosen, engine))


DETAILS = {
    "triton": "row statistics and gradient, a program per row",
    "dense": "row statistics and gradient, nothing as wide as the logits but the gradient",
    "reference": "plain torch, rows as wide as the logits",
}


def _of_head(head: linear.Head, wanted: Criterion) -> Explanation:
    if linear.makes_logits(head, wanted.measures):
        why = linear.obstacle_to_chunks(head, wanted.measures) or f"engine={head.engine!r} is asked for"
        return Explanation("reference", "plain torch on whole logits", {"linear": why})
    dtype = accurate(head.dtype) if head.softcap else head.dtype
    z = head.input.new_empty((0, head.weight.size(0)), dtype=dtype)
    asked = None if head.engine == "linear" else head.engine
    chunks = _name(route.kernels(z, wanted.measures, asked))
    return Explanation("linear", f"chunks of rows by {chunks}", _against(z, wanted.measures, chunks, asked))


def _name(kernels: object) -> str:
    return next((name for name, engine in route.ENGINES.items() if engine is kernels), "reference")


def _against(z: Tensor, measures: Measures, chosen: str, engine: str | None) -> dict[str, str]:
    """Why a call takes none of the engines that are faster than the chosen one."""
    found: dict[str, str] = {}
    for name, why in route.obstacles(z, measures).items():
        if name == chosen:
            break
        found[name] = why or (
            f"engine={engine!r} is asked for" if engine else "an exported graph is plain torch"
        )
    return found
