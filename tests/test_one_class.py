"""A distribution over one class cannot change: its gradient is exactly 0, or Adam makes steps of it."""

import itertools
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

import labelsmooth
from labelsmooth import functional, mixed, priors
from labelsmooth.engines import available
from labelsmooth.formulas import (
    BackwardCorrection,
    ConfidencePenalty,
    Focal,
    ForwardCorrection,
    LabelRelaxation,
    LabelSmoothing,
    MarginSmoothing,
    MaxSup,
    NegativeSmoothing,
)

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
N = 4
STRENGTHS = [0.1, 0.3, 1 / 3, 0.7, 0.999]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ENGINES = ["reference", *(["dense"] if available()["dense"].present else [])]
FORMULAS = [LabelSmoothing(), NegativeSmoothing(), MaxSup(), MarginSmoothing(margin=1), ConfidencePenalty()]
FORMULAS += [LabelRelaxation(), Focal(), ForwardCorrection(), BackwardCorrection()]


def only(K: int, dtype: torch.dtype, rows: int = N) -> tuple[Tensor, Tensor]:
    """Logits of which one class is left in each row, and that class."""
    y = torch.arange(rows) % K
    z = torch.full((rows, K), -torch.inf, dtype=dtype)
    z[torch.arange(rows), y] = torch.linspace(-3, 2.3, rows, dtype=dtype)
    return z.requires_grad_(), y


def prior_of(K: int) -> Tensor:
    p = torch.rand(K, generator=torch.Generator().manual_seed(K)) + 0.1
    return p / p.sum()


OPTIONS: dict[str, Any] = {
    "plain": lambda K: {},
    "prior": lambda K: {"prior": prior_of(K)},
    "matrix": lambda K: {"prior": torch.stack([prior_of(K)] * K)},
    "weight": lambda K: {"weight": torch.linspace(0.3, 1.7, K)},
    "weight by sample": lambda K: {"weight": torch.linspace(0.3, 1.7, K), "weighting": "sample"},
    "weight and prior": lambda K: {"weight": torch.linspace(0.3, 1.7, K), "prior": prior_of(K)},
    "sample_weight": lambda K: {"sample_weight": torch.linspace(0.3, 1.7, N)},
    "denominator": lambda K: {"denominator": 7.0},
    "per sample": lambda K: {"prior": priors.per_sample(torch.stack([prior_of(K)] * N))},
    "few": lambda K: {
        "prior": priors.per_sample(prior_of(K).expand(N, K).contiguous(), torch.arange(K).expand(N, K))
    },
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("K", [1, 3, 5, 40])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPTIONS)
def test_label_smoothing(name: str, engine: str, dtype: torch.dtype, K: int, reduction: str) -> None:
    z, y = only(K, dtype)
    options = OPTIONS[name](K)
    if reduction != "mean" and "denominator" in options:
        pytest.skip("a denominator goes with a mean")
    for eps in (*STRENGTHS, torch.tensor(STRENGTHS[:N])):
        loss = cross_entropy(z, y, label_smoothing=eps, engine=engine, reduction=reduction, **options)
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert loss.abs().max() == 0, (eps, loss)
        assert grad.count_nonzero() == 0, (eps, grad)


@pytest.mark.parametrize("K", [1, 5])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("formula", FORMULAS, ids=lambda x: type(x).__name__)
def test_every_formula(formula: Any, engine: str, K: int) -> None:
    for dtype, eps in itertools.product(DTYPES, STRENGTHS[:-1]):
        z, y = only(K, dtype)
        loss = cross_entropy(z, y, label_smoothing=eps, formula=formula, engine=engine)
        (grad,) = torch.autograd.grad(loss, z)
        assert grad.count_nonzero() == 0, (dtype, eps, grad)


def one_hot(y: Tensor, K: int, dtype: torch.dtype) -> Tensor:
    return torch.nn.functional.one_hot(y, K).to(torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("K", [1, 5, 12])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["plain", "prior", "per sample", "few"])
