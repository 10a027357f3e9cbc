"""A linear head's loss is that of its logits, in value and gradient, whatever the chunks."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth.functional import linear_cross_entropy
from tests.cases import REDUCTIONS
from tests.heads import D, K, N, gradients, problem


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("wanted", range(8))
def test_only_what_asks_for_a_gradient_gets_one(wanted: int, reduction: str) -> None:
    p = problem(reduction=reduction, label_smoothing=0.1)
    full = gradients(p.ours(), p.leaves)
    for i, leaf in enumerate(p.leaves):
        leaf.requires_grad_(bool(wanted & 1 << i))
    loss = p.ours()
    assert loss.requires_grad == bool(wanted)
    if wanted:
        loss.sum().backward()
    for leaf, grad in zip((p.input, p.linear_weight, p.linear_bias), full, strict=True):
        assert leaf is not None
        assert (leaf.grad is not None) == leaf.requires_grad
        if leaf.grad is not None:
            assert_close(leaf.grad, grad)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 2, 2), (0,), (2, 0)], ids=str)
def test_leading_dimensions(shape: tuple[int, ...], reduction: str, soft: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    p = problem(label_smoothing=0.3, reduction=reduction)
    hidden = torch.randn(*shape, D, dtype=torch.float64, generator=generator, requires_grad=True)
    target = torch.randint(K, shape, generator=generator)
    if soft:
        target = F.one_hot(target, K).double() * 0.5 + 0.1
    many = p._replace(input=hidden, target=target, options={**p.options, "sample_weight": torch.tensor(2.0)})
    flat = many._replace(
        input=hidden.reshape(-1, D), target=target.reshape(-1, K) if soft else target.reshape(-1)
    )
    ours, theirs = many.ours(), flat.theirs()
    assert ours.shape == (shape if reduction == "none" else ())
    assert_close(ours.flatten(), theirs.flatten(), equal_nan=True)
    assert_close(gradients(ours, many.leaves), gradients(theirs, many.leaves))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_rows_may_broadcast_against_options(reduction: str) -> None:
    p = problem(reduction=reduction)
    hidden = p.input[:6].unflatten(0, (2, 3))
    target = p.target[:6].unflatten(0, (2, 3))
    strength, scale = torch.tensor([0.1, 0.5, 1.0]), torch.tensor([[1.0], [3.0]])
    p = p._replace(input=hidden, target=target)
    ours = p.ours(label_smoothing=strength, sample_weight=scale)
    flat = p._replace(input=hidden.flatten(0, 1), target=target.flatten())
    theirs = flat.theirs(label_smoothing=strength.repeat(2), sample_weight=scale.expand(2, 3).flatten())
    assert_close(ours.flatten(), theirs.flatten())


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_any_layout(reduction: str) -> None:
    p = problem(reduction=reduction, label_smoothing=0.1)
    hidden, weight, bias = (x.detach() for x in p.leaves)
    strided = torch.zeros(N, 2 * D, dtype=torch.float64)[:, ::2].copy_(hidden)
    layouts: dict[str, list[Tensor]] = {
        "transposed": [hidden.T.contiguous().T, weight.T.contiguous().T, bias],
        "strided": [strided, weight.repeat_interleave(2, 0)[::2], bias],
        "expanded": [hidden[:1].expand(N, D), weight[:1].expand(K, D), bias[:1].expand(K)],
    }
    for tensors in layouts.values():
        leaves = [x.requires_grad_() for x in tensors]
        given = p._replace(input=leaves[0], linear_weight=leaves[1], linear_bias=leaves[2])
        ours, theirs = given.ours(), given.theirs()
        assert_close(ours, theirs)
        assert_close(gradients(ours, leaves), gradients(theirs, leaves))


def test_no_features() -> None:
    p = problem()._replace(
        input=torch.zeros(N, 0, dtype=torch.float64), linear_weight=torch.zeros(K, 0, dtype=torch.float64)
    )
    assert_close(p.ours(), p.theirs())


@pytest.mark.parametrize("engine", [None, "linear", "reference"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_mean_over_nothing(engine: Any, soft: bool) -> None:
    p = problem()
    if soft:
        p = p._replace(target=torch.full((N, K), 0.2, dtype=torch.float64))
    nothing = [{"sample_weight": torch.zeros(N)}] if soft else [{"sample_weight": torch.zeros(N)}, {}]
    for options in nothing:
        if not options:
            p = p._replace(target=torch.full((N,), -100))
        for denominator, expected in ((None, torch.nan), (3.0, 0.0), (0.0, 0.0)):
            loss = p.ours(denominator=denominator, engine=engine, label_smoothing=0.1, **options)
            assert_close(loss.item(), expected, equal_nan=True)
            assert not any(grad.any() for grad in gradients(loss, p.leaves))
            twice = gradients(
                p.ours(denominator=denominator, engine=engine, **options), p.leaves, create_graph=True
            )
            assert not any(grad.any() for grad in twice)


def test_a_mean_over_something_divided_by_0_is_infinite() -> None:
    p = problem()
    for denominator in (0.0, torch.tensor(0.0)):
        loss = p.ours(denominator=denominator)
        assert loss == torch.inf
        assert not any(grad.isfinite().any() for grad in gradients(loss, p.leaves))


# 0 * NaN is NaN: what stands in a row must not be multiplied by its gradient of 0.
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("engine", [None, "reference"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_what_ignored_rows_hold_reaches_nothing(
    reduction: str, engine: Any, softcap: float | None, bad: float
) -> None:
    p = problem(label_smoothing=0.1, reduction=reduction)._replace(softcap=softcap)
    keep = torch.tensor([True, False, True, True, True, False, True])
    hidden = p.input.detach().clone()
    hidden[1], hidden[5, 0] = bad, bad
    broken = p._replace(input=hidden.requires_grad_())
    soft = p.target[:, None].eq(torch.arange(K)).double()
    cases: list[tuple[Tensor, dict[str, Any]]] = [
        (p.target.masked_fill(~keep, -100), {}),
        (p.target, {"sample_weight": keep.double()}),
        (soft.masked_fill(~keep[:, None], torch.nan), {"sample_weight": keep.double()}),
    ]
    clean = p._replace(input=p.input[keep], target=p.target[keep]).theirs()
    by_input, *expected = gradients(clean, p.leaves)
    for target, options in cases:
        for how in ({}, {"create_graph": True}):
            loss, nll = broken._replace(target=target).ours(engine=engine, return_nll=True, **options)
            assert nll.isfinite().all()
            assert_close(loss[keep] if reduction == "none" else loss, clean)
            if reduction == "none":
                assert not loss[~keep].any()
            grads = gradients(loss, broken.leaves, **how)
            assert_close(grads, (by_input, *expected))


def test_ignored_positions_of_a_row() -> None:
    # A row serves all its positions, so it is left out only if none of them counts.
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(s, dtype=torch.float64, generator=generator) for s in ((3, D), (K, 2, D)))
    target = torch.tensor([[0, 1], [-100, -100], [2, -100]])
    clean, broken = hidden.clone().requires_grad_(), hidden.clone()
    broken[1] = torch.nan
    broken.requires_grad_()
    weight.requires_grad_()
    theirs = F.linear_cross_entropy(clean, weight, target, label_smoothing=0.1)
    ours = linear_cross_entropy(broken, weight, target, label_smoothing=0.1)
    assert_close(ours, theirs)
    assert_close(gradients(ours, [broken, weight]), gradients(theirs, [clean, weight]))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_learnable_strength(reduction: str) -> None:
    p = problem(reduction=reduction)
    eps = torch.linspace(0.1, 0.9, N, dtype=torch.float64).requires_grad_()
    leaves = [*p.leaves, eps]
    ours, theirs = (
        gradients(loss, leaves, create_graph=True)
        for loss in (p.ours(label_smoothing=eps, engine="linear"), p.theirs(label_smoothing=eps))
    )
    assert_close(ours, theirs)
    mixed = [gradients(torch.stack([g.square().sum() for g in grads]), leaves) for grads in (ours, theirs)]
    assert_close(mixed[0], mixed[1])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_learnable_scales(reduction: str) -> None:
    p = problem(reduction=reduction, label_smoothing=0.1)
    scale = torch.linspace(0.1, 0.9, N, dtype=torch.float64).requires_grad_()
    options: dict[str, Any] = {"sample_weight": scale}
    leaves = [*p.leaves, scale]
    if reduction == "mean":
        options["denominator"] = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
        leaves.append(options["denominator"])
    ours, theirs = p.ours(**options), p.theirs(**options)
    assert_close(ours, theirs)
    assert_close(gradients(ours, leaves), gradients(theirs, leaves))


@pytest.mark.parametrize("name", ["prior", "weight", "target"])
def test_what_needs_whole_logits(name: str) -> None:
    p = problem(label_smoothing=0.3)
    raw = torch.rand((N, K) if name == "target" else (K,), dtype=torch.float64).requires_grad_()
    given: dict[str, Any] = {name: raw.softmax(-1)}
    if name == "target":
        p, given = p._replace(target=given["target"]), {}
    ours, theirs = p.ours(**given), p.theirs(**given)
    leaves = [*p.leaves, raw]
    assert_close(gradients(ours, leaves, retain_graph=True), gradients(theirs, leaves, retain_graph=True))
    reason = "cannot serve: a gradient is asked for by the target, the prior or the class weights"
    with pytest.raises(ValueError, match=f"engine='linear' {reason}"):
        p.ours(engine="linear", **given)
    with torch.no_grad():
        assert_close(p.ours(engine="linear", **given), theirs)


def test_no_ignore_index_is_the_default_one() -> None:
    # As torch's, whose default is None.
    p = problem()
    p.target[0] = -100
    assert_close(p.ours(ignore_index=None), p.ours())
