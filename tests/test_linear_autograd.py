"""A linear head under torch's machinery: backward twice, changes in between, checkpoints, the compiler."""

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from labelsmooth.functional import linear_cross_entropy
from tests.cases import REDUCTIONS
from tests.heads import K, N, gradients, problem
from tests.small import SCHEDULE, Graphs


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


@pytest.mark.slow
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


def test_compiled_under_autocast_and_for_any_batch() -> None:
    p = problem(dtype=torch.float32)
    graphs = Graphs()
    compiled = torch.compile(linear_cross_entropy, fullgraph=True, dynamic=True, backend=graphs)
    with torch.autocast("cpu"):
        for n in (2, 3, 4):
            given = p.input.detach()[:n], p.linear_weight, p.target[:n]
            assert_close(compiled(*given), linear_cross_entropy(*given))
    assert graphs.count == 1
