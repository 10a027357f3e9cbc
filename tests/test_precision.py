"""In every type a loss is at most twice as far from the truth as its equation, written out in plain torch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from labelsmooth import functional
from labelsmooth.formulas import Formula
from tests import cases, oracle
from tests.cases import ENGINES, FEW, FEW_ROWS, FORMULAS, MIXED, Case, Head, random

SHORT = [torch.float32, torch.bfloat16, torch.float16]
N, K = 24, 7


def logits(dtype: torch.dtype, scale: float) -> Tensor:
    """Without the ties that short types have, at which the equations have no one gradient."""
    z = (scale * random(4 * N, K)).to(dtype)
    top = z.topk(2).values
    return z[top[:, 0] != top[:, 1]][:N]


def assert_near(ours: Tensor, naive: Tensor, truth: Tensor, free: float | None) -> None:
    """Ours is finite where the naive one is not: a power's derivative at 0, or 0 log 0. If a number is free,
    as some error is of luck, each row is held to its own."""
    assert ours.isfinite().all()
    ours, naive, truth = (
        x.flatten() if free is None else x.reshape(len(x), -1) for x in (ours, naive, truth)
    )
    worst = (naive.double() - truth).masked_fill(~naive.isfinite(), 0.0).abs().amax(-1)
    digits = 4 * torch.finfo(ours.dtype).eps * truth.abs().amax(-1) + (free or 0.0)
    error = (ours.double() - truth).masked_fill(~naive.isfinite(), 0.0).abs().amax(-1)
    assert (error <= 2 * worst + digits).all()


def answer(loss: Tensor, leaf: Tensor) -> tuple[Tensor, Tensor]:
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def assert_no_rougher(z: Tensor, target: Any, free: float | None = None, **options: Any) -> None:
    options |= {"reduction": "none"}
    truth, naive = (
        answer(oracle.cross_entropy(leaf.to(kind), target, **options)[0], leaf)
        for leaf, kind in (
            (z.double().requires_grad_(), torch.float64),
            (z.clone().requires_grad_(), torch.float32),
        )
    )
    case = Case("", z, target, options, Head(z, torch.eye(z.size(-1), dtype=z.dtype)), chunk=4)
    for engine in (*ENGINES, "linear"):  # of a head that is the identity
        if engine == "dense" and case.refused_by_dense:
            continue
        leaf = z.clone().requires_grad_()
        linear = engine == "linear"
        loss = (
            case.of_head(leaf, case.head.weight) if linear and case.head else case.loss(leaf, engine=engine)
        )
        found = answer(loss, leaf)
        assert (found[0].dtype, found[1].dtype) == (torch.float32, z.dtype)
        for ours, other, exact in zip(found, naive, truth, strict=True):
            assert_near(ours, other, exact, free)


# Small logits, those of a trained network, and some whose probabilities are 0 or 1 in every type.
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("name", FORMULAS)
def test_formulas(name: str, dtype: torch.dtype, scale: float) -> None:
    formula, eps = FORMULAS[name]
    z = logits(dtype, scale)
    target = torch.arange(len(z)) % K
    target[::2] = z[::2].argmax(-1)
    assert_no_rougher(z, target, label_smoothing=eps, formula=formula)


# Far from the target, and so near that the gradient is what is left of two large numbers.
@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("prior", [None, FEW], ids=["uniform", "few"])
def test_mixed_labels(prior: Any, near: bool, dtype: torch.dtype) -> None:
    t, _ = oracle.whole_target(MIXED, cases.K, -100)
    p = 0.9 * t + 0.1 * (1 / cases.K if prior is None else FEW_ROWS)
    z = ((p + 1e-2).log() if near else 3 * cases.Z).to(dtype)
    assert_no_rougher(z, MIXED, 1e-7, label_smoothing=0.1, prior=prior)


@pytest.mark.parametrize(
    "formula", {repr(f): f for f, _ in FORMULAS.values() if f.strengths.low == 0}.values(), ids=repr
)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("eps", [0.0, 1e-8, 0.3, 0.99])
def test_rows_without_doubt_have_finite_gradients(formula: Formula, engine: str, eps: float) -> None:
    """Right beyond what the type can tell from certainty, nearly so, and as wrong."""
    cross_entropy: Any = functional.cross_entropy
    z = torch.tensor([[0.0, -50, -30], [0, -17, -16.5], [0, -9, -12], [-40, 0, 0], [1, 1, 1], [-9e3, 6e3, 0]])
    for dtype in (torch.float32, torch.float16):
        leaf = z.to(dtype).requires_grad_()
        given = {"label_smoothing": eps, "formula": formula, "reduction": "none", "engine": engine}
        loss, by_z = answer(cross_entropy(leaf, torch.zeros(len(z), dtype=torch.long), **given), leaf)
        assert loss.isfinite().all()
        assert by_z.isfinite().all()