def test_several_labels(name: str, weighted: bool, engine: str, K: int) -> None:
    """That are the same, or of which one has no share, and class probabilities that leave no doubt."""
    weight = torch.linspace(0.3, 1.7, K) if weighted else None
    for dtype, eps in itertools.product(DTYPES, STRENGTHS):
        z, y = only(K, dtype)
        none = mixed((y + 1) % K, y, 0.0)
        for target in (mixed(y, y, 0.3), mixed(y, y, 1 / 3), one_hot(y, K, dtype), none):
            options = OPTIONS[name](K)
            loss = cross_entropy(z, target, weight, label_smoothing=eps, engine=engine, **options)
            (grad,) = torch.autograd.grad(loss, z)
            assert grad.count_nonzero() == 0, (dtype, eps, target, grad)


@pytest.mark.skipif(not INTERPRETED, reason="has a process to itself, as in tests/engines/test_triton.py")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_triton(name: str, dtype: torch.dtype) -> None:
    K = 49  # of which (1 / K) * K is not 1
    for eps in (0.1, 0.7, 0.999):
        z, y = only(K, dtype)
        targets = [y]
        if name in ("plain", "prior", "weight and prior", "per sample", "few"):
            targets += [mixed(y, y, 0.3), one_hot(y, K, dtype)]
        for target in targets:
            loss = cross_entropy(z, target, label_smoothing=eps, engine="triton", **OPTIONS[name](K))
            (grad,) = torch.autograd.grad(loss, z)
            assert loss == 0
            assert grad.count_nonzero() == 0, (eps, target, grad)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("triton") is None or INTERPRETED, reason="triton is not installed, or interprets"
)
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    run = subprocess.run(
        [*command, f"{__file__}::test_triton"], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("K", [1, 5])
@pytest.mark.parametrize("shape", ["rows", "tiles", "map"])
def test_other_shapes(shape: str, K: int) -> None:
    """Rows and pixels that are computed beside one another, and the divergence."""
    for dtype, eps in itertools.product(DTYPES, STRENGTHS):
        z, y = only(K, dtype, rows={"rows": 7, "tiles": 200, "map": 256}[shape])
        if shape == "map":
            z = z.detach().reshape(1, 16, 16, K).movedim(-1, 1).contiguous().requires_grad_()
            y = y.reshape(1, 16, 16)
        losses = [
            cross_entropy(z, y, label_smoothing=eps),
            cross_entropy(z, y, label_smoothing=torch.tensor(eps)),
        ]
        losses += [functional.label_smoothing_loss(z, y, eps, dim=1)]
        losses += [cross_entropy(z, y, label_smoothing=eps, prior=prior_of(K))]
        for loss in losses:
            (grad,) = torch.autograd.grad(loss, z)
            assert grad.count_nonzero() == 0, (dtype, eps, grad.abs().max())


@pytest.mark.parametrize("engine", ["linear", "reference"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_head(engine: str, reduction: str) -> None:
    for dtype, eps in itertools.product(DTYPES, STRENGTHS):
        h = torch.randn(N, 3, dtype=torch.float32).to(dtype).requires_grad_()
        W = torch.randn(1, 3).to(dtype).requires_grad_()
        y = torch.zeros(N, dtype=torch.long)
        loss = linear_cross_entropy(h, W, y, label_smoothing=eps, engine=engine, reduction=reduction)
        for grad in torch.autograd.grad(loss.sum(), (h, W)):
            assert grad.count_nonzero() == 0, (dtype, eps, grad)


def test_an_optimiser_stays_where_it_is() -> None:
    W = torch.randn(1, 3, requires_grad=True)
    before = W.detach().clone()
    optimizer = torch.optim.Adam([W], lr=0.1)
    criterion = labelsmooth.CrossEntropyLoss(label_smoothing=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        criterion(torch.randn(8, 3) @ W.T, torch.zeros(8, dtype=torch.long)).backward()
        optimizer.step()
    assert W.equal(before)
