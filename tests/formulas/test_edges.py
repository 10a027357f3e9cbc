"""What formulas do at the edges of their ranges, and what they refuse."""

import copy
import math
import pickle
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import (
    CrossEntropyLoss,
    LinearCrossEntropyLoss,
    functional,
    mixed,
    priors,
)
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
    RowStatistics,
)
from tests.cases import ENGINES
from tests.cases import FORMULAS as CASES

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

INF, NAN = math.inf, math.nan
EACH = [LabelSmoothing(), NegativeSmoothing(), MaxSup(), MarginSmoothing(margin=1), LabelRelaxation()]
EACH += [ConfidencePenalty(), ConfidencePenalty(0.5), Focal(), ForwardCorrection(), BackwardCorrection()]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Formula, float]:
    return CASES[request.param]


def losses(
    z: Tensor, target: Tensor, formula: Formula, eps: Any, engine: str, **options: Any
) -> tuple[Tensor, Tensor]:
    """One a row, and the gradient of their sum."""
    leaf = z.clone().requires_grad_()
    given = {"label_smoothing": eps, "formula": formula, "reduction": "none", "engine": engine, **options}
    rows = cross_entropy(leaf, target, **given)
    return rows.detach(), torch.autograd.grad(rows.sum(), leaf)[0]


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_that_is_no_distribution_is_nan(
    case: tuple[Formula, float], bad: float, at: int, engine: str
) -> None:
    z = torch.tensor([[1.0, 3.0, -2.0], [1.0, 3.0, -2.0], [0.0, 1.0, 2.0]])
    z[1, at] = bad
    loss, grad = losses(z, torch.tensor([0, 0, 1]), *case, engine)
    assert loss[1].isnan()
    assert grad[1].isnan().any()
    assert loss[[0, 2]].isfinite().all()
    assert grad[[0, 2]].isfinite().all()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_stands_in_ignored_rows_reaches_nothing(
    case: tuple[Formula, float], bad: float, engine: str
) -> None:
    z = torch.tensor([[1.0, 3.0, -2.0], [bad, bad, bad], [0.0, 1.0, 2.0]])
    loss, grad = losses(z, torch.tensor([0, -100, 1]), *case, engine)
    alone, by_z = losses(z[::2], torch.tensor([0, 1]), *case, engine)
    assert_close((loss[::2], grad[::2]), (alone, by_z))
    assert loss[1] == 0
    assert not grad[1].any()


@pytest.mark.parametrize("formula", EACH, ids=repr)
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_a_masked_label_is_impossible(formula: Formula, eps: float, engine: str) -> None:
    """Its loss is infinite, as that without smoothing, and no gradient is NaN, as of torch's."""
    z = torch.tensor([[-INF, 3.0, 1.0]])
    target = torch.tensor([0])
    loss, grad = losses(z, target, formula, eps, engine)
    assert loss.item() == INF
    assert not grad.isnan().any()


@pytest.mark.parametrize("formula", EACH, ids=repr)
def test_class_probabilities_of_one_class_are_its_index(formula: Formula) -> None:
    """Also where the prior of the label is masked altogether, and nothing is smoothed."""
    z = torch.tensor([[1.0, 3.0, -INF, 0.0], [1.0, 2.0, 3.0, 4.0]], dtype=torch.float64)
    target = torch.tensor([0, 1])
    prior = torch.full((4, 4), 0.25, dtype=torch.float64)
    prior[0] = torch.tensor([0.0, 0, 1, 0])
    one_hot = torch.nn.functional.one_hot(target, 4).double()
    hard = losses(z, target, formula, 0.3, "reference")
    assert_close(losses(z, one_hot, formula, 0.3, "reference"), hard)
    if not formula.draws:  # from one prior
        hard = losses(z, target, formula, 0.3, "reference", prior=prior)
        assert_close(losses(z, one_hot, formula, 0.3, "reference", prior=prior), hard)


def test_a_class_of_weight_0_has_no_focal_loss(engine: str) -> None:
    """Nothing tells how likely its label is."""
    z, weight = torch.tensor([[1.0, 3.0, 2.0, 0.0]], dtype=torch.float64), torch.tensor([0.0, 1, 1, 1])
    loss, grad = losses(z, torch.tensor([0]), Focal(), 0.3, engine, weight=weight.double())
    assert loss.item() == pytest.approx(0, abs=1e-300)
    assert not grad.abs().gt(1e-300).any()


@pytest.mark.parametrize("formula", [f for f in EACH if not isinstance(f, Focal)], ids=repr)
def test_loss_is_continuous_in_a_class_weight_of_0(formula: Formula, engine: str) -> None:
    z = torch.tensor([[1.0, 3.0, 2.0, 0.0]], dtype=torch.float64)
    target = torch.tensor([0])
    few, none = (torch.tensor([w, 1, 1, 1], dtype=torch.float64) for w in (1e-12, 0.0))
    expected = losses(z, target, formula, 0.3, engine, weight=few)
    assert_close(losses(z, target, formula, 0.3, engine, weight=none), expected)


