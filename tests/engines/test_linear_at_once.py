"""A loss that is a sum of terms, and its gradient, in one pass."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import mixed, priors
from labelsmooth._engines import ahead, dense
from labelsmooth.formulas import ConfidencePenalty, MarginSmoothing, MaxSup
from labelsmooth.functional import cross_entropy
from tests.cases import INF, kernel, random
from tests.engines.private import BLOCK, DTYPES

pytestmark = kernel

N, K = 6, BLOCK + 30
Y = torch.tensor([0, 5, -100, BLOCK, K - 1, 8])
PRIOR = random(K).softmax(-1)
OPTIONS: dict[str, dict[str, Any]] = {
    "prior": {"prior": PRIOR},
    "prior per class": {"prior": random(K, K).softmax(-1)},
    "weight": {"weight": random(K).abs()},
    "others": {"off_target": "others"},
    "MaxSup": {"formula": MaxSup()},
    "margin": {"formula": MarginSmoothing(margin=2.0, squared=True), "prior": PRIOR},
    "penalty": {"formula": ConfidencePenalty(), "off_target": "others"},
    "z-loss": {"z_loss": 0.1},
    "per sample": {"label_smoothing": random(N).sigmoid()},
    "sample weight": {"sample_weight": random(N).abs()},
    "denominator": {"denominator": 17.0},
    "mixed": {"target": mixed(Y.clamp(min=0), Y.flip(0).clamp(min=0), 0.7)},
    "probabilities": {"target": random(N, K).softmax(-1)},
}


def logits(dtype: torch.dtype = torch.float64) -> Tensor:
    z = 3 * random(N, K)
    z[4, ::2] = -INF
    z[4, K - 1] = 1.0
    return z.to(dtype).requires_grad_()


def loss_of(z: Tensor, **options: Any) -> Tensor:
    given: dict[str, Any] = {"target": Y, "label_smoothing": 0.1, **options}
    return cross_entropy(z, given.pop("target"), **given)


class Calls:
    """The calls of two functions of the kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = {"labelsmooth_at_once": 0, "labelsmooth_backward": 0}
        for name in self.count:
            monkeypatch.setattr(dense.kernel(), name, self._counted(name))

    def _counted(self, name: str) -> Any:
        function = getattr(dense.kernel(), name)

        def counted(*args: Any) -> Any:
            self.count[name] += 1
            return function(*args)

        return counted


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    ahead._habits.clear()
    return Calls(monkeypatch)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", OPTIONS)
