"""In every type a formula is at most twice as far from the truth as its equation, written in plain torch."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from labelsmooth import functional
from labelsmooth.engines import available
from labelsmooth.formulas import Formula
from tests.formulas import oracle
from tests.formulas.oracle import CASES

cross_entropy: Any = functional.cross_entropy
ENGINES = ["reference", *(["dense"] if available()["dense"].present else [])]
N, K = 24, 7


def log_likelihood(z: Tensor, y: Tensor) -> Tensor:
    return z.log_softmax(-1).gather(-1, y[:, None])[:, 0]


def smoothing(z: Tensor, y: Tensor, eps: float) -> Tensor:
    log_q = z.log_softmax(-1)
    return -(1 - eps) * log_q.gather(-1, y[:, None])[:, 0] - eps * log_q.mean(-1)


def negative(clip: float) -> Callable[..., Tensor]:
    def loss(z: Tensor, y: Tensor, eps: float) -> Tensor:
        above = z.gather(-1, y[:, None])[:, 0] - z.mean(-1)
        return -log_likelihood(z, y) + eps * (above.clamp(max=clip) if eps < 0 else above)

    return loss


def maxsup(z: Tensor, y: Tensor, eps: float) -> Tensor:
    return -log_likelihood(z, y) + eps * (z.amax(-1) - z.mean(-1))


def margin(z: Tensor, y: Tensor, eps: float) -> Tensor:
    return -log_likelihood(z, y) + eps * (z.amax(-1, keepdim=True) - z - 2).relu().mean(-1)


def squared(z: Tensor, y: Tensor, eps: float) -> Tensor:
    return -log_likelihood(z, y) + eps * (z.amax(-1, keepdim=True) - z - 2).relu().square().mean(-1)


def confidence(z: Tensor, y: Tensor, eps: float) -> Tensor:
    log_q = z.log_softmax(-1)
    return -log_likelihood(z, y) + eps * (log_q.exp() * log_q).sum(-1)


def threshold(z: Tensor, y: Tensor, eps: float) -> Tensor:
    log_q = z.log_softmax(-1)
    return -log_likelihood(z, y) + eps * (0.9 + (log_q.exp() * log_q).sum(-1)).relu()


def relaxation(z: Tensor, y: Tensor, eps: float) -> Tensor:
    """As the authors write it, with the target that is nearest to the model."""
    q = z.softmax(-1)
    of_label = q.gather(-1, y[:, None])
    with torch.no_grad():
        credal = eps * q / (1 - of_label)
        credal = credal.scatter(-1, y[:, None], 1 - eps)
    divergence = (credal * (credal.log() - z.log_softmax(-1))).sum(-1)
    return torch.where(of_label[:, 0] >= 1 - eps, 0.0, divergence)


def focal(gamma: float) -> Callable[..., Tensor]:
    def loss(z: Tensor, y: Tensor, eps: float) -> Tensor:
        log_q = z.log_softmax(-1)
        of_label = log_q.gather(-1, y[:, None])[:, 0]
        return (1 - of_label.exp()) ** gamma * -((1 - eps) * of_label + eps * log_q.mean(-1))

    return loss


def forward(z: Tensor, y: Tensor, eps: float) -> Tensor:
    return -((1 - eps) * log_likelihood(z, y).exp() + eps / z.size(-1)).log()


def backward(z: Tensor, y: Tensor, eps: float) -> Tensor:
    return smoothing(z, y, -eps / (1 - eps))


NAIVE: dict[str, Callable[..., Tensor]] = {
    "smoothing": smoothing,
    "negative": negative(math.inf),
    "negative-clipped": negative(1.5),
    "negative-positive": negative(1.5),
    "maxsup": maxsup,
    "margin": margin,
    "margin-squared": squared,
    "confidence": confidence,
    "confidence-threshold": threshold,
    "relaxation": relaxation,
    "focal": focal(3.0),
    "focal-smoothed": focal(0.5),
    "forward": forward,
    "backward": backward,
}


def logits(dtype: torch.dtype, scale: float) -> Tensor:
    """Without the ties that short types have, at which the equations have no one gradient."""
    generator = torch.Generator().manual_seed(1)
    z = (scale * torch.randn(4 * N, K, dtype=torch.float64, generator=generator)).to(dtype)
    top = z.topk(2).values
    return z[top[:, 0] != top[:, 1]][:N]


def assert_near(ours: Tensor, naive: Tensor, truth: Tensor) -> None:
    """Ours is finite where the naive one is not: a power's derivative at 0, or 0 log 0."""
    assert ours.isfinite().all()
    known = naive.isfinite()
    digits = 4 * torch.finfo(ours.dtype).eps * truth.abs().amax()
    worst = 2 * (naive.double() - truth)[known].abs().amax() + digits
    assert (ours.double() - truth)[known].abs().amax() <= worst


# Small logits, those of a trained network, and some whose probabilities are 0 or 1 in every type.
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_error(name: str, dtype: torch.dtype, scale: float) -> None:
    formula, eps = CASES[name]
    z = logits(dtype, scale)
    target = torch.arange(len(z)) % K
    target[::2] = z[::2].argmax(-1)
    truth = oracle.cross_entropy(formula, z.double(), target, lambda i: eps, reduction="none")
    leaf = z.clone().requires_grad_()
    naive = NAIVE[name](leaf, target, eps)
    (by_naive,) = torch.autograd.grad(naive.sum(), leaf)
    for engine in ENGINES:
        leaf = z.clone().requires_grad_()
        options = {"label_smoothing": eps, "formula": formula, "reduction": "none", "engine": engine}
        loss = cross_entropy(leaf, target, **options)
        (by_z,) = torch.autograd.grad(loss.sum(), leaf)
        assert loss.dtype == torch.float32
        assert by_z.dtype == dtype
        assert_near(loss, naive, truth.loss)
        assert_near(by_z, by_naive, truth.grad)


@pytest.mark.parametrize("name", CASES)
def test_equations_are_those_of_the_oracle(name: str) -> None:
    """Two independent readings of the papers agree."""
    formula, eps = CASES[name]
    z = logits(torch.float64, 3.0)
    target = torch.arange(len(z)) % K
    truth = oracle.cross_entropy(formula, z, target, lambda i: eps, reduction="none")
    leaf = z.clone().requires_grad_()
    naive = NAIVE[name](leaf, target, eps)
    (by_z,) = torch.autograd.grad(naive.sum(), leaf)
    torch.testing.assert_close((naive, by_z), (truth.loss, truth.grad))


@pytest.mark.parametrize(
    "formula", {repr(f): f for f, _ in CASES.values() if f.strengths.low == 0}.values(), ids=repr
)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.3, 0.99])
def test_rows_without_doubt_have_finite_gradients(formula: Formula, engine: str, eps: float) -> None:
    """Right beyond what the type can tell from certainty, nearly so, and as wrong."""
    z = torch.tensor([[0.0, -50, -30], [0, -17, -16.5], [0, -9, -12], [-40, 0, 0], [1, 1, 1], [-9e3, 6e3, 0]])
    for dtype in (torch.float32, torch.float16):
        leaf = z.to(dtype).requires_grad_()
        target = torch.zeros(len(z), dtype=torch.long)
        loss = cross_entropy(
            leaf, target, label_smoothing=eps, formula=formula, reduction="none", engine=engine
        )
        (by_z,) = torch.autograd.grad(loss.sum(), leaf)
        assert loss.isfinite().all()
        assert by_z.isfinite().all()
