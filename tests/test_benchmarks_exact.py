"""What the benchmarks check their entrants against is right, and tells one loss from another."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.exact import (
    MARGIN,
    Exact,
    answer,
    confidence_penalized,
    disagreement,
    entropy,
    max_suppressed,
    smoothed,
    within_a_margin,
)
from benchmarks.providers import DENSE, GENERAL, PLAIN, TORCH


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_the_exact_answer_is_torchs(eps: float):
    """Over more rows than are done at a time, from logits and from a head."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(7, (300,), generator=generator)
    h = torch.randn(300, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    z = (h @ weight.T).detach().requires_grad_()
    for leaves, logits in (((z,), z), ((h, weight), h @ weight.T)):
        loss, gradients = answer(leaves, target, eps)
        expected = F.cross_entropy(logits, target, label_smoothing=eps)
        torch.testing.assert_close(loss, expected.item())
        torch.testing.assert_close(gradients, torch.autograd.grad(expected, leaves))


def by_hand(z: Tensor, y: int, excess: Callable[[float], float], spread: float) -> float:
    """The loss of one row from plain numbers: penalties on classes below the largest, and on certainty."""
    logits = z.tolist()
    q = [math.exp(x) / sum(map(math.exp, logits)) for x in logits]
    below = sum(excess(max(logits) - x) for x in logits) / len(logits)
    return -math.log(q[y]) + 0.2 * (below + spread * sum(p * math.log(p) for p in q))


@pytest.mark.parametrize(
    ("exact", "excess", "spread"),
    [
        (max_suppressed, lambda d: d, 0.0),
        (within_a_margin, lambda d: max(0.0, d - MARGIN), 0.0),
        (confidence_penalized, lambda d: 0.0, 1.0),
    ],
    ids=["MaxSup", "margin", "confidence"],
)
def test_the_exact_formulas(exact: Exact, excess: Callable[[float], float], spread: float):
    z = torch.randn(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([1, 4, 6])
    expected = [by_hand(row, int(i), excess, spread) for row, i in zip(z, y, strict=True)]
    torch.testing.assert_close(exact(z, y, 0.2).tolist(), expected)


@pytest.mark.parametrize("name", GENERAL)
def test_the_general_path_is_checked_against_its_own_loss(name: str):
    z = torch.randn(300, 100, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(300) % 100
    provider = GENERAL[name]
    value = provider.build()(z, target)
    found = torch.autograd.grad(value, z)
    assert disagreement(value, found, *answer((z,), target, provider.eps, provider.exact)) is None
    other = smoothed if provider.exact is not smoothed else max_suppressed
    assert disagreement(value, found, *answer((z,), target, provider.eps, other)) is not None


def test_entropy():
    assert entropy(0.0, 5) == 0
    assert entropy(1.0, 5) == pytest.approx(math.log(5))
    assert entropy(0.5, 2) == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


@pytest.mark.parametrize("name", [TORCH, PLAIN])
def test_another_smoothing_is_a_wrong_answer(name: str):
    z = torch.randn(64, 1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    target = torch.arange(64)
    loss, gradients = answer((z,), target, DENSE[name].eps)
    value = DENSE[name].build()(z, target)
    ours = torch.autograd.grad(value, z)
    assert disagreement(value, ours, loss, gradients) is None
    assert "wrong loss" in str(disagreement(value * 1.01, ours, loss, gradients))
    assert "wrong gradient" in str(disagreement(value, (ours[0] * 1.01,), loss, gradients))
    assert "wrong loss" in str(disagreement(value * torch.nan, ours, loss, gradients))
    assert "wrong gradient" in str(disagreement(value, (ours[0] * torch.nan,), loss, gradients))
