"""First and second derivatives of every formula at the edges of its range and far from the label, and the
one-sided derivatives by a strength that is learned, against finite differences in 700 digits."""

from functools import cache
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import functional, schedules
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
from tests import oracle
from tests.cases import ENGINES

cross_entropy: Any = functional.cross_entropy

mpf: Any = mpmath.mpf  # which has no types
STEP = mpf(10) ** -150
LOGITS = [(1.0, 0.0, -1.0), (0.3, 0.1), (-91.0, 0.0, 1.0), (91.0, 0.0, 1.0), (-200.0, 0.0)]  # label 0
STRENGTHS: dict[Formula, list[float]] = {
    LabelSmoothing(): [0.0, 0.1, 1.0],
    NegativeSmoothing(clip=5.0): [-0.4, 0.1, 1.0],
    MaxSup(): [0.0, 0.2, 3.0],
    MarginSmoothing(margin=0.15): [0.0, 0.2, 3.0],
    MarginSmoothing(margin=0.15, squared=True): [0.0, 0.2],
    ConfidencePenalty(): [0.0, 0.1, 2.0],
    LabelRelaxation(): [0.0, 0.1, 1.0],
    Focal(gamma=2.0): [0.0, 0.1, 1.0],
    ForwardCorrection(): [0.0, 1e-6, 0.1, 1.0],
    BackwardCorrection(): [0.0, 0.1, 0.9],
}
CASES = [(formula, eps) for formula, strengths in STRENGTHS.items() for eps in strengths]


def loss(formula: Formula, z: list[Any], eps: Any) -> Any:
    """Of label 0, toward the uniform prior."""
    K, lse = len(z), mpmath.log(mpmath.fsum(map(mpmath.exp, z)))
    hard, spread, q = lse - z[0], lse - mpmath.fsum(z) / K, mpmath.exp(z[0] - lse)
    match formula:
        case LabelSmoothing():
            return (1 - eps) * hard + eps * spread
        case NegativeSmoothing(clip):
            return hard + eps * (min(spread - hard, clip) if eps < 0 else spread - hard)
        case MaxSup():
            return hard + eps * (max(z) - mpmath.fsum(z) / K)
        case MarginSmoothing(margin, squared):
            beyond = [max(0, max(z) - z_k - margin) for z_k in z]
            return hard + eps * mpmath.fsum(b**2 if squared else b for b in beyond) / K
        case ConfidencePenalty():
            return hard + eps * mpmath.fsum(mpmath.exp(z_k - lse) * (z_k - lse) for z_k in z)
        case LabelRelaxation():
            if q >= 1 - eps:
                return mpf(0)
            wrong = mpmath.fsum(mpmath.exp(z_k - lse) for z_k in z[1:])
            return (1 - eps) * (mpmath.log(1 - eps) + hard) + (eps * mpmath.log(eps / wrong) if eps else 0)
        case Focal(gamma):
            return (1 - q) ** gamma * ((1 - eps) * hard + eps * spread)
        case ForwardCorrection():
            return -mpmath.log((1 - eps) * q + eps / K)
        case BackwardCorrection():
            wrong = -eps / (1 - eps)
            return (1 - wrong) * hard + wrong * spread
    raise AssertionError(formula)


def moved(z: list[Any], *steps: tuple[int, int]) -> list[Any]:
    return [z_k + STEP * sum(s for j, s in steps if j == k) for k, z_k in enumerate(z)]


@cache
def differences(formula: Formula, logits: tuple[float, ...], eps: float) -> tuple[Tensor, Tensor]:
    """The gradient by the logits and the gradient of that, by central differences."""
    with mpmath.workdps(700):
        z, e, each = [mpf(x) for x in logits], mpf(eps), range(len(logits))

        def f(*steps: tuple[int, int]) -> Any:
            return loss(formula, moved(z, *steps), e)

        first = [float((f((j, 1)) - f((j, -1))) / (2 * STEP)) for j in each]
        second = [
            [
                float(
                    (f((j, 1), (k, 1)) - f((j, 1), (k, -1)) - f((j, -1), (k, 1)) + f((j, -1), (k, -1)))
                    / (4 * STEP**2)
                )
                for k in each
            ]
            for j in each
        ]
    return torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)


