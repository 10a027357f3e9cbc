"""Engines find the row statistics of logits; the formulas above them do not know which one did."""

from dataclasses import dataclass

import torch

from labelsmooth._engines import dense, gpu, native
from labelsmooth._engines.route import Engine as Engine

__all__ = ["Availability", "Engine", "available"]


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
