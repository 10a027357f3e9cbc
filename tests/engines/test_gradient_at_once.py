"""A small gradient of the plain loss is computed with the loss, and is right for every backward pass."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth._engines import ahead, dense
from labelsmooth._engines.ahead import Habit
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


def test_a_habit() -> None:
    habit = Habit()
    assert habit.expected() == 1.0
    assert habit.expected() is None  # no backward pass came
    habit.came(1.0)
    assert habit.expected() == 1.0
    habit.came(0.25)
    assert habit.expected() is None  # two factors
    habit.came(0.25)
    assert habit.expected() == 0.25
    for factor in (0.3, 0.7, 0.2):  # such as those of mixup
        habit.came(factor)
        assert habit.expected() is None


def test_kinds_are_few() -> None:
    for kind in range(3 * ahead.MOST):
        assert ahead.habit(kind) is ahead.habit(kind)
        assert len(ahead._habits) <= ahead.MOST
    ahead._habits.clear()


class Calls:
    """The calls of the kernel's backward pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        kernel = dense.kernel()
        backward = kernel.labelsmooth_uniform_backward

        def counted(*args: Any) -> None:
            self.count += 1
            backward(*args)

        monkeypatch.setattr(kernel, "labelsmooth_uniform_backward", counted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_steady_factor_is_computed_ahead(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead._habits.clear()
    calls = Calls(monkeypatch)
    z, found = leaf(dtype), []
    for step in range(4):
        loss = 1024.0 * cross_entropy(z, TARGET, label_smoothing=0.1)
        found += torch.autograd.grad(loss, z)
        # The first was computed ahead for another factor, the second not ahead.
        assert calls.count == min(step + 1, 2)
    for again in found[1:]:
        assert_close(again, found[0], rtol=0.0, atol=0.0)
    assert len({x.data_ptr() for x in found}) == len(found)


def test_an_evaluation_computes_no_gradient_but_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead._habits.clear()
    z, given = leaf(), []
    kernel = dense.kernel()
    forward = kernel.labelsmooth_uniform_forward
    monkeypatch.setattr(
        kernel, "labelsmooth_uniform_forward", lambda *args: given.append(args[-1]) or forward(*args)
    )
    for _ in range(3):
        cross_entropy(z, TARGET, label_smoothing=0.1)
    with torch.no_grad():
        cross_entropy(z, TARGET, label_smoothing=0.1)
    assert [out is not None for out in given] == [True, False, False, False]


def test_a_divergence_too() -> None:
    z, target = leaf(), TARGET.clamp(min=0)
    (found,) = torch.autograd.grad(2 * label_smoothing_loss(z, target), z)
    wide = z.detach().clone().requires_grad_()
    loss = 2 * F.cross_entropy(wide, target, label_smoothing=0.1, reduction="sum") / 7
    assert_close(found, torch.autograd.grad(loss, wide)[0])
