"""A linear head's loss is that of its logits, in value and gradient, whatever the options and the chunks."""

import copy
import dataclasses
import random
import threading
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

import labelsmooth
from labelsmooth import LinearCrossEntropyLoss, by_class
from labelsmooth._engines import linear
from labelsmooth.functional import cross_entropy, linear_cross_entropy
from tests.test_transforms import Graphs

from . import oracle

N, D, K = 7, 3, 5
REDUCTIONS = ("none", "mean", "sum")

# torch's own forward-mode differentiation does that when first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")

needs_options = pytest.mark.skipif(
    not hasattr(nn, "LinearCrossEntropyOptions"), reason="this torch has no LinearCrossEntropyOptions"
)


@pytest.fixture(autouse=True)
def uneven_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3, 3 and 1 rows."""
    monkeypatch.setattr(linear, "BUDGET", 0)
    monkeypatch.setattr(linear, "LEAST", 3)


class Problem(NamedTuple):
    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    softcap: float | None
    options: dict[str, Any]

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in self[:3] if isinstance(x, Tensor) and x.requires_grad]

    def ours(self, **options: Any) -> Any:
        return linear_cross_entropy(
            self.input,
            self.linear_weight,
            self.target,
            linear_bias=self.linear_bias,
            softcap=self.softcap,
            **{**self.options, **options},
        )

    def logits(self) -> Tensor:
        z = F.linear(self.input, self.linear_weight, self.linear_bias)
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)

    def theirs(self, **options: Any) -> Any:
        options = {**self.options, **options, "engine": "reference"}
        return cross_entropy(self.logits(), self.target, **options)


def problem(seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((N, D), (K, D), (K,))
    ]
    hidden, weight, bias = (x.to(dtype).requires_grad_() for x in tensors)
    target = torch.randint(K, (N,), generator=generator)
    return Problem(hidden, weight, bias, target, None, options)


def drawn(seed: int) -> Problem:
    """Any options that go together."""
    pick = random.Random(seed)
    p = problem(seed)
    generator = torch.Generator().manual_seed(seed)

    def positive(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1

    soft = pick.random() < 0.4
    target = positive(N, K) if soft else p.target.clone()
    options: dict[str, Any] = {"reduction": pick.choice(REDUCTIONS)}
    if soft:
        target = target / target.sum(-1, keepdim=True)
    elif pick.random() < 0.6:
        options["ignore_index"] = pick.choice([-100, 2])
        target[pick.randrange(N)] = options["ignore_index"]
    strengths = [0.0, 0.1, 1.0, torch.tensor(0.3), torch.linspace(0, 1, N)]
    options["label_smoothing"] = pick.choice(
        [*strengths, torch.tensor([0.2])] if soft else [*strengths, by_class(torch.linspace(0, 1, K))]
    )
    prior = pick.choice([None, positive(K), positive(K, K)])
    options["prior"] = prior if prior is None else prior / prior.sum(-1, keepdim=True)
    options["off_target"] = pick.choice(["all", "others"])
    options["weight"] = pick.choice([None, positive(K)])
    options["weighting"] = pick.choice(["torch", "torch" if options["weight"] is None else "sample"])
    options["sample_weight"] = pick.choice([None, positive(N) * (positive(N) > 0.4), torch.tensor(2.0)])
    if options["reduction"] == "mean":
        options["denominator"] = pick.choice([None, 11.0, torch.tensor(3)])
    bias = pick.choice([None, p.linear_bias])
    return Problem(p.input, p.linear_weight, bias, target, pick.choice([None, 2.0]), options)


def gradients(loss: Tensor, leaves: list[Tensor], **how: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), leaves, **how)


@pytest.mark.parametrize("seed", range(60))
def test_equals_the_oracle(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LEAST", (1, 2, 3, N)[seed % 4])
    p = drawn(seed)
    z = F.linear(p.input, p.linear_weight, p.linear_bias).detach()
    if p.softcap is None:
        truth, slope = oracle.cross_entropy(z, p.target, **p.options), torch.ones_like(z)
    else:
        bent = torch.tanh(z / p.softcap)
        truth, slope = oracle.cross_entropy(p.softcap * bent, p.target, **p.options), 1 - bent**2
    by_z = truth.grad * slope
    loss, nll = p.ours(return_nll=True)
    assert_close((loss.detach(), nll), (truth.loss, truth.nll))
    assert not nll.requires_grad
    expected = [by_z @ p.linear_weight.detach(), by_z.T @ p.input.detach(), by_z.sum(0)]
    for grad, other in zip(gradients(loss, p.leaves), expected, strict=False):
        assert_close(grad, other)


@pytest.mark.parametrize("seed", range(60, 80))
def test_z_loss_equals_the_reference(seed: int) -> None:
    p = drawn(seed)
    ours, theirs = p.ours(z_loss=0.3, return_nll=True), p.theirs(z_loss=0.3, return_nll=True)
    assert_close(ours, theirs)
    assert_close(gradients(ours[0], p.leaves), gradients(theirs[0], p.leaves))


@pytest.mark.parametrize("seed", range(80, 90))
def test_an_incoming_gradient_is_a_factor(seed: int) -> None:
    p = drawn(seed)
    factor = torch.randn(p.ours().shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert_close(gradients(factor * p.ours(), p.leaves), gradients(factor * p.theirs(), p.leaves))


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


def test_masked_classes() -> None:
    p = problem(label_smoothing=0.1)
    bias = torch.zeros(K, dtype=torch.float64).index_fill(0, torch.tensor([4]), -torch.inf).requires_grad_()
    p = p._replace(linear_bias=bias, target=p.target % 4)
    kept = p._replace(linear_weight=p.linear_weight[:4], linear_bias=bias[:4])
    for reduction in REDUCTIONS:
        ours, theirs = p.ours(reduction=reduction), kept.theirs(reduction=reduction)
        assert_close(ours, theirs)
        assert_close(gradients(ours, p.leaves), gradients(theirs, p.leaves))


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


# --- how it is differentiated


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("soft", "softcap"), [(False, None), (True, 2.0)], ids=["hard", "soft-capped"])
def test_gradcheck(soft: bool, softcap: float | None, reduction: str) -> None:
    p = problem()
    hidden, weight, bias = (x.detach()[:3].clone().requires_grad_() for x in p.leaves)
    target = torch.full((3, 3), 1 / 3, dtype=torch.float64) if soft else torch.tensor([0, -100, 2])
    eps = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64)

    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return linear_cross_entropy(
            hidden,
            weight,
            target,
            linear_bias=bias,
            softcap=softcap,
            label_smoothing=eps,
            z_loss=0.1,
            reduction=reduction,  # pyright: ignore[reportArgumentType]
        )

    assert gradcheck(loss, (hidden, weight, bias), check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(loss, (hidden, weight, bias), check_fwd_over_rev=True)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_transforms(reduction: str) -> None:
    p = problem(label_smoothing=0.1, reduction=reduction)
    hidden, weight = p.input.detach(), p.linear_weight.detach()
    p = p._replace(linear_bias=None)

    def ours(hidden: Tensor, weight: Tensor) -> Tensor:
        return p._replace(input=hidden, linear_weight=weight).ours().sum()

    def theirs(hidden: Tensor, weight: Tensor) -> Tensor:
        return p._replace(input=hidden, linear_weight=weight).theirs().sum()

    expected = torch.func.grad(theirs, argnums=(0, 1))(hidden, weight)
    assert_close(torch.func.grad(ours, argnums=(0, 1))(hidden, weight), expected)
    assert_close(torch.func.jacrev(ours)(hidden, weight), expected[0])
    assert_close(torch.func.jacfwd(ours, argnums=1)(hidden, weight), expected[1])
    tangents = (torch.ones_like(hidden), weight)
    assert_close(
        torch.func.jvp(ours, (hidden, weight), tangents), torch.func.jvp(theirs, (hidden, weight), tangents)
    )
    assert_close(
        torch.func.hessian(ours, argnums=1)(hidden, weight),
        torch.func.hessian(theirs, argnums=1)(hidden, weight),
    )
    weights = torch.stack([weight, 2 * weight])
    mapped = torch.vmap(ours, in_dims=(None, 0))(hidden, weights)
    assert_close(mapped, torch.stack([theirs(hidden, w) for w in weights]))
    vector = torch.ones_like(weight)
    product = torch.autograd.functional.hvp(lambda w: ours(hidden, w), weight, vector)[1]
    assert_close(product, torch.autograd.functional.hvp(lambda w: theirs(hidden, w), weight, vector)[1])


def test_transforms_are_refused_by_the_engine_without_logits() -> None:
    p = problem()
    with pytest.raises(
        ValueError, match=r"engine='linear' cannot serve: a transform of torch.func is at work"
    ):
        torch.func.grad(lambda x: p._replace(input=x).ours(engine="linear"))(p.input)
    with (
        torch.autograd.forward_ad.dual_level(),
        pytest.raises(ValueError, match="forward-mode differentiation is on"),
    ):
        p.ours(engine="linear")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("first", ["input", "linear_weight", "both"])
def test_a_second_backward_is_right(first: str, reduction: str) -> None:
    p = problem(reduction=reduction, label_smoothing=0.1)
    expected = gradients(p.theirs(), p.leaves)
    loss = p.ours().sum()
    wanted = p.leaves if first == "both" else [getattr(p, first)]
    for grad in torch.autograd.grad(loss, wanted, retain_graph=True):
        grad.zero_()  # it is the caller's now
    assert_close(torch.autograd.grad(2 * loss, p.leaves, retain_graph=True), tuple(2 * g for g in expected))
    assert_close(torch.autograd.grad(loss, p.leaves, create_graph=True), expected)
    assert_close(torch.autograd.grad(loss, p.leaves), expected)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, p.leaves)


# As in torch, which refuses even a first backward then, since the weight may be needed for it.
@pytest.mark.parametrize("name", ["linear_weight", "input", "linear_bias"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("again", [False, True])
def test_a_change_before_backward_is_refused(again: bool, reduction: str, name: str) -> None:
    p = problem(reduction=reduction)
    loss = p.ours().sum()
    if again:
        torch.autograd.grad(loss, p.leaves, retain_graph=True)
    with torch.no_grad():
        getattr(p, name).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, p.leaves)


# They belong to the loss as the weight does: either torch refuses, or the gradient is that of the loss.
@pytest.mark.parametrize("how", [{}, {"create_graph": True}])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    "name", ["prior", "weight", "sample_weight", "label_smoothing", "denominator", "target"]
)
def test_a_change_of_the_options_is_refused_or_harmless(
    name: str, again: bool, reduction: str, how: dict[str, Any]
) -> None:
    if name == "denominator":
        reduction = "mean"  # which alone has one
    p = problem(reduction=reduction)
    given: dict[str, Tensor] = {
        "prior": torch.full((K,), 1 / K, dtype=torch.float64),
        "weight": torch.ones(K, dtype=torch.float64),
        "sample_weight": torch.ones(N, dtype=torch.float64),
        "label_smoothing": torch.full((N,), 0.5, dtype=torch.float64),
        "target": p.target.clone(),
    }
    if name == "denominator":
        given["denominator"] = torch.tensor(3.0, dtype=torch.float64)
    target = given["target"]
    p = p._replace(target=target, options={**p.options, **{k: v for k, v in given.items() if k != "target"}})
    expected = gradients(p.theirs(), p.leaves)
    loss = p.ours().sum()
    if again:
        torch.autograd.grad(loss, p.leaves, retain_graph=True)
    given[name].copy_(given[name].flip(0) if name == "target" else given[name] / 2)
    try:
        found = torch.autograd.grad(loss, p.leaves, **how)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
    else:
        assert_close(found, expected)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_tied_embeddings(reduction: str) -> None:
    p = problem(reduction=reduction, label_smoothing=0.1)
    tokens = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    weight = p.linear_weight
    tied = p._replace(input=F.embedding(tokens, weight), linear_bias=None)
    (expected,) = gradients(tied.theirs(), [weight], create_graph=True)
    (ours,) = gradients(tied.ours(), [weight], create_graph=True)
    assert_close(ours, expected)
    twice = [gradients(grad.square(), [weight], retain_graph=True) for grad in (ours, expected)]
    assert_close(twice[0], twice[1])
    tied = p._replace(input=F.embedding(tokens, weight), linear_bias=weight.sum(-1))
    tied.ours().sum().backward(retain_graph=True)
    assert_close(weight.grad, gradients(tied.theirs(), [weight])[0])


def test_a_batch_of_gradients() -> None:
    p = problem(reduction="none", label_smoothing=0.1)
    for reduction in REDUCTIONS:
        ours, theirs = p.ours(reduction=reduction), p.theirs(reduction=reduction)
        grads = torch.randn(4, *ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        assert_close(
            torch.autograd.grad(ours, p.leaves, grads, is_grads_batched=True, retain_graph=True),
            torch.autograd.grad(theirs, p.leaves, grads, is_grads_batched=True, retain_graph=True),
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any, reduction: Any) -> None:
    p = problem(reduction=reduction, label_smoothing=0.1)
    with mode():
        loss, nll = p.ours(return_nll=True)
    assert not loss.requires_grad
    assert_close((loss, nll), tuple(x.detach() for x in p.theirs(return_nll=True)))


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoint(reentrant: bool) -> None:
    p = problem(label_smoothing=0.1)

    def loss(x: Tensor) -> Tensor:
        return p._replace(input=x.tanh()).ours()

    loss(p.input).backward()
    expected = p.input.grad
    p.input.grad = None
    checkpointed = checkpoint(loss, p.input, use_reentrant=reentrant)
    assert isinstance(checkpointed, Tensor)
    checkpointed.backward()
    assert_close(p.input.grad, expected)


def test_threads() -> None:
    problems = [problem(seed, label_smoothing=0.1) for seed in range(8)]
    expected = [gradients(p.theirs(), p.leaves) for p in problems]
    found: list[Any] = [None] * len(problems)

    def work(i: int) -> None:
        found[i] = gradients(problems[i].ours(), problems[i].leaves)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_close(found, expected)


# --- compiled

SCHEDULE = [0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 0.1, 0.0]


def test_tensor_strength_compiles_once_and_floats_at_most_twice() -> None:
    p = problem()
    for shape, most in (((), 1), ((N,), 1), (None, 2)):
        graphs = Graphs()
        compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend=graphs)
        for eps in SCHEDULE:
            strength = eps if shape is None else torch.full(shape, eps, dtype=torch.float64)
            loss = compiled(p.input, p.linear_weight, p.target, label_smoothing=strength)
            expected = F.cross_entropy(F.linear(p.input, p.linear_weight), p.target, label_smoothing=eps)
            assert_close(loss, expected)
        assert 1 <= graphs.count <= most


@pytest.mark.parametrize("seed", [0, 3, 5, 6, 7, 11])
def test_compiled_forward_and_backward(seed: int) -> None:
    torch.compiler.reset()
    p = drawn(seed)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, backend="aot_eager")
    bias = {"linear_bias": p.linear_bias, "softcap": p.softcap}
    loss, nll = compiled(p.input, p.linear_weight, p.target, return_nll=True, **bias, **p.options)
    expected = p.theirs(return_nll=True)
    assert_close((loss, nll), expected)
    assert_close(gradients(loss, p.leaves), gradients(expected[0], p.leaves))


def test_compiled_under_autocast_and_for_any_batch() -> None:
    p = problem(dtype=torch.float32)
    graphs = Graphs()
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, dynamic=True, backend=graphs)
    with torch.autocast("cpu"):
        for n in (2, 3, 4):
            given = p.input.detach()[:n], p.linear_weight, p.target[:n]
            assert_close(compiled(*given), linear_cross_entropy(*given))
    assert graphs.count == 1


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


# --- torch's options


@needs_options
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({}, [3, 3, 1]),
        ({"acc_policy": "compact", "acc_dtype": torch.float32, "allow_retain_graph": True}, [3, 3, 1]),
        ({"batch_chunk_size": 2}, [2, 2, 2, 1]),
        ({"batch_chunk_size": 2, "chunking_method": None}, [2, 2, 2, 1]),
        ({"batch_chunk_size": 99}, [7]),
        ({"chunking_method": None}, [7]),
        ({"chunking_method": "aspect_ratio"}, [4, 3]),
        ({"chunking_method": "aspect_ratio:2"}, [2, 2, 2, 1]),
        ({"chunking_method": "aspect_ratio:99"}, [1] * 7),
        ({"chunking_method": "aspect_ratio", "batch_chunk_size": 4}, [4, 3]),
    ],
    ids=str,
)
def test_options_of_torch_set_the_chunks(
    given: dict[str, Any], sizes: list[int], reduction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = problem(label_smoothing=0.1, reduction=reduction)
    options = nn.LinearCrossEntropyOptions(**given)
    cut: list[list[int]] = []
    whole = linear._chunks

    def chunks(*args: Any) -> Any:
        cut.append([part.stop - part.start for part in whole(*args)])
        return whole(*args)

    monkeypatch.setattr(linear, "_chunks", chunks)
    loss, expected = p.ours(options=options), p.theirs()
    assert_close(loss, expected)
    assert_close(gradients(loss, p.leaves), gradients(expected, p.leaves))
    assert cut == [sizes] * len(cut) != []
    head = LinearCrossEntropyLoss(D, K, options=options, reduction=reduction, dtype=torch.float64)  # pyright: ignore[reportArgumentType]
    cut.clear()
    assert_close(
        head(p.input, p.target), F.cross_entropy(head.linear(p.input), p.target, reduction=reduction)
    )
    assert cut == [sizes]
    assert f"options={options}, label_smoothing" in repr(head)
    assert copy.deepcopy(head).chunking == options


@needs_options
@pytest.mark.parametrize("method", ["aspect_ratio", "aspect_ratio:2", "aspect_ratio:3", None])
@pytest.mark.parametrize("size", [None, 1, 5, 400])
def test_chunks_are_as_large_as_torchs(method: str | None, size: int | None) -> None:
    options = nn.LinearCrossEntropyOptions(chunking_method=method, batch_chunk_size=size)
    for rows in (1, 2, 7, 64, 300):
        for features, classes in ((1, 1), (4, 1), (3, 5), (4, 64), (64, 1000)):
            asked = rows, features, classes
            try:
                theirs = options._adjust(*asked, torch.float32).batch_chunk_size
            except ValueError:
                if (
                    size
                    == 1
                    == linear.chunk_rows(dataclasses.replace(options, batch_chunk_size=None), *asked)
                ):
                    continue  # torch compares it with 0
                with pytest.raises(ValueError, match=r"^options must have a batch_chunk"):
                    linear.chunk_rows(options, *asked)
            else:
                assert min(linear.chunk_rows(options, *asked) or 0, rows) == theirs, asked


@needs_options
def test_compiled_with_options() -> None:
    torch.compiler.reset()
    p = problem(label_smoothing=0.1)
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, dynamic=True, backend="aot_eager")
    chunkings: list[dict[str, Any]] = [{"batch_chunk_size": 2}, {"chunking_method": "aspect_ratio"}]
    for given in chunkings:
        options = nn.LinearCrossEntropyOptions(**given)
        loss = compiled(p.input, p.linear_weight, p.target, linear_bias=p.linear_bias, options=options)
        expected = p.theirs(label_smoothing=0.0)
        assert_close(loss, expected)
        assert_close(gradients(loss, p.leaves), gradients(expected, p.leaves))


@pytest.mark.parametrize("bad", [{"batch_chunk_size": 2}, 2, "auto"], ids=str)
def test_options_of_another_kind(bad: Any) -> None:
    message = f"^options must be a torch.nn.LinearCrossEntropyOptions, got {type(bad).__name__}$"
    with pytest.raises(ValueError, match=message):
        problem().ours(options=bad)
    with pytest.raises(ValueError, match=message):
        LinearCrossEntropyLoss(D, K, options=bad)


# --- the module


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


# --- bad input

X, W, Y = torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 1])

BAD: list[tuple[dict[str, Any], str]] = [
    ({"input": [[0.0]]}, "input must be a tensor, got list"),
    ({"linear_weight": None}, "linear_weight must be a tensor, got NoneType"),
    ({"linear_bias": 0.5}, "linear_bias must be a tensor, got float"),
    ({"target": [0, 1]}, "target must be a tensor, got list"),
    ({"input": X.long()}, "input must be floating point, got torch.int64"),
    ({"linear_weight": W.long()}, "linear_weight must be floating point, got torch.int64"),
    ({"linear_weight": W.to(torch.complex64)}, "linear_weight must be floating point, got torch.complex64"),
    ({"linear_bias": torch.zeros(4).long()}, "linear_bias must be floating point, got torch.int64"),
    ({"linear_weight": W.double()}, "linear_weight must have input's type torch.float32, got torch.float64"),
    (
        {"linear_bias": torch.zeros(4).half()},
        "linear_bias must have input's type torch.float32, got torch.float16",
    ),
    ({"linear_weight": W[0]}, "linear_weight must have shape (K, D), got (3,)"),
    ({"linear_weight": W[:0]}, "linear_weight must have shape (K, D), got (0, 3)"),
    ({"linear_weight": W.T}, "input must have shape (..., D) with D=4 as linear_weight, got (2, 3)"),
    ({"input": torch.tensor(0.0)}, "input must have shape (..., D) with D=3 as linear_weight, got ()"),
    (
        {"input": X[0], "linear_weight": torch.zeros(4, 2, 3)},
        "input must have shape (N, D) for linear_weight of shape (4, 2, 3), got (3,)",
    ),
    (
        {"input": X[None], "linear_weight": torch.zeros(4, 2, 3)},
        "input must have shape (N, D) for linear_weight of shape (4, 2, 3), got (1, 2, 3)",
    ),
    ({"linear_bias": torch.zeros(3)}, "linear_bias must have shape (4,), got (3,)"),
    ({"linear_bias": torch.zeros(1)}, "linear_bias must have shape (4,), got (1,)"),
    (
        {"linear_weight": torch.zeros(4, 2, 3), "linear_bias": torch.zeros(4), "target": Y},
        "linear_bias must have shape (4, 2), got (4,)",
    ),
    ({"softcap": 0.0}, "softcap must be finite and above 0, got 0.0"),
    ({"softcap": -1.0}, "softcap must be finite and above 0, got -1.0"),
    ({"softcap": torch.inf}, "softcap must be finite and above 0, got inf"),
    ({"softcap": torch.nan}, "softcap must be finite and above 0, got nan"),
    ({"softcap": "30"}, "softcap must be a number, got str"),
    ({"engine": "dense"}, "engine must be one of 'reference', 'linear', got 'dense'"),
    (
        {"engine": "linear", "linear_weight": torch.zeros(4, 2, 3), "target": torch.zeros(2, 2).long()},
        "engine='linear' cannot serve: linear_weight has more than 2 dimensions",
    ),
    (
        {"target": Y[:1]},
        "target must have shape (2,) (class indices) or (2, 4) (class probabilities) for input of shape "
        "(2, 4), got (1,)",
    ),
    ({"target": Y + 3}, "target must hold class indices in [0, 4) or ignore_index=-100, got 4"),
    ({"label_smoothing": 1.5}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": torch.zeros(3)}, "label_smoothing must broadcast against the rows' (2,), got (3,)"),
    ({"weight": torch.ones(3)}, "weight must have shape (K,) with K=4 classes, got (3,)"),
    (
        {"prior": torch.ones(3) / 3},
        "prior must have shape (K,) or (K, K) with K=4 classes, got (3,)",
    ),
    ({"z_loss": -1.0}, "z_loss must be finite and at least 0, got -1.0"),
    ({"reduction": "batchmean"}, "reduction must be one of 'none', 'mean', 'sum', got 'batchmean'"),
    (
        {"denominator": 1.0, "reduction": "sum"},
        "denominator goes with reduction=\"mean\" only, got reduction='sum'",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"input": X, "linear_weight": W, "target": Y, **arguments}
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        linear_cross_entropy(given.pop("input"), given.pop("linear_weight"), given.pop("target"), **given)
    assert str(caught.value) == message


def test_bad_input_of_the_module() -> None:
    with pytest.raises(ValueError, match=r"^softcap must be finite and above 0, got 0$"):
        LinearCrossEntropyLoss(D, K, softcap=0)
    with pytest.raises(ValueError, match=r"^z_loss must be finite and at least 0, got -1$"):
        LinearCrossEntropyLoss(D, K, z_loss=-1)
    with pytest.raises(ValueError, match=r"^label_smoothing must lie in \[0, 1\], got 2$"):
        LinearCrossEntropyLoss(D, K, label_smoothing=2)


def test_no_ignore_index_is_the_default_one() -> None:
    # As torch's, whose default is None.
    p = problem()
    p.target[0] = -100
    assert_close(p.ours(ignore_index=None), p.ours())


@pytest.mark.parametrize("name", ["linear_weight", "linear_bias"])
def test_a_head_in_two_places(name: str) -> None:
    # Made on the meta device, and never filled: torch's own product would be whatever lies in memory.
    head: dict[str, Any] = {"linear_weight": torch.zeros(3, 4), "linear_bias": torch.zeros(3)}
    head[name] = head[name].to("meta")
    with pytest.raises(ValueError, match=f"^{name} must be on input's device cpu, got meta$"):
        linear_cross_entropy(torch.zeros(2, 4), target=torch.tensor([0, 1]), **head)
