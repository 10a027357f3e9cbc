"""A small gradient of the plain loss is computed with the loss, and is right for every backward pass."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth._engines import dense
from labelsmooth.functional import cross_entropy, label_smoothing_loss
from tests.cases import kernel, random

pytestmark = kernel
TARGET = torch.tensor([0, 2, 3, -100, 3, 1, 0])
Z = random(7, 4)


def leaf(dtype: torch.dtype = torch.float64) -> Tensor:
    return Z.to(dtype).requires_grad_()


def theirs(z: Tensor, factor: float = 1.0, **options: Any) -> Tensor:
    wide = z.detach().double().requires_grad_()
    loss = factor * F.cross_entropy(wide, TARGET, label_smoothing=0.1, **options)
    return torch.autograd.grad(loss, wide)[0].to(z.dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("factor", [1.0, 0.0, -3.0, 65536.0])
def test_any_factor(factor: float, reduction: str, dtype: torch.dtype) -> None:
    z = leaf(dtype)
    loss = factor * cross_entropy(z, TARGET, label_smoothing=0.1, reduction=reduction)  # pyright: ignore[reportArgumentType]
    (found,) = torch.autograd.grad(loss, z)
    eps = torch.finfo(dtype).eps
    assert_close(found, theirs(z, factor, reduction=reduction), rtol=2 * eps, atol=2 * eps * abs(factor))


def test_a_small_gradient_in_float16_is_scaled_before_it_is_rounded() -> None:
    z = (1e-4 * torch.ones(4096, 2)).half().requires_grad_()
    target = torch.zeros(4096, dtype=torch.long)
    scaled = 65536.0 * cross_entropy(z, target, label_smoothing=0.9999)
    (found,) = torch.autograd.grad(scaled, z)
    wide = z.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(65536.0 * F.cross_entropy(wide, target, label_smoothing=0.9999), wide)
    assert_close(found.double(), expected, rtol=1e-3, atol=0.0)


def test_a_second_backward_pass_is_not_the_first_ones_memory() -> None:
    z = leaf()
    loss = cross_entropy(z, TARGET, label_smoothing=0.1)
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    first.fill_(7.0)  # as an optimiser or a hook may
    for factor in (1.0, 2.0):
        (again,) = torch.autograd.grad(loss, z, torch.tensor(factor).double(), retain_graph=True)
        assert again.data_ptr() != first.data_ptr()
        assert_close(again, theirs(z, factor))
    assert (first == 7.0).all()


def test_gradients_accumulate() -> None:
    z = leaf()
    for _ in range(3):
        (cross_entropy(z, TARGET, label_smoothing=0.1) / 3).backward()
    assert z.grad is not None
    assert_close(z.grad, theirs(z))
    one, other = (cross_entropy(z, TARGET, label_smoothing=0.1) for _ in range(2))
    assert_close(torch.autograd.grad(one + other, z)[0], theirs(z, 2.0))


def test_a_second_derivative_after_a_first() -> None:
    z = leaf()
    loss = cross_entropy(z, TARGET, label_smoothing=0.1)
    torch.autograd.grad(loss, z, retain_graph=True)
    (first,) = torch.autograd.grad(loss, z, create_graph=True)
    assert_close(first.detach(), theirs(z))
    (second,) = torch.autograd.grad(first.square().sum(), z)
    wide = z.detach().clone().requires_grad_()
    (by,) = torch.autograd.grad(F.cross_entropy(wide, TARGET, label_smoothing=0.1), wide, create_graph=True)
    assert_close(second, torch.autograd.grad(by.square().sum(), wide)[0])


def test_logits_that_change_before_the_backward_pass_are_refused() -> None:
    z = leaf() * 1.0
    loss = cross_entropy(z, TARGET, label_smoothing=0.1)
    z.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_all_rows_ignored() -> None:
    z = leaf()
    for reduction in ("mean", "sum"):
        loss = cross_entropy(z, torch.full((7,), -100), label_smoothing=0.1, reduction=reduction)
        assert (torch.autograd.grad(loss, z)[0] == 0).all()


def test_a_target_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"^target must hold class indices in \[0, 4\)"):
        cross_entropy(leaf(), TARGET + 1, label_smoothing=0.1, ignore_index=-99)


def test_an_empty_batch() -> None:
    z = torch.zeros(0, 4, requires_grad=True)
    loss = cross_entropy(z, torch.zeros(0, dtype=torch.long), label_smoothing=0.1)
    assert loss.isnan()
    assert torch.autograd.grad(loss, z)[0].shape == (0, 4)


@pytest.mark.parametrize("size", ["just within", "just beyond"])
def test_the_largest_size(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dense, "AT_ONCE", Z.nbytes - (size == "just beyond"))
    z = leaf()
    assert_close(torch.autograd.grad(cross_entropy(z, TARGET, label_smoothing=0.1), z)[0], theirs(z))


def test_a_divergence_too() -> None:
    z, target = leaf(), TARGET.clamp(min=0)
    (found,) = torch.autograd.grad(2 * label_smoothing_loss(z, target), z)
    wide = z.detach().clone().requires_grad_()
    loss = 2 * F.cross_entropy(wide, target, label_smoothing=0.1, reduction="sum") / 7
    assert_close(found, torch.autograd.grad(loss, wide)[0])