@pytest.mark.parametrize("logits", LOGITS[:2], ids=str)
@pytest.mark.parametrize(("formula", "eps"), CASES, ids=lambda x: str(x))
def test_equations_are_those_of_the_oracle(formula: Formula, eps: float, logits: tuple[float, ...]) -> None:
    """Two independent readings of the papers agree."""
    z = torch.tensor([logits], dtype=torch.float64, requires_grad=True)
    value, _ = oracle.cross_entropy(z, torch.tensor([0]), formula=formula, label_smoothing=eps)
    with mpmath.workdps(50):
        expected = float(loss(formula, [mpf(x) for x in logits], mpf(eps)))
    assert_close(value.item(), expected)
    assert_close(torch.autograd.grad(value, z)[0][0], differences(formula, logits, eps)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("logits", LOGITS, ids=str)
@pytest.mark.parametrize(("formula", "eps"), CASES, ids=lambda x: str(x))
def test_by_the_logits(
    formula: Formula, eps: float, logits: tuple[float, ...], engine: str, dtype: torch.dtype
) -> None:
    z, y = torch.tensor([logits], dtype=dtype, requires_grad=True), torch.tensor([0])
    strength = torch.tensor(eps, dtype=dtype)
    value = cross_entropy(z, y, label_smoothing=strength, formula=formula, engine=engine)
    (first,) = torch.autograd.grad(value, z, create_graph=True)
    second = torch.stack([torch.autograd.grad(g, z, retain_graph=True)[0][0] for g in first[0]])
    # The strength itself is of that type.
    by_z, by_both = differences(formula, logits, float(strength))
    rtol, atol = (1e-4, 2e-6) if dtype == torch.float32 else (1e-9, 1e-12)
    assert_close(first[0].detach().double(), by_z, rtol=rtol, atol=atol)
    assert_close(second.double(), by_both, rtol=rtol, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("logits", LOGITS, ids=str)
@pytest.mark.parametrize(("formula", "eps"), CASES, ids=lambda x: str(x))
def test_by_the_strength(
    formula: Formula, eps: float, logits: tuple[float, ...], engine: str, dtype: torch.dtype
) -> None:
    """From inside, at an edge of the range."""
    z, y = torch.tensor([logits], dtype=dtype), torch.tensor([0])
    strength = torch.tensor(eps, dtype=dtype, requires_grad=True)
    value = cross_entropy(z, y, label_smoothing=strength, formula=formula, engine=engine)
    (found,) = torch.autograd.grad(value, strength)
    with mpmath.workdps(700):
        e, x = mpf(float(strength.detach())), [mpf(x) for x in logits]
        step = STEP if e < formula.strengths.high else -STEP
        expected = float((loss(formula, x, e + step) - loss(formula, x, e)) / step)
    if isinstance(formula, LabelRelaxation) and eps == 0:  # eps log eps, unless q_y is 1 in this type
        expected = -torch.inf if z[0].softmax(0)[0] < 1 else 0.0
    elif abs(expected) > torch.finfo(dtype).max / 100:
        assert found.isfinite()
        assert found.sign() == torch.tensor(expected).sign()
        return
    rtol = 1e-4 if dtype == torch.float32 else 1e-9
    assert_close(found.double().item(), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("eps", [0.0, 0.3, 1.0])
def test_of_the_divergence(eps: float, K: int) -> None:
    """The entropy of the target has an infinite derivative where eps is 0, unless there is one class."""
    strength = torch.tensor(eps, dtype=torch.float64, requires_grad=True)
    z = torch.arange(K, dtype=torch.float64).unsqueeze(0)
    value = functional.label_smoothing_loss(z, torch.tensor([0]), strength)
    (found,) = torch.autograd.grad(value, strength)
    if K == 1:
        assert found == 0
    elif eps == 0:
        assert found == -torch.inf
    else:
        p = (1 - eps) * torch.eye(K, dtype=torch.float64)[0] + eps / K
        by_p = p.log() + 1 - z[0].log_softmax(0)
        direction = 1 / K - torch.eye(K, dtype=torch.float64)[0]
        assert_close(found, torch.where(direction == 0, 0.0, by_p * direction).sum())


@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("eps", [0.0, 0.3, 1.0])
def test_of_the_binary_loss(eps: float, off_target: str) -> None:
    binary: Any = functional.binary_cross_entropy_with_logits
    x = torch.tensor([0.3, -200.0, 200.0], dtype=torch.float64, requires_grad=True)
    t = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    strength = torch.tensor(eps, dtype=torch.float64, requires_grad=True)
    value = binary(x, t, label_smoothing=strength, off_target=off_target, reduction="sum")
    by_x, by_eps = torch.autograd.grad(value, (x, strength), create_graph=True)
    toward = 0.5 if off_target == "all" else 1 - t
    p, q = t + eps * (toward - t), x.detach().sigmoid()
    assert_close(by_x.detach(), q - p)
    assert_close(by_eps.detach(), -((toward - t) * x.detach()).sum())
    (again,) = torch.autograd.grad(by_x.sum(), x)
    assert_close(again, q * (1 - q))


def test_a_schedule_at_its_edge_is_differentiable() -> None:
    strength = schedules.constant(1.0).eps
    assert strength.requires_grad is False
    z = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
    value = cross_entropy(z, torch.tensor([0]), label_smoothing=strength, formula=ForwardCorrection())
    (first,) = torch.autograd.grad(value, z, create_graph=True)
    assert torch.autograd.grad(first.square().sum(), z)[0].isfinite().all()
