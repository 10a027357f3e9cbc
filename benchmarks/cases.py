"""The cases and the goals, as data."""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from benchmarks.providers import (
    CALL,
    CCE_PLAIN,
    CHUNKED,
    COMPILED,
    COPY,
    DENSE,
    FLASH,
    FLOOR,
    GENERAL,
    GENERAL_LINEAR,
    HF,
    LIGER,
    LINEAR,
    OURS,
    OURS_COMPILED,
    OURS_PLAIN,
    PLAIN,
    PLAIN_COMPILED,
    PRODUCTS,
    READ,
    SEED,
    TIMM,
    TORCH,
    Provider,
)

Load = Literal["quiet", "busy"]
Allocator = Literal["system", "jemalloc"]
Quantity = Literal["time", "peak", "peak beyond the gradients"]


@dataclass(frozen=True, slots=True)
class Size:
    """The size of logits, of a linear head (with features), or of square segmentation maps (with a side)."""

    rows: int
    classes: int
    features: int | None = None
    side: int | None = None

    def small(self) -> "Size":
        """A small size to test the benchmarks; ratios of 4 between sizes are kept."""
        if self.side is not None:
            return Size(self.rows // 64, self.classes, side=self.side // 8)
        features = self.features and max(8, self.features // 16)
        return Size(max(4, self.rows // 32), max(10, self.classes // 32), features)

    def __str__(self) -> str:
        if self.side is not None:
            return f"{self.rows // self.side**2}x{self.classes}x{self.side}x{self.side}"
        return "x".join(str(n) for n in (self.rows, self.features, self.classes) if n is not None)


@dataclass(frozen=True, slots=True)
class Entrant:
    """A provider at a size, and the label of the entrant that its ratios refer to."""

    label: str
    provider: Provider
    size: Size
    baseline: str


@dataclass(frozen=True, slots=True)
class Goal:
    """An upper bound on the ratio to another entrant's time or memory."""

    quantity: Quantity
    against: str | None  # None: the bytes of its own gradients
    most: float
    entrant: str = OURS
    device: Literal["cpu", "cuda"] = "cpu"
    load: Load = "quiet"
    allocator: Allocator = "system"


@dataclass(frozen=True, slots=True)
class Case:
    """Entrants that are measured in turns, and their goals."""

    name: str
    entrants: tuple[Entrant, ...]
    goals: tuple[Goal, ...] = ()
    dtype: torch.dtype = torch.float32
    native_bf16: bool = False  # left out on a CPU without instructions for it, where torch emulates them

    def small(self) -> "Case":
        return replace(self, entrants=tuple(replace(e, size=e.size.small()) for e in self.entrants))


def _side_by_side(size: Size, *names: str) -> tuple[Entrant, ...]:
    providers = DENSE if size.features is None else LINEAR
    return tuple(Entrant(name, providers[name], size, baseline=TORCH) for name in names)


def _beside_the_plain_call(size: Size, *names: str) -> tuple[Entrant, ...]:
    return tuple(Entrant(name, GENERAL[name], size, baseline=CALL) for name in names)


def _growth(size: Size, *names: str) -> tuple[Entrant, ...]:
    """Each at a size, with 4 times the rows and with 4 times the classes: a ratio of 4 is linear growth."""
    providers = DENSE if size.features is None else LINEAR
    return tuple(
        Entrant(name + suffix, providers[name], grown, baseline=name)
        for name in names
        for suffix, grown in (
            ("", size),
            (", 4 N", replace(size, rows=4 * size.rows)),
            (", 4 K", replace(size, classes=4 * size.classes)),
        )
    )


NO_COLLAPSE = Goal("time", TORCH, 1.0, load="busy")
# The gradient is the only N x K tensor; the rest is a few numbers per row.
ONE_BUFFER = Goal("peak", None, 1.01)
# 85 % of a copy's bandwidth: the loss moves the logits three times (read, read, gradient), a copy twice.
CUDA = (
    Goal("time", COPY, 3 / 2 / 0.85, device="cuda"),
    *(
        Goal(quantity, peer, 1.0, device="cuda")
        for peer in (LIGER, FLASH, COMPILED)
        for quantity in ("time", "peak")
    ),
)
CUDA_LINEAR = tuple(
    Goal(quantity, peer, 1.0, device="cuda")
    for peer in (LIGER, CCE_PLAIN, COMPILED)
    for quantity in ("time", "peak")
)
DENSE_PEERS = (OURS, TORCH, PLAIN, SEED, TIMM, HF, LIGER, FLASH, COPY)
COMPILED_PEERS = (OURS_COMPILED, COMPILED, PLAIN_COMPILED)
LIMITS = (READ, FLOOR)
LARGE_GENERAL = (
    "a prior",
    "class weights",
    "eps of each sample",
    "mixup labels",
    "MaxSup",
    "a margin",
    "a confidence penalty",
)
LARGE = (
    Goal("time", TORCH, 0.08),
    Goal("time", TORCH, 0.1, load="busy"),
    Goal("time", PLAIN, 0.1),
    Goal("time", FLOOR, 1.0),
    ONE_BUFFER,
    # jemalloc never returns memory here, so that torch has no fresh pages either.
    Goal("time", TORCH, 0.25, allocator="jemalloc"),
)

CASES = (
    Case(
        "dense 2048x32000",
        _side_by_side(Size(2048, 32000), *DENSE_PEERS, *COMPILED_PEERS, *LIMITS),
        (*LARGE, Goal("time", COMPILED, 0.2), *CUDA),
    ),
    Case(
        "dense 512x128256",
        _side_by_side(Size(512, 128256), *DENSE_PEERS, *LIMITS),
        LARGE,
    ),
    Case(
        "dense 1024x1000",
        _side_by_side(Size(1024, 1000), *DENSE_PEERS, *COMPILED_PEERS),
        (Goal("time", TORCH, 0.5), Goal("time", PLAIN, 0.5), NO_COLLAPSE),
    ),
    Case(
        "dense 4096x100",
        _side_by_side(Size(4096, 100), *DENSE_PEERS, *COMPILED_PEERS),
        (Goal("time", TORCH, 0.5), Goal("time", PLAIN, 0.8), NO_COLLAPSE),
    ),
    Case(
        "dense 128x10",
        _side_by_side(Size(128, 10), *DENSE_PEERS),
        (Goal("time", PLAIN, 1.3), NO_COLLAPSE),
    ),
    Case(
        "segmentation maps 4x21x128x128",
        _side_by_side(Size(4 * 128**2, 21, side=128), OURS, TORCH, PLAIN),
        (Goal("time", PLAIN, 1.0), Goal("peak", TORCH, 0.5), NO_COLLAPSE),
    ),
    Case(
        "dense 65536x10",
        _side_by_side(Size(65536, 10), OURS, TORCH, PLAIN),
        (Goal("time", PLAIN, 1.0), NO_COLLAPSE),
    ),
    Case(
        "linear 2048x512x32000",
        _side_by_side(
            Size(2048, 32000, 512),
            OURS,
            OURS_PLAIN,
            TORCH,
            PLAIN,
            CHUNKED,
            COMPILED,
            LIGER,
            CCE_PLAIN,
            PRODUCTS,
        ),
        (
            Goal("time", TORCH, 0.7),
            Goal("peak beyond the gradients", TORCH, 1 / 8),
            Goal("time", OURS_PLAIN, 1.03),
            NO_COLLAPSE,
            *CUDA_LINEAR,
        ),
    ),
    Case(
        "general path 128x10",
        _beside_the_plain_call(Size(128, 10), *GENERAL),
        tuple(Goal("time", CALL, 3.0, entrant=name) for name in GENERAL if name not in (CALL, TORCH)),
    ),
    Case(
        "general path 2048x32000",
        _beside_the_plain_call(Size(2048, 32000), CALL, *LARGE_GENERAL),
        tuple(Goal("time", CALL, 1.5, entrant=name) for name in ("a prior", "MaxSup", "mixup labels")),
    ),
    Case(
        "general path 128x64x10",
        tuple(
            Entrant(name, provider, Size(128, 10, 64), baseline=CALL)
            for name, provider in GENERAL_LINEAR.items()
        ),
        (Goal("time", CALL, 3.0, entrant="a linear head"),),
    ),
    Case("growth, dense", _growth(Size(512, 8000), OURS, TORCH)),
    Case("growth, linear", _growth(Size(512, 8000, 256), OURS, TORCH)),
    Case(
        "bf16, dense 2048x32000",
        _side_by_side(Size(2048, 32000), OURS, TORCH, PLAIN, LIGER, FLASH, COPY, *LIMITS),
        (Goal("time", TORCH, 0.12), *CUDA),
        dtype=torch.bfloat16,
    ),
    Case(
        "bf16, linear 2048x512x32000",
        _side_by_side(Size(2048, 32000, 512), OURS, TORCH, PLAIN, LIGER, CCE_PLAIN, PRODUCTS),
        CUDA_LINEAR,
        dtype=torch.bfloat16,
        native_bf16=True,
    ),
)
