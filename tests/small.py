"""A few cases of four rows and three classes, for what is slow: one for each branch of a derivative."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from labelsmooth import mixed, priors
from labelsmooth.formulas import Formula, Interval, RowStatistics, log_likelihood, nll
from tests.cases import FORMULAS, Case, Head, random

N, K, D = 4, 3, 2
HEAD = Head(random(N, D), 1.5 * random(K, D), random(K))
INPUT = HEAD.logits(HEAD.input, HEAD.weight, HEAD.bias)
MASKED = INPUT.masked_fill(torch.eye(N, K, dtype=torch.bool), -torch.inf)
SOFT = random(N, K).softmax(-1)
MASKED_SOFT = SOFT * MASKED.isfinite() / (SOFT * MASKED.isfinite()).sum(-1, keepdim=True)
HARD = torch.tensor([1, 2, 0, 0])
IGNORING = torch.tensor([1, -100, 0, 0])
EPS = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
MIXED = mixed(HARD, torch.tensor([1, 0, 2, 1]), torch.tensor([0.3, 0.6, 1.0, 0.2], dtype=torch.float64))
WEIGHT = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
MATRIX = random(K, K).softmax(-1)
WHOLE = priors.per_sample(random(N, K + 1)[:, :K].softmax(-1))
FEW = priors.per_sample(random(N, 2).softmax(-1), torch.tensor([[0, 1], [2, 2], [1, 0], [0, 2]]))


@dataclass(frozen=True)
class Poly(Formula):
    """PolyLoss (Leng et al., 2022): as one would add a formula of one's own."""

    strengths: ClassVar[Interval] = Interval(-1, math.inf)

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return nll(s) + eps * (1 - log_likelihood(s).exp())


def case(name: str, target: Any, *, z: Tensor = INPUT, cap: float | None = None, **options: Any) -> Case:
    head = Head(HEAD.input, HEAD.weight, HEAD.bias, cap) if z is INPUT else None
    z = z if cap is None else cap * torch.tanh(z / cap)
    return Case(name, z, target, {"label_smoothing": EPS, **options}, head, chunk=3)


KINDS = [
    case("hard", HARD),
    case("soft", SOFT),
    case("soft vector", SOFT, prior=MATRIX[0], weight=WEIGHT),
    case("soft masked", MASKED_SOFT, z=MASKED, weight=WEIGHT, reduction="sum"),
    case("soft others", SOFT, off_target="others", prior=WEIGHT / WEIGHT.sum()),
    case("soft matrix", SOFT, off_target="others", prior=MATRIX),
    case("weight", IGNORING, weight=WEIGHT, denominator=3.0),
    case("none", IGNORING, weight=WEIGHT, reduction="none"),
    case("sample", HARD, weight=WEIGHT, weighting="sample", sample_weight=EPS),
    case("others", HARD, off_target="others", prior=WEIGHT / WEIGHT.sum()),
    case("matrix", HARD, off_target="others", prior=MATRIX, reduction="sum"),
    case("masked", HARD, z=MASKED, prior=MATRIX, reduction="none"),
    case("at once", IGNORING, z=MASKED, label_smoothing=0.1),
    case("at once, sum", HARD, label_smoothing=1.0, reduction="sum"),
    case("z_loss", IGNORING, z_loss=0.3),
    case("cap", SOFT, cap=2.0, z_loss=0.1, reduction="none"),
    case("capped mean", IGNORING, cap=2.0, z_loss=0.1),
    case("mixed", MIXED, weight=WEIGHT, z_loss=0.1, reduction="none"),
    case("mixed matrix", MIXED, prior=MATRIX),
    case("mixed few", MIXED, prior=FEW, reduction="none"),
    case("rows", HARD, prior=WHOLE, weight=WEIGHT, reduction="none"),
    case("few", HARD, prior=FEW, weight=WEIGHT),
]


def of_formulas(name: str, formula: Formula, eps: float) -> list[Case]:
    given = {"formula": formula, "label_smoothing": eps, "weight": WEIGHT}
    hard = case(f"{name} hard", IGNORING, **given)
    return [hard, case(f"{name} soft", SOFT, reduction="none", **given)]


OWN: dict[str, tuple[Formula, float]] = {**FORMULAS, "own": (Poly(), 2.0)}
SMALL = KINDS + [case for name, (formula, eps) in OWN.items() for case in of_formulas(name, formula, eps)]

# A schedule starts or ends at 0, and may pass through 1; both are special to a compiler.
SCHEDULE = [0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 0.1, 0.0]


class Graphs:
    """A compiler that counts the graphs it is given and runs them as they are."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self.count = 0

    def __call__(self, graph: torch.fx.GraphModule, example_inputs: list[Tensor]) -> Callable[..., Any]:
        self.count += 1
        return graph.forward