def test_one_pass_gives_the_bits_of_two(name: str, reduction: str, dtype: torch.dtype, calls: Calls):
    if name == "denominator" and reduction == "sum":
        pytest.skip("a denominator goes with a mean")
    z, options = logits(dtype), {**OPTIONS[name], "reduction": reduction}
    one = loss_of(z, **options)
    (found,) = torch.autograd.grad(one, z)
    assert calls.count == {"labelsmooth_at_once": 1, "labelsmooth_backward": 0}
    loss_of(z, **options)  # no backward pass comes, so that the next gradient is not computed ahead
    two = loss_of(z, **options)
    (again,) = torch.autograd.grad(two, z)
    assert calls.count == {"labelsmooth_at_once": 2, "labelsmooth_backward": 1}
    assert one.equal(two)
    assert found.equal(again)


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_the_gradient(name: str, calls: Calls):
    z, reference = logits(), logits()
    (found,) = torch.autograd.grad(loss_of(z, **OPTIONS[name]), z)
    expected = torch.autograd.grad(loss_of(reference, **OPTIONS[name], engine="reference"), reference)[0]
    assert calls.count["labelsmooth_at_once"] == 1
    assert_close(found, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("factor", [0.0, -3.0, 65536.0])
def test_another_factor(factor: float, calls: Calls):
    z = logits()
    (one,) = torch.autograd.grad(loss_of(z, formula=MaxSup()), z)
    (found,) = torch.autograd.grad(factor * loss_of(z, formula=MaxSup()), z)
    assert calls.count == {"labelsmooth_at_once": 2, "labelsmooth_backward": 1}
    assert_close(found, factor * one, rtol=1e-13, atol=1e-16 * abs(factor))


def test_a_factor_that_comes_again_is_learnt(calls: Calls):
    z, found = logits(), []
    for step in range(4):
        found += torch.autograd.grad(loss_of(z, prior=PRIOR) / 8, z)
        # The first was computed ahead for another factor, the second not ahead.
        assert calls.count == {"labelsmooth_at_once": max(step, 1), "labelsmooth_backward": min(step + 1, 2)}
    for again in found[1:]:
        assert again.equal(found[0])


def test_a_second_backward_pass_is_not_the_first_ones_memory(calls: Calls):
    z = logits()
    loss = loss_of(z, formula=MaxSup())
    (first,) = torch.autograd.grad(loss, z, retain_graph=True)
    expected = first.clone()
    first.fill_(7.0)  # as an optimiser or a hook may
    (second,) = torch.autograd.grad(loss, z, retain_graph=True)
    assert second.equal(expected)
    assert (first == 7.0).all()
    (graph,) = torch.autograd.grad(loss, z, create_graph=True)
    assert_close(graph.detach(), expected)


def test_none_is_needed_without_a_backward_pass(calls: Calls):
    z = logits()
    with torch.no_grad():
        loss_of(z, prior=PRIOR)
    loss_of(z.detach(), prior=PRIOR)
    loss_of(z, prior=PRIOR, reduction="none").sum().backward()
    assert calls.count == {"labelsmooth_at_once": 0, "labelsmooth_backward": 1}


def test_a_formula_in_python_takes_two_passes(calls: Calls):
    z = logits()
    loss_of(z, formula=ConfidencePenalty(threshold=1.0)).backward()
    assert calls.count == {"labelsmooth_at_once": 0, "labelsmooth_backward": 1}


def test_priors_over_a_few_classes_take_two_passes(calls: Calls):
    z = logits()
    few = priors.per_sample(random(N, 4).softmax(-1), torch.arange(4).expand(N, 4))
    loss_of(z, prior=few).backward()
    assert calls.count == {"labelsmooth_at_once": 0, "labelsmooth_backward": 1}


def test_segmentation_maps_keep_their_layout(calls: Calls):
    z, target = random(2, 3, 8, 8).requires_grad_(), torch.randint(3, (2, 8, 8))
    (expected,) = torch.autograd.grad(loss_of(z, target=target, engine="reference"), z)
    several: list[dict[str, Any]] = [{"weight": torch.ones(3)}, {"prior": torch.eye(3) / 2 + 1 / 6}]
    for options in several:
        (found,) = torch.autograd.grad(loss_of(z, target=target, **options), z)
        assert found.stride() == z.stride()
        if "weight" in options:
            assert_close(found, expected, rtol=1e-12, atol=1e-15)
    assert calls.count["labelsmooth_at_once"] == 2


def test_a_target_out_of_range(calls: Calls):
    with pytest.raises(ValueError, match=rf"^target must hold class indices in \[0, {K}\)"):
        loss_of(logits(), target=Y.clamp(min=0) + 1, prior=PRIOR)


def test_logits_that_change_before_the_backward_pass_are_refused(calls: Calls):
    z = logits() * 1.0
    loss = loss_of(z, formula=MaxSup())
    z.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_empty_and_ignored_batches(calls: Calls):
    empty = torch.zeros(0, K, requires_grad=True)
    assert loss_of(empty, target=Y[:0], prior=PRIOR, denominator=3.0) == 0
    z = logits()
    loss_of(z, target=torch.full((N,), -100), prior=PRIOR, reduction="sum").backward()
    assert z.grad is not None
    assert (z.grad == 0).all()
