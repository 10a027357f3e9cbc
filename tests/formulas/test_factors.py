"""Formulas that are sums of terms: their factors, and the gradient that engines find without autograd."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, formulas, mixed
from labelsmooth.engines import available
from labelsmooth.formulas import Factors, Formula, RowStatistics
from labelsmooth.functional import cross_entropy, linear_cross_entropy

DENSE = available()["dense"]
built = pytest.mark.skipif(not DENSE.present, reason=str(DENSE))

LINEAR: list[tuple[Formula, float]] = [
    (formulas.LabelSmoothing(), 0.1),
    (formulas.LabelSmoothing(), 0.0),
    (formulas.LabelSmoothing(), 1.0),
    (formulas.MaxSup(), 0.3),
    (formulas.MarginSmoothing(margin=0.5), 0.2),
    (formulas.MarginSmoothing(margin=0.5, squared=True), 0.2),
    (formulas.BackwardCorrection(), 0.2),
]


class OnCall(Formula):
    """Any formula by its call alone, which autograd differentiates."""

    def __init__(self, of: Formula) -> None:
        object.__setattr__(self, "of", of)

    def __getattribute__(self, name: str) -> Any:
        if name in ("strengths", "hinge", "spread", "overlap", "draws"):
            return getattr(object.__getattribute__(self, "of"), name)
        return object.__getattribute__(self, name)

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return object.__getattribute__(self, "of")(s, eps)


OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "weight": {"weight": torch.tensor([1.0, 0.0, 2.0, 0.5])},
    "z_loss": {"z_loss": 0.1},
    "z_loss and weight": {"z_loss": 0.1, "weight": torch.tensor([1.0, 0.0, 2.0, 0.5])},
    "sample": {"weight": torch.tensor([1.0, 0.0, 2.0, 0.5]), "weighting": "sample"},
    "samples": {"sample_weight": torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0])},
    "sum": {"reduction": "sum"},
    "rows": {"reduction": "none"},
}


def leaf(*shape: int) -> Tensor:
    z = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[0, 1] = -torch.inf
    return z.requires_grad_()


@built
@pytest.mark.parametrize(("formula", "eps"), LINEAR, ids=repr)
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("labels", ["hard", "mixup", "soft"])
@pytest.mark.parametrize("each", [False, True], ids=["one eps", "eps of each"])
def test_the_gradient_is_that_of_the_call(
    formula: Formula, eps: float, option: str, labels: str, each: bool
) -> None:
    hard = torch.tensor([0, 3, -100, 2, 1])
    soft = torch.eye(4, dtype=torch.float64)[hard.clamp(min=0)] * 0.75 + 0.0625
    target: Any = {"hard": hard, "mixup": mixed(hard, hard.flip(0), 0.25), "soft": soft}[labels]
    if labels == "soft" and isinstance(formula, formulas.BackwardCorrection):
        target = hard
    strength = torch.full((5,), eps, dtype=torch.float64) if each else eps
    found: list[Tensor] = []
    for used in (formula, OnCall(formula)):
        z = leaf(5, 4)
        loss = cross_entropy(z, target, label_smoothing=strength, formula=used, **OPTIONS[option])
        seed = torch.arange(1.0, 6.0, dtype=torch.float64) if loss.dim() else None
        found += [loss.detach(), *torch.autograd.grad(loss, z, seed)]
    assert_close(found[:2], found[2:])


@pytest.mark.parametrize(("formula", "eps"), LINEAR, ids=repr)
def test_a_formula_that_overrides_the_call_is_not_taken_for_its_factors(formula: Formula, eps: float) -> None:
    class Doubled(type(formula)):
        def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
            return 2 * super().__call__(s, eps)

    assert formula.linear
    assert not Doubled().linear
    z, y = leaf(5, 4), torch.tensor([0, 3, -100, 2, 2])
    single = cross_entropy(z, y, label_smoothing=eps, formula=type(formula)())
    assert_close(cross_entropy(z, y, label_smoothing=eps, formula=Doubled()), 2 * single)


class Entropic(Formula):
    """Every term, the entropy too."""

    spread = True

    @property
    def hinge(self) -> tuple[float, bool]:
        return 0.5, False

    def factors(self, eps: float | Tensor) -> Factors:
        return Factors(nll=2.0, prior=eps, hinge=eps, entropy=-eps)


@pytest.mark.parametrize("engine", ["reference", *(["dense"] if DENSE.present else [])])
def test_a_formula_of_your_own(engine: Any) -> None:
    z, y = leaf(5, 4), torch.tensor([0, 3, -100, 2, 2])
    loss = cross_entropy(z, y, label_smoothing=0.3, formula=Entropic(), engine=engine, reduction="sum")
    log_q, kept = z.log_softmax(-1), y >= 0
    finite = torch.where(z.isinf(), 0.0, log_q)
    valid = (~z.isinf()).double()
    prior = valid / valid.sum(-1, keepdim=True)
    beyond = torch.where(z.isinf(), 0.0, (z.amax(-1, keepdim=True) - z - 0.5).relu())
    rows = (
        -2 * log_q.gather(-1, y.clamp(min=0)[:, None])[:, 0]
        - 0.3 * (prior * finite).sum(-1)
        + 0.3 * (prior * beyond).sum(-1)
        + 0.3 * (log_q.exp() * finite).sum(-1)
    )
    expected = rows[kept].sum()
    assert_close(loss, expected)
    grads = (torch.autograd.grad(x, z, retain_graph=True)[0][:, [0, 2, 3]] for x in (loss, expected))
    assert_close(*grads)


def test_a_formula_without_either() -> None:
    with pytest.raises(NotImplementedError, match="a formula defines factors or __call__"):
        cross_entropy(torch.zeros(2, 3), torch.tensor([0, 1]), formula=Formula())


@pytest.mark.parametrize("module", [False, True])
def test_a_strength_that_changes_later_does_not_change_the_loss(module: bool) -> None:
    z, y = torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    eps = torch.full((4,), 0.1)
    expected = torch.autograd.grad(cross_entropy(z, y, label_smoothing=0.1), z)[0]
    loss = CrossEntropyLoss(label_smoothing=eps)(z, y) if module else cross_entropy(z, y, label_smoothing=eps)
    head = linear_cross_entropy(z, torch.eye(3), y, label_smoothing=eps)
    eps.fill_(0.9)
    for x in (loss, head):
        assert_close(torch.autograd.grad(x, z)[0], expected)
