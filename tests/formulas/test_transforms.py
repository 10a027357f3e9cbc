"""Formulas, a user's own too, mapped and scheduled; the batteries differentiate and compile them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, functional, schedules
from labelsmooth.formulas import Formula
from tests.cases import ENGINES
from tests.small import HARD, IGNORING, INPUT, OWN, SOFT, Graphs, K, N, Poly

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy


@pytest.fixture(params=OWN)
def case(request: pytest.FixtureRequest) -> tuple[Formula, float]:
    return OWN[request.param]


def test_learning_the_strength_where_the_prior_has_nothing_for_the_label(case: tuple[Formula, float]) -> None:
    formula, eps = case
    prior = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64)

    def loss(eps: Tensor) -> Tensor:
        target = torch.tensor([0, 2, 0, 0])
        return cross_entropy(INPUT, target, label_smoothing=eps, formula=formula, prior=prior)

    assert gradcheck(loss, torch.tensor(eps or 0.1, dtype=torch.float64, requires_grad=True))


@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_gradient_of_each_sample(case: tuple[Formula, float], target: Tensor) -> None:
    formula, eps = case

    def of_sample(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y, label_smoothing=eps, formula=formula)

    looped = [torch.func.grad(of_sample)(z, y) for z, y in zip(INPUT, target, strict=True)]
    assert_close(torch.vmap(torch.func.grad(of_sample))(INPUT, target), torch.stack(looped))


def test_vmap_over_strengths(case: tuple[Formula, float]) -> None:
    formula, eps = case
    strengths = torch.tensor([0.0, eps / 2, eps], dtype=torch.float64)

    def loss(eps: Any) -> Tensor:
        return cross_entropy(INPUT, IGNORING, label_smoothing=eps, formula=formula)

    assert_close(torch.vmap(loss)(strengths), torch.stack([loss(e) for e in strengths.tolist()]))


@pytest.mark.slow
def test_a_schedule_compiles_once(case: tuple[Formula, float]) -> None:
    formula, eps = case
    criterion = CrossEntropyLoss(label_smoothing=schedules.linear(0.0, eps, steps=3), formula=formula)
    graphs = Graphs()
    compiled = torch.compile(criterion, fullgraph=True, backend=graphs)
    for _ in range(5):
        assert_close(compiled(INPUT, IGNORING), criterion(INPUT, IGNORING))
        criterion.end_epoch()
    assert graphs.count == 1
    plain = CrossEntropyLoss()(INPUT, IGNORING)
    assert eps == 0 or criterion(INPUT, IGNORING) != plain


@pytest.mark.parametrize("engine", ENGINES)
def test_a_formula_of_ones_own(engine: str) -> None:
    eps = 2.0
    leaf = INPUT.clone().requires_grad_()
    log_q = leaf.log_softmax(-1)[torch.arange(N), HARD]
    expected = (-log_q + eps * (1 - log_q.exp())).mean()
    (by_z,) = torch.autograd.grad(expected, leaf)
    given = {"label_smoothing": eps, "formula": Poly()}
    loss, hard = cross_entropy(leaf, HARD, return_nll=True, engine=engine, **given)
    assert_close((loss, hard), (expected, -log_q.mean()))
    assert_close(torch.autograd.grad(loss, leaf)[0], by_z)
    assert_close(CrossEntropyLoss(label_smoothing=eps, formula=Poly())(leaf, HARD), expected)
    identity = torch.eye(K, dtype=torch.float64, requires_grad=True)
    assert_close(linear_cross_entropy(leaf, identity, HARD, **given), expected)
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[-1, inf\), got -2"):
        cross_entropy(INPUT, HARD, label_smoothing=-2, formula=Poly())
