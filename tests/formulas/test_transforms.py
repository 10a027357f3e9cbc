"""Formulas, a user's own too, in every way that torch has of differentiating, mapping and compiling."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LinearCrossEntropyLoss, functional, schedules
from labelsmooth._core.checks import Interval
from labelsmooth._core.statistics import RowStatistics
from labelsmooth._engines import linear
from labelsmooth.engines import available
from labelsmooth.formulas import Formula, log_likelihood, nll
from tests.formulas.oracle import CASES
from tests.test_transforms import Graphs

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

# torch's own forward-mode differentiation does that when first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")

DENSE = ["dense"] if available()["dense"].present else []
N, K, D = 4, 3, 2


@dataclass(frozen=True)
class Poly(Formula):
    """PolyLoss (Leng et al., 2022): as one would add a formula of one's own."""

    strengths: ClassVar[Interval] = Interval(-1, math.inf)

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return nll(s) + eps * (1 - log_likelihood(s).exp())


FORMULAS = {**CASES, "own": (Poly(), 2.0)}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


INPUT = 3 * random(N, K)
HARD = torch.tensor([1, 2, -100, 0])
SOFT = random(N, K).softmax(-1)
WEIGHT = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


@pytest.fixture(params=FORMULAS)
def case(request: pytest.FixtureRequest) -> tuple[Formula, float]:
    return FORMULAS[request.param]


# The second derivative is the reference's, whoever found the first.
@pytest.mark.parametrize(
    ("engine", "target"), [("reference", SOFT), *((e, t) for e in DENSE for t in (HARD, SOFT))]
)
def test_gradcheck(case: tuple[Formula, float], target: Tensor, engine: str) -> None:
    formula, eps = case

    def loss(z: Tensor, eps: Tensor) -> Tensor:
        options = {"label_smoothing": eps, "formula": formula, "weight": WEIGHT, "engine": engine}
        return cross_entropy(z, target, reduction="none", **options)

    strengths = eps * torch.linspace(0.8, 1, N, dtype=torch.float64)
    if eps == 0:
        strengths += 0.1
    leaves = INPUT.clone().requires_grad_(), strengths.requires_grad_()
    plain = engine == "reference"  # what other derivatives go through
    assert gradcheck(loss, leaves, check_forward_ad=plain, check_batched_grad=plain)
    assert gradgradcheck(loss, leaves, fast_mode=True)


def test_learning_the_strength_where_the_prior_has_nothing_for_the_label(case: tuple[Formula, float]) -> None:
    formula, eps = case
    prior = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64)

    def loss(eps: Tensor) -> Tensor:
        target = torch.tensor([0, 2, 0, 0])
        return cross_entropy(INPUT, target, label_smoothing=eps, formula=formula, prior=prior)

    assert gradcheck(loss, torch.tensor(eps or 0.1, dtype=torch.float64, requires_grad=True))


# A mean has its gradients found on the way, "none" on the way back.
@pytest.mark.parametrize(("name", "reduction"), [*((name, "mean") for name in FORMULAS), ("maxsup", "none")])
def test_gradcheck_of_a_head(name: str, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "BUDGET", 0)
    monkeypatch.setattr(linear, "LEAST", 2)
    formula, eps = FORMULAS[name]
    options = {"label_smoothing": eps, "formula": formula, "reduction": reduction, "engine": "linear"}

    def loss(hidden: Tensor, head: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(hidden, head, HARD, linear_bias=bias, **options)

    leaves = [x.requires_grad_() for x in (2 * random(N, D), 2 * random(K, D), random(K))]
    assert gradcheck(loss, leaves)
    assert gradgradcheck(loss, leaves, fast_mode=True)


@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_functional_transforms(case: tuple[Formula, float], target: Tensor) -> None:
    formula, eps = case

    def loss(z: Tensor) -> Tensor:
        return cross_entropy(z, target, label_smoothing=eps, formula=formula)

    leaf = INPUT.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf), leaf)
    assert_close(torch.func.grad(loss)(INPUT), expected)
    assert_close(torch.func.jacfwd(loss)(INPUT), expected)
    direction = random(N, K)
    assert_close(torch.func.jvp(loss, (INPUT,), (direction,)), (loss(INPUT), (expected * direction).sum()))
    several = torch.stack([INPUT, -INPUT])
    assert_close(torch.vmap(loss)(several), torch.stack([loss(z) for z in several]))

    def of_sample(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y, label_smoothing=eps, formula=formula)

    by_sample = torch.vmap(torch.func.grad(of_sample))(INPUT[[0, 1, 3]], target[[0, 1, 3]])
    looped = [torch.func.grad(of_sample)(INPUT[i], target[i]) for i in (0, 1, 3)]
    assert_close(by_sample, torch.stack(looped))


