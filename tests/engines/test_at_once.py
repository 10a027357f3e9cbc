"""What the pass that does all at once finds is what the statistics and the formulas give."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth import CrossEntropyLoss, functional, schedules
from labelsmooth.formulas import LabelSmoothing
from tests.cases import INF, kernel, random
from tests.engines.private import (
    BLOCK,
    DTYPES,
    cross_entropy,
)

pytestmark = kernel


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0, torch.tensor(0.3)], ids=str)
def test_all_at_once(eps: Any, reduction: str, dtype: torch.dtype) -> None:
    K = BLOCK + 30
    z = 3 * random(7, K).to(dtype)
    target = torch.tensor([0, 5, -100, BLOCK - 1, BLOCK, K - 1, 8])
    z[5, 3:] = -INF if eps == 1 else z[5, 3:]
    z[6, ::2] = -INF
    z[6, 8] = 1
    found: list[list[Tensor]] = []
    # Weights of 1 change nothing but the way.
    for options in ({}, {"sample_weight": torch.ones(7)}):
        leaf = z.detach().clone().requires_grad_()
        loss, nll = cross_entropy(
            leaf, target, label_smoothing=eps, reduction=reduction, engine="dense", return_nll=True, **options
        )
        assert not nll.requires_grad
        found.append([loss.detach(), nll, torch.autograd.grad(3 * loss, leaf)[0]])
    accuracy: dict[str, Any] = {"rtol": 4 * torch.finfo(found[0][0].dtype).eps, "atol": 1e-15}
    torch.testing.assert_close(found[0][:2], found[1][:2], **accuracy)
    accuracy["rtol"] = 4 * torch.finfo(dtype).eps
    accuracy["atol"] = 4 * torch.finfo(dtype).smallest_normal if dtype == torch.float16 else 1e-9
    torch.testing.assert_close(found[0][2], found[1][2], **accuracy)


def at_once(loss: Callable[..., object], *given: Any, **options: Any) -> bool:
    """Whether torch was not even asked which rows count."""
    with torch.profiler.profile() as profiled:
        loss(*given, **options)
    return all(event.key != "aten::bitwise_not" for event in profiled.key_averages())


def test_serves_the_plain_case() -> None:
    for z in (random(3, 5), random(3, 5, 2).float(), random(5)):
        target = torch.zeros_like(z.select(min(1, z.dim() - 1), 0), dtype=torch.long)
        for eps in (0, 0.1, torch.tensor(0.2)):
            assert at_once(cross_entropy, z, target, label_smoothing=eps)
            assert at_once(cross_entropy, z, target, label_smoothing=eps, reduction="sum", engine="dense")
        assert not at_once(cross_entropy, z, target, reduction="none")


def test_a_copy_of_a_module_takes_the_same_path() -> None:
    """Whose formula is as good as the one that is meant where none is named."""
    z, target, criterion = random(3, 5), torch.tensor([0, 1, 2]), CrossEntropyLoss(label_smoothing=0.3)
    named = CrossEntropyLoss(label_smoothing=0.3, formula=LabelSmoothing())
    for one in (criterion, copy.deepcopy(criterion), pickle.loads(pickle.dumps(criterion)), named):
        assert at_once(one, z, target)
        assert repr(one) == repr(criterion)


def test_divergence() -> None:
    """With more care where classes are masked, or an index is that of nobody."""
    label_smoothing_loss: Any = functional.label_smoothing_loss
    for z, dim in ((random(3, 5), -1), (random(3, 5, 4), 1), (random(3, 4, 5), -1), (random(5), 0)):
        target = torch.zeros_like(z.select(dim, 0), dtype=torch.long)
        for smoothing in (0, 0.1, 1.0, torch.tensor(0.2), schedules.constant(0.3)):
            assert at_once(label_smoothing_loss, z, target, smoothing, dim)
            leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
            loss = label_smoothing_loss(leaf, target, smoothing, dim)
            eps = smoothing.eps.item() if isinstance(smoothing, schedules.Schedule) else float(smoothing)
            K = z.size(dim)
            p = (F.one_hot(target, K) * (1 - eps) + eps / K).movedim(-1, dim)
            expected = F.kl_div(other.log_softmax(dim), p, reduction="batchmean")
            torch.testing.assert_close(loss, expected)
            grads = (torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, other))
            torch.testing.assert_close(*grads)
    z, target = random(3, 5).index_fill(1, torch.tensor([4]), -INF), torch.tensor([0, 1, 2])
    torch.testing.assert_close(label_smoothing_loss(z, target), label_smoothing_loss(z[:, :4], target))
    assert not at_once(label_smoothing_loss, z, target)
    for nobody in (-100, torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max):
        with pytest.raises(ValueError, match="target must hold class indices"):
            label_smoothing_loss(z, torch.tensor([0, 1, nobody]))
