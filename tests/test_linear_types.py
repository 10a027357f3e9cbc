"""In short types, and under autocast, a linear head's loss is no rougher than the formula written out."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth import functional
from tests.cases import REDUCTIONS, chunks

linear_cross_entropy: Any = functional.linear_cross_entropy  # which takes options from dictionaries here

N, D, K = 256, 16, 200
SHORT = (torch.bfloat16, torch.float16)


def head(dtype: torch.dtype, classes: int = K, rows: int = N) -> tuple[list[Tensor], Tensor]:
    """Input, weight and bias; and a target."""
    generator = torch.Generator().manual_seed(0)
    shapes = (rows, D), (classes, D), (classes,)
    tensors = [torch.randn(shape, generator=generator).div(2).to(dtype) for shape in shapes]
    return [x.requires_grad_() for x in tensors], torch.randint(100, (rows,), generator=generator)


def doubles(leaves: list[Tensor]) -> list[Tensor]:
    return [x.detach().double().requires_grad_() for x in leaves]


def naive(
    leaves: list[Tensor], target: Tensor, softcap: float | None = None, exact: bool = False, **options: Any
) -> Tensor:
    """The formula written out; if ``exact``, the loss of rounded logits is found in float32."""
    z = F.linear(*leaves)
    if softcap is not None:
        z = softcap * torch.tanh(z.to(torch.promote_types(z.dtype, torch.float32)) / softcap)
    return F.cross_entropy(z.float() if exact else z, target, **options)


def ours(leaves: list[Tensor], target: Tensor, rows: int = 16, **options: Any) -> Tensor:
    """In chunks of so many rows."""
    hidden, weight, bias = leaves
    return linear_cross_entropy(hidden, weight, target, linear_bias=bias, **chunks(rows), **options)


def results(loss: Tensor, leaves: list[Tensor], scale: float = 1.0) -> list[Tensor]:
    grads = torch.autograd.grad(loss.sum() * scale, leaves)
    assert [x.dtype for x in grads] == [x.dtype for x in leaves]
    return [loss.detach(), *(x.double() / scale for x in grads)]


def check(mine: list[Tensor], other: list[Tensor], truth: list[Tensor]) -> None:
    """As the others' error may be 0 by luck in a single number, the rounding of the loss itself is free."""
    for m, o, t in zip(mine, other, truth, strict=True):
        free = torch.finfo(m.dtype).eps * t.norm()
        assert (m - t).norm() <= 2 * (o - t).norm() + free
        assert (m - t).abs().max() <= 2 * (o - t).abs().max() + free


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_no_rougher_than_written_out(softcap: float | None, reduction: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"softcap": softcap, "reduction": reduction, "label_smoothing": 0.1}
    leaves, target = head(dtype)
    wide = doubles(leaves)
    truth = results(naive(wide, target, **options), wide)
    loss = ours(leaves, target, **options)
    assert loss.dtype == torch.float32
    check(results(loss, leaves), results(naive(leaves, target, **options), leaves), truth)


@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("engine", ["linear", "reference"])
def test_a_cap_bends_in_float32(engine: str, reduction: str, dtype: torch.dtype) -> None:
    """The products are rounded, and nothing after them."""
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
    leaves, target = head(dtype)
    leaves = [(4 * x.detach()).requires_grad_() for x in leaves]
    loss = ours(leaves, target, softcap=10.0, engine=engine, **options)
    other = naive(leaves, target, softcap=10.0, **options)
    torch.testing.assert_close(loss, other, rtol=1e-5, atol=1e-5)
    wide = doubles(leaves)
    truth = results(naive(wide, target, softcap=10.0, **options), wide)
    check(results(loss, leaves), results(other, leaves), truth)


# A sum of many rounded parts drifts away, unless what adds them up is wider.
@pytest.mark.parametrize("dtype", SHORT, ids=str)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_many_chunks_are_as_exact_as_one(reduction: str, dtype: torch.dtype) -> None:
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
    leaves, target = head(dtype, classes=100, rows=1024)
    wide = doubles(leaves)
    truth = results(naive(wide, target, **options), wide)
    check(
        results(ours(leaves, target, 2, **options), leaves),
        results(naive(leaves, target, **options), leaves),
        truth,
    )


@pytest.mark.parametrize("short", [False, True], ids=["float32", "mixed"])
@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_autocast(reduction: str, softcap: float | None, short: bool) -> None:
    options: dict[str, Any] = {"softcap": softcap, "reduction": reduction, "label_smoothing": 0.1}
    leaves, target = head(torch.float32)
    if short:
        leaves[1] = leaves[1].detach().bfloat16().requires_grad_()
    wide = doubles(leaves)
    truth = results(naive(wide, target, **options), wide)
    with torch.autocast("cpu"):
        loss, other = ours(leaves, target, **options), naive(leaves, target, **options)
        assert torch.equal(ours(wide, target, **options), ours(wide, target, **options).double())
    assert loss.dtype == torch.float32
    check(results(loss, leaves), results(other, leaves), truth)
    # It was rounded indeed.
    assert (loss - truth[0]).abs().max() > 1e-5


def test_autocast_leaves_float64_alone() -> None:
    leaves, target = head(torch.float64)
    expected = ours(leaves, target)
    with torch.autocast("cpu"):
        assert torch.equal(ours(leaves, target), expected)


# The scale comes with backward, when gradients by single logits, of a mean over many rows, are long found.
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradient_scaling_in_float16(reduction: str) -> None:
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": 0.1}
    leaves, target = head(torch.float16, classes=2000)
    wide = doubles(leaves)
    scale = 65536.0 if reduction == "mean" else 256.0
    truth = results(naive(wide, target, **options), wide, scale)[1:]
    mine = results(ours(leaves, target, **options), leaves, scale)[1:]
    other = results(naive(leaves, target, exact=True, **options), leaves, scale)[1:]
    assert all(x.isfinite().all() for x in mine)
    assert all(x.count_nonzero() > 0.99 * x.numel() for x in mine)
    check(mine, other, truth)
    # Of classes that are no target, whose gradients are the least.
    rare = [[x[100:] for x in grads[1:]] for grads in (mine, other, truth)]
    check(*rare)


def test_a_mean_over_many_rows_in_float16() -> None:
    # One over 2^18 rows is no normal number of float16.
    rows = 2**18
    leaves, target = head(torch.float16, classes=4, rows=64)
    hidden, target = leaves[0].detach(), target % 4
    weight, bias = leaves[1:]
    small = results(ours([hidden, weight, bias], target, denominator=64.0), [weight, bias])
    large = results(ours([hidden, weight, bias], target, denominator=float(rows)), [weight, bias], 2.0**12)
    for a, b in zip(small[1:], large[1:], strict=True):
        torch.testing.assert_close(b * (rows / 64), a, rtol=1e-3, atol=1e-6)