def test_vmap_over_strengths(case: tuple[Formula, float]) -> None:
    formula, eps = case
    strengths = torch.tensor([0.0, eps / 2, eps], dtype=torch.float64)

    def loss(eps: Any) -> Tensor:
        return cross_entropy(INPUT, HARD, label_smoothing=eps, formula=formula)

    assert_close(torch.vmap(loss)(strengths), torch.stack([loss(e) for e in strengths.tolist()]))


def test_a_schedule_compiles_once(case: tuple[Formula, float]) -> None:
    formula, eps = case
    criterion = CrossEntropyLoss(label_smoothing=schedules.linear(0.0, eps, steps=3), formula=formula)
    graphs = Graphs()
    compiled = torch.compile(criterion, fullgraph=True, backend=graphs)
    for _ in range(5):
        assert_close(compiled(INPUT, HARD), criterion(INPUT, HARD))
        criterion.end_epoch()
    assert graphs.count == 1
    plain = CrossEntropyLoss()(INPUT, HARD)
    assert eps == 0 or criterion(INPUT, HARD) != plain


# The whole of the compiler takes a second each time: one formula of each kind of statistic.
@pytest.mark.parametrize(
    ("name", "target"), [("maxsup", SOFT), ("confidence", HARD), ("relaxation", SOFT), ("forward", HARD)]
)
def test_compiled_forward_and_backward(name: str, target: Tensor) -> None:
    formula, eps = FORMULAS[name]
    torch.compiler.reset()
    results = []
    for function in (cross_entropy, torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")):
        leaf = INPUT.clone().requires_grad_()
        loss, hard = function(leaf, target, label_smoothing=eps, formula=formula, return_nll=True)
        results.append((loss, hard, *torch.autograd.grad(loss, leaf)))
    assert_close(results[1], results[0])


@pytest.mark.parametrize("name", ["margin-squared", "own"])
def test_compiled_head(name: str) -> None:
    formula, eps = FORMULAS[name]
    torch.compiler.reset()
    head = LinearCrossEntropyLoss(D, K, label_smoothing=eps, formula=formula, dtype=torch.float64)
    results = []
    for function in (head, torch.compile(head, fullgraph=True, backend="aot_eager")):
        head.zero_grad()
        loss = function(random(N, D), HARD)
        loss.backward()
        assert head.linear.weight.grad is not None
        results.append((loss.detach(), head.linear.weight.grad.clone()))
    assert_close(results[1], results[0])


@pytest.mark.parametrize("engine", ["reference", *DENSE])
def test_a_formula_of_ones_own(engine: str) -> None:
    target, eps = torch.tensor([1, 2, 0, 0]), 2.0
    leaf = INPUT.clone().requires_grad_()
    log_q = leaf.log_softmax(-1)[torch.arange(N), target]
    expected = (-log_q + eps * (1 - log_q.exp())).mean()
    (by_z,) = torch.autograd.grad(expected, leaf)
    given = {"label_smoothing": eps, "formula": Poly()}
    loss, hard = cross_entropy(leaf, target, return_nll=True, engine=engine, **given)
    assert_close((loss, hard), (expected, -log_q.mean()))
    assert_close(torch.autograd.grad(loss, leaf)[0], by_z)
    assert_close(CrossEntropyLoss(label_smoothing=eps, formula=Poly())(leaf, target), expected)
    identity = torch.eye(K, dtype=torch.float64, requires_grad=True)
    assert_close(linear_cross_entropy(leaf, identity, target, **given), expected)
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[-1, inf\), got -2"):
        cross_entropy(INPUT, target, label_smoothing=-2, formula=Poly())
