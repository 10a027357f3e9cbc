"""Every formula for any number of classes, wherever they lie; what else it is given is in the batteries."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, functional
from labelsmooth.formulas import Formula, MarginSmoothing, MaxSup
from tests import oracle
from tests.cases import ENGINES, FORMULAS, distribution, random

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here

N, K = 7, 5
HARD = torch.tensor([0, 1, 3, 4, 0, 1, 3])


@pytest.fixture(params=FORMULAS)
def case(request: pytest.FixtureRequest) -> tuple[Formula, float]:
    return FORMULAS[request.param]


def both(loss: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    """The loss, and its gradient by the logits."""
    leaf = z.clone().requires_grad_()
    found = loss(leaf)
    return found.detach(), torch.autograd.grad(found, leaf)[0]


def truth(z: Tensor, target: Tensor, formula: Formula, eps: float, **options: Any) -> tuple[Tensor, Tensor]:
    options |= {"label_smoothing": eps, "formula": formula}
    return both(lambda z: oracle.cross_entropy(z, target, **options)[0], z)


def ours(z: Tensor, target: Tensor, formula: Formula, eps: float, **options: Any) -> tuple[Tensor, Tensor]:
    options |= {"label_smoothing": eps, "formula": formula}
    return both(lambda z: cross_entropy(z, target, **options), z)


@pytest.mark.parametrize("classes", [1, 2, 1024, 1025, 2100])
def test_any_number_of_classes(case: tuple[Formula, float], classes: int) -> None:
    """The kernel works in blocks of 1024 classes."""
    z = 3 * random(2, classes)
    z[1, classes // 2] += 20
    target = torch.tensor([classes - 1, classes // 2])
    for prior in (None, distribution(classes)):
        expected = truth(z, target, *case, prior=prior)
        for engine in ENGINES:
            assert_close(ours(z, target, *case, prior=prior, engine=engine), expected)


def test_classes_in_the_middle(case: tuple[Formula, float]) -> None:
    z, target = 2 * random(2, K, 3), torch.tensor([[0, 4, -100], [1, 3, 2]])
    assert_close(ours(z, target, *case), truth(z, target, *case))


@pytest.mark.parametrize("offset", [1e4, -1e6])
def test_a_common_offset_costs_no_precision(case: tuple[Formula, float], offset: float) -> None:
    z = (8 * random(N, K)).round() / 4  # exact with the offset, in float32 too
    found = [x.double() for x in ours((z + offset).float(), HARD, *case)]
    assert_close(found, list(truth(z, HARD, *case)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("formula", [MaxSup(), MarginSmoothing(margin=1), MarginSmoothing(1.0, squared=True)])
def test_of_equal_maxima_the_first_is_pulled_down(formula: Formula) -> None:
    z = torch.tensor([[1.0, 3.0, 3.0, -2.0, 3.0]] * 2, dtype=torch.float64)
    target = torch.tensor([0, 2])
    expected = truth(z, target, formula, 0.5)
    pull = expected[1] - both(lambda z: cross_entropy(z, target), z)[1]
    assert (pull[:, 1] > 0.05).all()
    assert_close(pull[:, [2, 4]], torch.zeros(2, 2, dtype=torch.float64))
    for engine in ENGINES:
        assert_close(ours(z, target, formula, 0.5, engine=engine), expected)


def test_eval_of_a_module_is_the_plain_loss(case: tuple[Formula, float]) -> None:
    formula, eps = case
    z = 2 * random(N, K)
    criterion = CrossEntropyLoss(label_smoothing=eps, formula=formula, train_only=True)
    smoothed, nll = oracle.cross_entropy(z, HARD, label_smoothing=eps, formula=formula)
    assert_close(criterion(z, HARD), smoothed)
    assert_close(criterion.eval()(z, HARD), nll)
