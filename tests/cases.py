"""What a case is, and what cases are made of: logits, targets, priors, weights and formulas."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth import functional, mixed, priors
from labelsmooth.engines import available
from labelsmooth.formulas import (
    BackwardCorrection,
    ConfidencePenalty,
    Focal,
    Formula,
    ForwardCorrection,
    LabelRelaxation,
    LabelSmoothing,
    MarginSmoothing,
    MaxSup,
    NegativeSmoothing,
)
from labelsmooth.priors import PerSample

INF, NAN = math.inf, math.nan
DENSE = ["dense"] if available()["dense"].present else []
ENGINES = ["reference", *DENSE]
REDUCTIONS = ("none", "mean", "sum")
PRECISE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}
N, K, D = 7, 5, 3

kernel = pytest.mark.skipif(not DENSE, reason=str(available()["dense"]))


CHUNKED = hasattr(torch.nn, "LinearCrossEntropyOptions")
needs_chunks = pytest.mark.skipif(not CHUNKED, reason="this torch has no LinearCrossEntropyOptions")


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def distribution(*shape: int) -> Tensor:
    """Positive numbers, every third of them 0, that sum to 1."""
    x = random(*shape).abs()
    x[..., 1::3] = 0.0
    return x / x.sum(-1, keepdim=True)


def chunks(rows: int) -> dict[str, Any]:
    """The option of a linear head that has it make so many rows of logits at once."""
    return {"options": torch.nn.LinearCrossEntropyOptions(batch_chunk_size=rows)} if CHUNKED else {}


def gradients(loss: Tensor, leaves: list[Tensor], **how: Any) -> list[Tensor]:
    """By a direction in which no two rows weigh the same."""
    direction = torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return list(torch.autograd.grad(loss, leaves, direction, **how))


@dataclass(frozen=True)
class Head:
    """Logits ``scale * (input @ weight.T + bias)``, bent by a cap."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float | None = None

    def logits(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        z = F.linear(input, weight, bias) * (1.0 if self.scale is None else self.scale)
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)

    def leaves(self) -> list[Tensor]:
        given = [self.input, self.weight, *([] if self.bias is None else [self.bias])]
        return [x.clone().requires_grad_() for x in given]


@dataclass(frozen=True)
class Case:
    name: str
    z: Tensor  # the classes where torch has them
    target: Any
    options: dict[str, Any]
    head: Head | None = field(default=None, repr=False)  # the logits of which z is
    chunk: int = 3

    def __str__(self) -> str:
        return self.name

    def loss(self, z: Tensor, **engine: Any) -> Any:
        cross_entropy: Any = functional.cross_entropy
        return cross_entropy(z, self.target, **{**self.options, **engine})

    def of_head(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, **engine: Any) -> Any:
        linear_cross_entropy: Any = functional.linear_cross_entropy
        assert self.head is not None
        bend = {"scale": self.head.scale, "softcap": self.head.softcap}
        given = {"linear_bias": bias, **bend, **chunks(self.chunk), **self.options}
        return linear_cross_entropy(input, weight, self.target, **{**given, **engine})

    @property
    def several(self) -> bool:
        """Labels in a row."""
        return not isinstance(self.target, Tensor) or self.target.is_floating_point()

    @property
    def refused(self) -> str | None:
        """What every engine says of it."""
        prior, formula = self.options.get("prior"), self.options.get("formula", LabelSmoothing())
        few, others = isinstance(prior, PerSample) and prior.classes is not None, self.others
        if few and others and self.several:
            return 'off_target="others" takes one label for each row with a prior of a few classes'
        if formula.draws and (others or self.by_class):
            return "must be"
        if formula.overlap and few and isinstance(self.target, Tensor) and self.several:
            return "this formula takes one label for each row with such a prior"
        return None

    @property
    def refused_by_dense(self) -> str | None:
        prior, formula = self.options.get("prior"), self.options.get("formula", LabelSmoothing())
        if self.several and (self.others or self.by_class):
            return "it does not mix priors by class"
        if formula.hinge is not None and isinstance(prior, PerSample) and prior.classes is not None:
            return "it has no hinge over priors of a few classes"
        return None

    @property
    def others(self) -> bool:
        return self.options.get("off_target") == "others"

    @property
    def by_class(self) -> bool:
        prior = self.options.get("prior")
        return isinstance(prior, Tensor) and prior.dim() == 2


