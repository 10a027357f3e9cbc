"""What the tests of the Triton engine share: logits, measures of every kind, and what counts as equal."""

import os
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from labelsmooth._engines import gpu as gpu
from labelsmooth._engines import triton as triton
from tests.engines.private import (
    DIFFERENTIABLE,
    STATISTICS,
    Measures,
    compute_dtype,
    reference,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
INF, NAN = float("inf"), float("nan")
BLOCK = 16  # of most tests, so that few classes are several blocks


def logits(*shape: int, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return (3 * torch.randn(*shape, generator=generator, dtype=torch.float64)).to(device, dtype)


def measures_for(
    z: Tensor,
    *,
    soft: bool = False,
    labels: int = 0,
    prior: str | None = None,
    weight: bool = False,
    exclude: bool = False,
    margin: float | None = None,
    squared: bool = False,
    spread: bool = False,
) -> Measures:
    K = z.size(-1)
    real = compute_dtype(z)
    generator = torch.Generator().manual_seed(K)

    def positive(*shape: int) -> Tensor:
        return (torch.rand(*shape, generator=generator, dtype=torch.float64) + 0.1).to(z.device, real)

    # Class probabilities need not sum to 1.
    rows = z.shape[:-1]
    labelled = (*rows, labels) if labels else rows
    target = positive(*z.shape) / K if soft else torch.randint(K, labelled, generator=generator)
    shares = positive(*labelled) if labels else None
    classes = torch.randint(K, (*rows, 3), generator=generator) if prior == "sparse" else None
    priors = {None: (), "vector": (K,), "matrix": (K, K), "rows": z.shape, "sparse": (*rows, 3)}[prior]
    pi = positive(*priors) if priors else None
    if pi is not None and classes is None:
        pi[..., ::3] = 0
        pi[..., 0] = 0.1
        pi /= pi.sum(-1, keepdim=True)
    weights = positive(K) if weight else None
    if weights is not None and K > 4:
        weights[3] = 0
    counted = torch.ones(z.shape[:-1], dtype=torch.bool, device=z.device)
    return Measures(
        target.to(z.device),
        counted,
        pi,
        weights,
        exclude,
        shares,
        prior in ("rows", "sparse"),
        None if classes is None else classes.to(z.device),
        margin,
        squared,
        spread,
    )


def cotangent(z: Tensor) -> Tensor:
    return logits(DIFFERENTIABLE, *z.shape[:-1], device=z.device.type).to(compute_dtype(z))


def of_tensors(change: Callable[[Tensor], Tensor], measures: Measures) -> Measures:
    changed = {k: change(x) for k, x in measures._asdict().items() if isinstance(x, Tensor)}
    return measures._replace(**changed)


def expected(z: Tensor, measures: Measures) -> tuple[Tensor, Tensor]:
    """The reference's statistics and gradient, in the type of ``z``."""
    real = compute_dtype(z)
    measures = of_tensors(lambda x: x.to(real) if x.is_floating_point() else x, measures)
    leaf = z.detach().clone().requires_grad_()
    found = torch.stack(reference.row_statistics(leaf, measures)[:STATISTICS])
    (gradient,) = torch.autograd.grad(found[:DIFFERENTIABLE], leaf, cotangent(z))
    return found.detach(), gradient


def assert_close(ours: Tensor, naive: Tensor, truth: Tensor) -> None:
    """At most twice the naive error, and two last digits, for the naive one may have luck."""
    finite = truth.isfinite()
    torch.testing.assert_close(ours[~finite].double(), truth[~finite], rtol=0, atol=0, equal_nan=True)
    assert ours.isfinite().equal(finite)
    if finite.any():
        # In float64 the truth is no better, and has last digits of its own.
        last = 4 if ours.dtype == torch.float64 else 2
        digits = last * torch.finfo(ours.dtype).eps * truth[finite].abs().max()
        worst = (naive.double() - truth)[finite].abs().max()
        assert (ours.double() - truth)[finite].abs().max() <= 2 * worst + digits


def assert_equals_reference(z: Tensor, measures: Measures, **options: Tensor) -> None:
    before = z.clone()
    statistics = triton.forward(z, measures)
    gradient = triton.backward(cotangent(z), z, measures, statistics, **options)
    assert statistics.dtype == compute_dtype(z)
    assert gradient.dtype == z.dtype
    if not options:
        assert gradient.is_contiguous()
        torch.testing.assert_close(z, before, rtol=0, atol=0, equal_nan=True)
    naive, naive_gradient = expected(before, measures)
    truth, true_gradient = expected(before.double(), measures)
    counted = measures.counted
    few = measures.shares is not None or measures.classes is not None
    assert statistics[:, ~counted].isfinite().all() if few else not statistics[:, ~counted].any()
    assert not gradient[~counted].any()
    for one, *others in zip(statistics, naive, truth, strict=True):
        assert_close(one[counted], *(other[counted] for other in others))
    assert_close(gradient[counted], naive_gradient[counted], true_gradient[counted])


HARD: list[dict[str, Any]] = [
    {"prior": prior, "weight": weight, "exclude": exclude}
    for prior, weight, exclude in product((None, "vector", "matrix"), (False, True), (False, True))
]
SOFT: list[dict[str, Any]] = [
    {"soft": True, "prior": p, "weight": w} for p, w in product((None, "vector"), (False, True))
]
FEW: list[dict[str, Any]] = [
    {"labels": 2},
    {"labels": 2, "prior": "vector", "weight": True},
    {"labels": 1, "prior": "rows", "weight": True},
    {"labels": 3, "prior": "sparse"},
    {"soft": True, "prior": "sparse", "weight": True},
    {"prior": "sparse", "weight": True, "exclude": True},
]
ROWS: list[dict[str, Any]] = [
    {"prior": "rows"},
    {"prior": "rows", "weight": True, "exclude": True},
    {"soft": True, "prior": "rows", "weight": True},
]
BENT: list[dict[str, Any]] = [
    {"margin": 0.0},
    {"margin": 2.3, "squared": True},
    {"margin": 2.3, "prior": "vector", "weight": True},
    {"margin": 2.3, "exclude": True},
    {"margin": 1.0, "squared": True, "exclude": True, "prior": "matrix", "weight": True, "spread": True},
    {"margin": 1.0, "soft": True, "prior": "rows", "spread": True},
    {"margin": 1.0, "labels": 2, "prior": "rows"},
    {"spread": True},
    {"spread": True, "prior": "sparse", "exclude": True},
]
PLAIN: dict[str, Any] = {}
FULL: dict[str, Any] = {"prior": "matrix", "weight": True, "exclude": True}
FULL_SOFT: dict[str, Any] = {"soft": True, "prior": "vector", "weight": True}
FULL_FEW: dict[str, Any] = {"labels": 2, "prior": "sparse", "weight": True, "spread": True}
FULL_BENT: dict[str, Any] = {"margin": 2.3, "squared": True, "spread": True, "prior": "rows", "weight": True}


def named(options: object) -> str:
    if isinstance(options, dict):
        return (
            "-".join(key if value is True else str(value) for key, value in options.items() if value)
            or "plain"
        )
    return str(options).removeprefix("torch.")
