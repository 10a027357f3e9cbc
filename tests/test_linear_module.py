"""The module that holds a linear head: torch's own with more options."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

import labelsmooth
from labelsmooth import LinearCrossEntropyLoss
from tests.cases import REDUCTIONS
from tests.heads import D, K, N, gradients, problem


@pytest.mark.slow
def test_compiled_module() -> None:
    torch.compiler.reset()
    head = LinearCrossEntropyLoss(D, K, bias=True, label_smoothing=0.1)
    p = problem(dtype=torch.float32)
    compiled = torch.compile(head, fullgraph=True, backend="aot_eager")
    assert_close(compiled(p.input, p.target), head(p.input, p.target))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_module_moves_by_swapping_while_its_loss_is_alive(reduction: str, bias: bool) -> None:
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        head = LinearCrossEntropyLoss(D, K, bias=bias, reduction=reduction)  # pyright: ignore[reportArgumentType]
        loss = head(torch.ones(N, D), torch.zeros(N, dtype=torch.long))
        head.to(torch.float64)
        assert loss.requires_grad
        again = head(torch.ones(N, D, dtype=torch.float64), torch.zeros(N, dtype=torch.long))
        assert_close(again.float(), loss)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)], ids=str)
def test_module_is_torchs(shape: tuple[int, ...], bias: bool) -> None:
    weight = torch.linspace(0.5, 2, K)
    choices: list[dict[str, Any]] = [
        {},
        {"label_smoothing": 0.1},
        {"reduction": "none", "ignore_index": 1},
    ]
    for options in choices:
        theirs = nn.LinearCrossEntropyLoss(D, K, out_features=shape, bias=bias, weight=weight, **options)
        torch.manual_seed(0)
        ours = LinearCrossEntropyLoss(D, K, out_features=shape, bias=bias, weight=weight, **options)
        torch.manual_seed(0)
        again = nn.LinearCrossEntropyLoss(D, K, out_features=shape, bias=bias, weight=weight, **options)
        assert_close(ours.state_dict(), again.state_dict())
        assert list(ours.state_dict()) == list(theirs.state_dict())
        ours.load_state_dict(theirs.state_dict())
        p = problem(dtype=torch.float32)
        target = p.target.view(N, *[1] * len(shape)).expand(N, *shape)
        losses = ours(p.input, target), theirs(p.input, target)
        assert_close(*losses)
        grads = [
            gradients(loss, [p.input, *m.parameters()])
            for loss, m in zip(losses, (ours, theirs), strict=True)
        ]
        assert_close(grads[0], grads[1])


def test_module_types_and_copies() -> None:
    head = LinearCrossEntropyLoss(D, K, bias=True, dtype=torch.float64, device="cpu", softcap=2.0, z_loss=0.1)
    assert {x.dtype for x in head.parameters()} == {torch.float64}
    p = problem()
    twin = copy.deepcopy(head)
    assert_close(twin(p.input, p.target), head(p.input, p.target))
    assert twin.linear.weight is not head.linear.weight
    assert LinearCrossEntropyLoss(D, K, device="meta").linear.weight.is_meta
    given = p._replace(linear_weight=head.linear.weight, linear_bias=head.linear.bias, softcap=2.0)
    assert_close(head(p.input, p.target), given.theirs(z_loss=0.1))
    scale = torch.linspace(0, 1, N)
    assert_close(
        head(p.input, p.target, sample_weight=scale, denominator=3.0),
        given.theirs(z_loss=0.1, sample_weight=scale, denominator=3.0),
    )


def test_module_in_training_only() -> None:
    p = problem(dtype=torch.float32)
    for train_only in (False, True):
        head = LinearCrossEntropyLoss(D, K, label_smoothing=0.5, train_only=train_only)
        smoothed = head(p.input, p.target)
        plain = F.cross_entropy(head.linear(p.input), p.target)
        assert_close(head.eval()(p.input, p.target), plain if train_only else smoothed)
        assert not torch.allclose(smoothed, plain)


def test_module_says_what_it_is() -> None:
    head = LinearCrossEntropyLoss(D, K, bias=True, label_smoothing=0.1, softcap=30.0, z_loss=0.5)
    text = repr(head)
    for words in (
        "LinearCrossEntropyLoss(",
        "softcap=30.0",
        "label_smoothing=0.1",
        "z_loss=0.5",
        "reduction='mean'",
        f"(linear): Linear(in_features={D}, out_features={K}, bias=True)",
    ):
        assert words in text
    assert "softcap" not in repr(LinearCrossEntropyLoss(D, K))
    assert labelsmooth.LinearCrossEntropyLoss is LinearCrossEntropyLoss


def test_trains_as_the_unfused_pair() -> None:
    generator = torch.Generator().manual_seed(0)
    images, digits = torch.rand(64, 16, generator=generator), torch.randint(10, (64,), generator=generator)
    torch.manual_seed(0)
    body = nn.Linear(16, 8)
    head = LinearCrossEntropyLoss(8, 10, bias=True, label_smoothing=0.1)
    body_too, layer = copy.deepcopy(body), copy.deepcopy(head.linear)
    fused = torch.optim.Adam([*body.parameters(), *head.parameters()], 0.05)
    unfused = torch.optim.Adam([*body_too.parameters(), *layer.parameters()], 0.05)
    losses = []
    for _ in range(10):
        ours = head(body(images).relu(), digits)
        theirs = F.cross_entropy(layer(body_too(images).relu()), digits, label_smoothing=0.1)
        assert_close(ours, theirs)
        for loss, optimizer in ((ours, fused), (theirs, unfused)):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(ours.item())
    assert losses[-1] < losses[0] - 0.05
