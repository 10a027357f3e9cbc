"""The table of cases: what a cross entropy is called with. It equals ``oracle.cross_entropy`` of the same.

A new option is a new row here, and every battery of ``test_batteries`` runs over it, on every engine.
"""

import math
import random as pick_at
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth import by_class, functional, mixed, priors, schedules
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


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def distribution(*shape: int) -> Tensor:
    """Positive numbers, every third of them 0, that sum to 1."""
    x = random(*shape).abs()
    x[..., 1::3] = 0.0
    return x / x.sum(-1, keepdim=True)


def chunks(rows: int) -> dict[str, Any]:
    """The option of a linear head that has it make so many rows of logits at once."""
    kind = getattr(torch.nn, "LinearCrossEntropyOptions", None)
    return {} if kind is None else {"options": kind(batch_chunk_size=rows)}


def gradients(loss: Tensor, leaves: list[Tensor], **how: Any) -> list[Tensor]:
    """By a direction in which no two rows weigh the same."""
    direction = torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return list(torch.autograd.grad(loss, leaves, direction, **how))


@dataclass(frozen=True)
class Head:
    """Logits ``input @ weight.T + bias``, bent by a cap."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None

    def logits(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        z = F.linear(input, weight, bias)
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
        given = {"linear_bias": bias, "softcap": self.head.softcap, **chunks(self.chunk), **self.options}
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
            return "a mixture of priors by class"
        if formula.hinge is not None and isinstance(prior, PerSample) and prior.classes is not None:
            return "it has no hinge over a prior of a few classes"
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
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5, 1.0], dtype=torch.float64)
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


def smoothing() -> Iterator[Case]:
    """The product of all that meets in a row, with masks in every case: no smoothing, some and nothing but
    smoothing, by row and by class; priors with and without mass where it is looked for; a weight of 0."""
    targets = {"hard": HARD, "soft": MASKED_SOFT, "mixed": MASKED_MIXED}
    strengths = {"0": 0.0, ".1": 0.1, "1": 1.0, "row": EPS, "class": by_class(EPS[:K])}
    for t, e, p, off, w, everything in product(
        targets, strengths, PRIORS, ("all", "others"), WEIGHTS, (False, True)
    ):
        if e == "class" and t != "hard":
            continue
        options = {"label_smoothing": strengths[e], "prior": PRIORS[p], "off_target": off, **WEIGHTS[w]}
        if everything:
            options |= {"sample_weight": SAMPLE_WEIGHT, "denominator": 7.0}
            options |= {"ignore_index": 0} if t == "hard" else {}
        yield Case(f"{t}-{e}-{p}-{off}-{w}{'-rows' * everything}", MASKED, targets[t], options)


def heads() -> Iterator[Case]:
    """Every kind of target, prior and weight in every reduction."""
    targets = {"hard": HARD.masked_fill(torch.arange(N) == 4, -100), "soft": SOFT, "mixed": MIXED}
    for t, p, w, reduction in product(targets, PRIORS, WEIGHTS, REDUCTIONS):
        options = {"label_smoothing": EPS, "prior": PRIORS[p], "reduction": reduction, **WEIGHTS[w]}
        yield Case(f"head-{t}-{p}-{w}-{reduction}", Z, targets[t], options, HEAD)


def formulas() -> Iterator[Case]:
    """Every formula with each kind of target and option; and with a masked class, to which no label goes."""
    weights = {"weight": WEIGHT + 0.5}
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "none": {"reduction": "none"},
        "vector": {"prior": distribution(K), "reduction": "sum"},
        "matrix": {"prior": distribution(K, K)},
        "rows": {"prior": priors.per_sample(distribution(N, K)), "z_loss": 0.01, **weights},
        "few": {"prior": FEW, **weights},
        "others": {"off_target": "others"},
        "others-matrix": {"off_target": "others", "prior": distribution(K, K), **weights},
        "others-few": {"off_target": "others", "prior": FEW},
        "weight": {"z_loss": 0.01, **weights},
        "by sample": {"weighting": "sample", "sample_weight": SAMPLE_WEIGHT, "prior": VECTOR, **weights},
        "sample-weight": {"sample_weight": SAMPLE_WEIGHT, **weights},
    }
    hard = HARD.masked_fill(HARD == 2, 4)
    soft = SOFT.index_fill(1, torch.tensor([2]), 0.0)
    soft = soft / soft.sum(-1, keepdim=True)
    assert HEAD.bias is not None
    bias = HEAD.bias.index_fill(0, torch.tensor([2]), -INF)
    masked = Head(HEAD.input, HEAD.weight, bias)
    z = masked.logits(masked.input, masked.weight, bias)
    ignoring = hard.masked_fill(torch.tensor([0, 0, 1, 0, 0, 1, 0], dtype=torch.bool), -100)
    for name, (formula, eps) in FORMULAS.items():
        given = {"formula": formula, "label_smoothing": eps}
        for t, target in {"hard": hard, "soft": soft, "mixed": MIXED, "ignoring": ignoring}.items():
            for o, chosen in options.items():
                if t != "ignoring" or o in ("plain", "none", "weight"):
                    yield Case(f"{name}-{t}-{o}", Z, target, given | chosen, HEAD)
                if t in ("hard", "soft"):
                    yield Case(f"{name}-{t}-{o}-masked", z, target, given | chosen, masked)
        schedule = schedules.linear(eps, eps / 2, steps=2)
        schedule.step()
        factors = eps * torch.linspace(0.5, 1.0, N, dtype=torch.float64)
        for e, strength in {
            "row": factors,
            "class": by_class(factors[:K]),
            "schedule": schedule,
            "0": 0.0,
        }.items():
            chosen = {"prior": VECTOR, "formula": formula, "label_smoothing": strength}
            yield Case(f"{name}-of {e}", Z, hard, chosen, HEAD)


def z_losses() -> Iterator[Case]:
    """Weighted as its row, under every way to weight rows."""
    targets = {"hard": HARD.masked_fill(torch.arange(N) == 2, -100), "soft": SOFT, "mixed": MIXED}
    rows: dict[str, dict[str, Any]] = {"rows": {}, "sample-weight": {"sample_weight": SAMPLE_WEIGHT}}
    by: list[dict[str, Any]] = [{"reduction": r} for r in REDUCTIONS]
    for t, w, r, f, how in product(
        targets, WEIGHTS, rows, ("smoothing", "confidence"), [*by, {"denominator": 7.0}]
    ):
        options = {"formula": FORMULAS[f][0], "label_smoothing": 0.1, "z_loss": 0.03}
        name = f"z_loss-{t}-{w}-{r}-{f}-{'-'.join(map(str, how.values()))}"
        yield Case(name, Z, targets[t], {**options, **WEIGHTS[w], **rows[r], **how}, HEAD)
    for t, offset, reduction in product(targets, (-7.0, 300.0), REDUCTIONS):
        options = {"label_smoothing": 0.1, "z_loss": 0.01, "reduction": reduction}
        yield Case(f"z_loss-{t}-{offset}-{reduction}", Z + offset, targets[t], options)


def shapes() -> Iterator[Case]:
    """Every rank that torch takes, an odd number of everything, and strengths and shares that broadcast."""
    for shape, soft, reduction in product(
        [(5,), (7, 5), (3, 5, 2), (2, 5, 3, 1), (2, 5, 1, 3, 2), (1, 1)], (False, True), REDUCTIONS
    ):
        class_dim, classes = min(1, len(shape) - 1), shape[min(1, len(shape) - 1)]
        z = 3 * random(*shape)
        target = z.flip(class_dim).softmax(class_dim)
        rows = target.select(class_dim, 0).shape
        eps = torch.linspace(0, 1, rows.numel(), dtype=torch.float64).reshape(rows)
        options = {"weight": random(classes).abs(), "label_smoothing": eps, "reduction": reduction}
        name = f"{'x'.join(map(str, shape))}-{reduction}"
        hard = target.argmax(class_dim)
        if soft:
            yield Case(f"soft-{name}", z, target, options)
            continue
        yield Case(f"hard-{name}", z, hard, options | {"ignore_index": 2})
        second = torch.where(torch.arange(hard.numel()).reshape(rows) % 3 == 0, hard, z.argmin(class_dim))
        lam = torch.rand(rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        yield Case(f"mixed-{name}", z, mixed(hard, second, lam), options)
        if len(rows) > 1:
            by_map = lam.flatten(1)[:, 0].reshape(-1, *[1] * (len(rows) - 1))
            yield Case(f"mixed-by map-{name}", z, mixed(hard, second, by_map), options)
        whole = random(*rows, classes).softmax(-1)
        shares, at = whole.topk(min(3, classes), -1)
        few = priors.per_sample(shares / shares.sum(-1, keepdim=True), at)
        teacher = priors.teacher(whole.log().movedim(-1, class_dim), k=min(3, classes))
        of_rows = {"whole": priors.per_sample(whole.movedim(-1, class_dim)), "few": few, "teacher": teacher}
        for kind, prior in of_rows.items():
            yield Case(f"{kind}-{name}", z, hard, options | {"prior": prior})
    z, target = 3 * random(2, 4, 3), torch.tensor([[0, 1, 2], [3, 0, 1]])
    for eps in (torch.tensor(0.3), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([[0.1], [0.9]])):
        options = {"label_smoothing": eps.double(), "reduction": "none"}
        yield Case(f"strengths of {tuple(eps.shape)}", z, target, options)


def drawn(seed: int) -> Case:
    """Any options that go together."""
    pick = pick_at.Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def positive(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1

    hidden, weight, bias = (torch.randn_like(positive(*s)) for s in ((N, D), (K, D), (K,)))
    head = Head(hidden, weight, pick.choice([None, bias]), pick.choice([None, 2.0]))
    soft = pick.random() < 0.4
    target = positive(N, K) if soft else torch.randint(K, (N,), generator=generator)
    options: dict[str, Any] = {"reduction": pick.choice(REDUCTIONS)}
    if soft:
        target = target / target.sum(-1, keepdim=True)
    elif pick.random() < 0.6:
        options["ignore_index"] = pick.choice([-100, 2])
        target[pick.randrange(N)] = options["ignore_index"]
    strengths = [0.0, 0.1, 1.0, torch.tensor(0.3), torch.linspace(0, 1, N)]
    options["label_smoothing"] = pick.choice(
        [*strengths, torch.tensor([0.2])] if soft else [*strengths, by_class(torch.linspace(0, 1, K))]
    )
    prior = pick.choice([None, positive(K), positive(K, K)])
    options["prior"] = prior if prior is None else prior / prior.sum(-1, keepdim=True)
    options["off_target"] = pick.choice(["all", "others"])
    options["weight"] = pick.choice([None, positive(K)])
    options["weighting"] = pick.choice(["torch", "torch" if options["weight"] is None else "sample"])
    options["sample_weight"] = pick.choice([None, positive(N) * (positive(N) > 0.4), torch.tensor(2.0)])
    if options["reduction"] == "mean":
        options["denominator"] = pick.choice([None, 11.0, torch.tensor(3)])
    options["z_loss"] = 0.3 if seed >= 60 else 0.0
    z = head.logits(hidden, weight, head.bias)
    return Case(f"drawn {seed}", z, target, options, head, chunk=(1, 2, 3, N)[seed % 4])


CASES = [*smoothing(), *heads(), *formulas(), *z_losses(), *shapes(), *map(drawn, range(80))]
SERVED = [case for case in CASES if case.refused is None]
HEADS = [case for case in SERVED if case.name.startswith(("head", "drawn"))]