@pytest.mark.parametrize("formula", EACH, ids=repr)
def test_masks_by_the_least_number_overflow_no_more_than_one(formula: Formula) -> None:
    """Engines agree on logits of finfo.min, which many take for a mask."""
    z = torch.tensor([[2.0, torch.finfo(torch.float32).min, 0.0, torch.finfo(torch.float32).min]])
    results = [losses(z, torch.tensor([0]), formula, 0.3, engine) for engine in ENGINES]
    for other in results[1:]:
        assert_close(other, results[0])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_empty_batches(case: tuple[Formula, float], reduction: str, engine: str) -> None:
    formula, eps = case
    options = {"label_smoothing": eps, "formula": formula, "reduction": reduction}
    target = torch.zeros(0, dtype=torch.long)
    z, head = torch.zeros(0, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    for loss in (
        cross_entropy(z, target, engine=engine, **options),
        linear_cross_entropy(z, head, target, **options),
    ):
        expected = torch.nn.functional.cross_entropy(z, target, reduction=reduction)
        assert_close(loss, expected, equal_nan=True)
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert grad.shape == (0, 3)


def test_one_class_leaves_no_doubt(case: tuple[Formula, float], engine: str) -> None:
    formula, eps = case
    loss, grad = losses(torch.tensor([[5.0], [-3.0]]), torch.zeros(2, dtype=torch.long), *case, engine)
    missing = 0.0
    if isinstance(formula, ConfidencePenalty) and formula.threshold is not None:
        missing = eps * formula.threshold  # of an entropy that cannot be
    assert_close(loss, torch.full((2,), missing))
    assert_close(grad, torch.zeros(2, 1))


def test_focal_rows_that_are_certain_pull_no_more(engine: str) -> None:
    """The power of 1 - q_y has no derivative at 0 if gamma < 1, but the loss has one: 0."""
    for gamma in (0.0, 0.1, 0.5, 1.0, 3.0):
        loss, grad = losses(torch.tensor([[200.0, 0.0, 0.0]]), torch.tensor([0]), Focal(gamma), 0.0, engine)
        assert loss.item() == 0
        assert not grad.any()


def test_a_class_without_weight_has_no_focal_loss(engine: str) -> None:
    z, weight = torch.tensor([[1.0, 3.0, -2.0]]), torch.tensor([0.0, 1.0, 1.0])
    for gamma in (0.01, 1.0):
        loss, grad = losses(z, torch.tensor([0]), Focal(gamma), 0.1, engine, weight=weight)
        assert loss.item() == 0
        assert not grad.any()


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (torch.tensor([-100, 2]), {"weight": torch.tensor([0.0, 1.0, 1.0])}),
        (mixed(torch.tensor([0, 2]), torch.tensor([-100, 2]), 0.5), {}),
        (torch.eye(3)[[0, 2]], {"sample_weight": torch.tensor([0.0, 1.0])}),
    ],
    ids=["hard", "mixed", "soft"],
)
def test_noise_alone_in_ignored_rows(target: Any, options: dict[str, Any], engine: str) -> None:
    """Whose q no longer counts: log(1 - eps) is -inf."""
    loss, grad = losses(torch.zeros(2, 3), target, ForwardCorrection(), 1.0, engine, **options)
    assert_close(loss, torch.tensor([0.0, math.log(3)]))
    assert not grad.any()


@pytest.mark.parametrize("formula", EACH, ids=repr)
def test_both_ends_are_allowed(formula: Formula) -> None:
    low, high, open_ = formula.strengths
    for eps in {max(low, -1e3), 0.999 if open_ else min(high, 1e3)}:
        for engine in ENGINES:
            loss, grad = losses(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1]), formula, eps, engine)
            assert loss.isfinite().all()
            assert grad.isfinite().all()


@dataclass(frozen=True)
class Overlap(Formula):
    """What the prior gives the label, and nothing else."""

    overlap: ClassVar[bool] = True

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        assert s.overlap is not None
        return s.overlap + 0 * s.lse * eps


def test_what_a_prior_gives_the_label() -> None:
    z, target = torch.zeros(2, 3).double(), torch.tensor([0, 2])
    rows = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.9, 0.0], [0.4, 0.2, 0.4]], dtype=torch.float64)

    def found(prior: Any, **options: Any) -> list[float]:
        given = {"formula": Overlap(), "prior": prior, "reduction": "none", **options}
        return cross_entropy(z, target, **given).tolist()

    assert found(None) == pytest.approx([1 / 3, 1 / 3])
    assert found(rows[0]) == pytest.approx([0.5, 0.3])
    assert found(rows) == pytest.approx([0.5, 0.4])
    assert found(rows, off_target="others") == [0, 0]
    assert found(priors.per_sample(rows[1:])) == pytest.approx([0.1, 0.4])
    assert found(priors.per_sample(rows[:2, :2], torch.tensor([[0, 0], [1, 0]]))) == pytest.approx([1, 0])
    with pytest.raises(ValueError, match="this formula takes one label for each row with such a prior"):
        cross_entropy(z, mixed(target, target, 0.5), formula=Overlap(), prior=rows)


def test_modules_are_copied_and_saved_with_their_formula(case: tuple[Formula, float]) -> None:
    formula, eps = case
    z, target = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1])
    for made in (
        CrossEntropyLoss(label_smoothing=eps, formula=formula),
        LinearCrossEntropyLoss(3, 3, label_smoothing=eps, formula=formula),
    ):
        for copied in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert copied.formula == formula
            assert_close(copied(z, target), made(z, target))
        assert repr(formula) in repr(made) or formula == LabelSmoothing()