# One in each branch of each formula, with a strength in its range.
FORMULAS: dict[str, tuple[Formula, float]] = {
    "smoothing": (LabelSmoothing(), 0.1),
    "negative": (NegativeSmoothing(clip=math.inf), -0.4),
    "negative-clipped": (NegativeSmoothing(clip=1.5), -0.4),
    "negative-positive": (NegativeSmoothing(clip=1.5), 0.3),
    "maxsup": (MaxSup(), 0.2),
    "margin": (MarginSmoothing(margin=2), 0.2),
    "margin-squared": (MarginSmoothing(margin=2.0, squared=True), 1.5),
    "confidence": (ConfidencePenalty(), 0.1),
    "confidence-threshold": (ConfidencePenalty(threshold=0.9), 1.5),
    "relaxation": (LabelRelaxation(), 0.4),
    "focal": (Focal(), 0.0),
    "focal-smoothed": (Focal(gamma=0.5), 0.1),
    "forward": (ForwardCorrection(), 0.3),
    "backward": (BackwardCorrection(), 0.3),
}

HARD = torch.tensor([0, 1, 2, 3, 4, 0, 3])
SECOND = torch.tensor([1, 1, 0, 4, 2, 3, 3])  # the second row has the same label twice
LAM = torch.tensor([0.3, 0.6, 1.0, 0.0, 0.5, 0.9, 0.2], dtype=torch.float64)
MIXED = mixed(HARD, SECOND, LAM)
SOFT = random(N, K).softmax(-1)
VECTOR = torch.tensor([0.4, 0.0, 0.3, 0.1, 0.2], dtype=torch.float64)
MATRIX = torch.tensor(
    [
        [0.1, 0.2, 0.3, 0.4, 0.0],
        [0.5, 0.0, 0.5, 0.0, 0.0],
        [0.0, 0.0, 0.9, 0.1, 0.0],
        [0.0, 0.7, 0.0, 0.2, 0.1],
        [0.2, 0.2, 0.2, 0.2, 0.2],
    ],
    dtype=torch.float64,
)
ROWS = random(N, K + 1)[:, :K].softmax(-1)
# Some classes twice or more, and the target's own; nothing but one in the fourth row.
CLASSES = torch.tensor(
    [[0, 1, 4, 2], [3, 3, 0, 3], [2, 1, 2, 0], [4, 4, 4, 4], [0, 2, 1, 4], [1, 0, 0, 2], [3, 2, 4, 0]]
)
SHARES = random(N, 4).softmax(-1)
FEW = priors.per_sample(SHARES, CLASSES)
FEW_ROWS = torch.zeros(N, K, dtype=torch.float64).scatter_add(-1, CLASSES, SHARES)
PRIORS: dict[str, Any] = {
    "uniform": None,
    "vector": VECTOR,
    "sparse": torch.tensor([0.6, 0.0, 0.4, 0.0, 0.0], dtype=torch.float64),
    "matrix": MATRIX,
    "rows": priors.per_sample(ROWS),
    "few": FEW,
}
# That of the labels does not sum to their number, or a mean would not tell what divides it.
WEIGHT = torch.tensor([0.7, 2.0, 0.0, 1.5, 1.0], dtype=torch.float64)
WEIGHTS: dict[str, dict[str, Any]] = {
    "unweighted": {},
    "weight": {"weight": WEIGHT},
    "by sample": {"weight": WEIGHT, "weighting": "sample"},
}
EPS = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.2, 0.3, 0.7], dtype=torch.float64)
SAMPLE_WEIGHT = torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 3.0, 1.0], dtype=torch.float64)

HEAD = Head(random(N, D), 1.5 * random(K, D), random(K))
Z = HEAD.logits(HEAD.input, HEAD.weight, HEAD.bias)
# Row 0 and the last two are plain; row 1 has two masked classes, row 2 its target and two others left; row 3
# only its target, for which neither a matrix nor the few classes have anything; row 4 does not count if rows
# are weighted.
VALID = torch.tensor(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 0, 1, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 0],
        [1, 1, 0, 1, 1],
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1],
    ],
    dtype=torch.bool,
)
MASKED = Z.masked_fill(~VALID, -INF)
MASKED_SOFT = (SOFT * VALID) / (SOFT * VALID).sum(-1, keepdim=True)
MASKED_MIXED = mixed(HARD, torch.tensor([1, 1, 3, 3, 1, 3, 3]), LAM)
