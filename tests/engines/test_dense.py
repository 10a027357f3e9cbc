"""The dense engine gives the reference's numbers, for every kind of target and prior."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.cases import INF, kernel, random
from tests.engines.private import (
    ABSENT,
    BLOCK,
    DTYPES,
    KINDS,
    Kind,
    Measures,
    assert_equals_reference,
    assert_near,
    compute_dtype,
    cross_entropy,
    losses,
    total,
)

pytestmark = kernel


# Below, at and above a block and a vector register.
@pytest.mark.parametrize("K", [2, 5, 33, BLOCK, 2 * BLOCK + 1])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_equals_reference(kind: Kind, K: int) -> None:
    for dtype in DTYPES if K in (5, 2 * BLOCK + 1) else DTYPES[:2]:
        z = (3 * random(6, K)).to(dtype)
        measures = kind.measures(z)
        if measures.prior is not None and K == 2:  # or there is nothing to leave out of it
            measures = measures._replace(prior=torch.full_like(measures.prior, 0.5))
        assert_equals_reference(z, measures)


@pytest.mark.parametrize("weight", [None, torch.tensor([2.5])], ids=["unweighted", "weight"])
@pytest.mark.parametrize("exclude", [False, True])
def test_one_class(exclude: bool, weight: Tensor | None) -> None:
    z = random(3, 1).float()
    for target in (torch.zeros(3, dtype=torch.long), torch.full((3, 1), 0.5)):
        if not (target.is_floating_point() and exclude):
            assert_equals_reference(
                z, Measures(target, torch.ones(3, dtype=torch.bool), None, weight, exclude)
            )


def only_class(K: int, N: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Logits of which the label's class alone is left."""
    target = torch.arange(N) * 3 % K
    return random(N, K).to(dtype).masked_fill(torch.arange(K) != target[:, None], -INF), target


ONLY: dict[str, Callable[[int], dict[str, Any]]] = {
    "uniform": lambda K: {},
    "prior": lambda K: {"prior": (random(K).abs() + 0.1).softmax(-1)},
    "matrix": lambda K: {"prior": random(K, K).softmax(-1)},
    "weights": lambda K: {"weight": random(K).abs() + 0.3},
    "prior and weights": lambda K: {"prior": random(K).softmax(-1), "weight": random(K).abs() + 0.3},
    "others": lambda K: {"off_target": "others"},
    "others and weights": lambda K: {"off_target": "others", "weight": random(K).abs() + 0.3},
    "probabilities": lambda K: {"soft": True},
    "probabilities, prior and weights": lambda K: {
        "soft": True,
        "prior": random(K).softmax(-1),
        "weight": random(K).abs() + 0.3,
    },
}


# 200 rows of a few classes are computed side by side, and so are the pixels of a map.
@pytest.mark.parametrize("place", ["rows", "turned", "map"])
@pytest.mark.parametrize("K", [1, 5, 40])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", ONLY)
def test_the_only_class_has_no_gradient(case: str, dtype: torch.dtype, K: int, place: str) -> None:
    options = ONLY[case](K)
    if K == 1 and "off_target" in options:
        K, options = 2, ONLY[case](2)  # which one class alone refuses
    z, target = only_class(K, 3 if place == "rows" else 200, dtype)
    if options.pop("soft", False):
        target = F.one_hot(target, K).to(compute_dtype(z))
    if place == "map":
        z = z.t().contiguous()[None]
        target = target.t()[None] if target.dim() == 2 else target[None]
    options = {name: x.to(compute_dtype(z)) if isinstance(x, Tensor) else x for name, x in options.items()}
    for eps, reduction in product((0.1, 0.3, 0.7, 1 / 3, 0.0, 1.0), ("mean", "sum", "none")):
        leaf = z.clone().requires_grad_()
        loss = cross_entropy(leaf, target, label_smoothing=eps, reduction=reduction, **options)
        loss.sum().backward()
        assert leaf.grad is not None
        assert leaf.grad.count_nonzero() == 0, (eps, reduction)


def test_target_class_in_another_shard() -> None:
    z = random(3, 7)
    target = torch.tensor([ABSENT, 2, ABSENT])
    for kind in (Kind(False, None, False, False), Kind(False, "vector", True, True)):
        assert_equals_reference(z, kind.measures(z)._replace(target=target))


# Whole blocks, parts of them, and all but one class.
MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "first block": lambda k: k < BLOCK,
    "first block and a bit": lambda k: k < BLOCK + 3,
    "middle block": lambda k: (k >= BLOCK) & (k < 2 * BLOCK),
    "last block": lambda k: k >= 2 * BLOCK,
    "every other class": lambda k: k % 2 == 0,
    "all but the first": lambda k: k > 0,
    "all but the last": lambda k: k < k.max(),
    "all but one": lambda k: k != BLOCK + 7,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.prior != "matrix"], ids=str)
def test_masked_classes(kind: Kind, mask: str) -> None:
    K = 2 * BLOCK + 9
    z = random(4, K).float()
    measures = kind.measures(z)
    masked = MASKS[mask](torch.arange(K))
    if not kind.soft:  # both a target that is masked and one that is not
        target = torch.tensor([int(masked.nonzero()[-1]), int((~masked).nonzero()[0])] * 2)
        measures = measures._replace(target=target)
    # In the last counted row no target is masked.
    z[:2, masked] = -INF
    assert_equals_reference(z, measures)


@pytest.mark.parametrize(
    ("soft", "prior"), [(False, None), (False, "vector"), (False, "matrix"), (True, None), (True, "vector")]
)
def test_prior_without_mass_on_what_is_valid(soft: bool, prior: str | None) -> None:
    z = random(5, 6)
    measures = Kind(soft, prior, True, not soft).measures(z)
    z[:, ::3] = -INF
    z[0, 2::3] = -INF
    z[1] = torch.where(torch.arange(6) == 2, 1.0, -INF)
    assert_equals_reference(z, measures)


# Multiples of 1/4, so that adding 10,000 is exact.
@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_common_offset_costs_nothing(offset: float) -> None:
    z = (random(4, BLOCK + 5) * 4).round().float() / 4
    target = torch.tensor([0, 5, BLOCK, BLOCK + 4])
    for find in (losses, total):
        near, far = (find(x, target, label_smoothing=0.1) for x in (z, z + offset))
        assert near[0].equal(far[0])
        assert near[1].equal(far[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_far_apart_logits(kind: Kind, dtype: torch.dtype) -> None:
    z = random(6, 12).to(dtype)
    z[0] = 1e30
    z[1] = torch.where(torch.arange(12) % 2 == 0, 1e30, -1e30)
    z[2] = 1e30 * random(12)
    z[3] = torch.linspace(-1e4, 1e4, 12)
    assert_equals_reference(z, kind.measures(z))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_masks_of_the_lowest_number(dtype: torch.dtype) -> None:
    """They are no masks, and more of them than one are too much to add up in their own type."""
    z = random(6, 12).to(dtype)
    z[:, 3:9] = torch.finfo(dtype).min
    for kind in KINDS:
        if not kind.soft and not kind.weight:
            assert_equals_reference(z, kind.measures(z))
    target = torch.tensor([0, 1, 2, 9, 10, 11])
    loss, _ = losses(z, target, label_smoothing=0.1, engine="reference")
    assert loss.isfinite().all()
    torch.testing.assert_close(total(z, target, label_smoothing=0.1)[0], loss.sum(), equal_nan=True)


def test_rising_maximum_over_blocks() -> None:
    # Each block's sums are scaled down again and again, to nothing.
    K = 5 * BLOCK
    for height in (1.0, 30.0, 1e3):
        z = (random(3, K) + height * (torch.arange(K) // BLOCK)).float()
        for kind in (Kind(False, None, False, False), Kind(True, "vector", True, False), KINDS[3]):
            assert_equals_reference(z, kind.measures(z))
            assert_equals_reference(z.flip(-1), kind.measures(z))


@pytest.mark.parametrize("K", [10_000, 256_000])
def test_probabilities_that_underflow(K: int) -> None:
    """exp of all but the largest is tiny, denormal or 0, and a masked class is told from them."""
    z = torch.zeros(3, K)
    z[0, 1:] = -80.0
    z[1, 1:] = torch.linspace(-86, -110, K - 1)
    z[2, 1:] = -1e4
    target = torch.tensor([0, 5, K - 1])
    loss, grad = losses(z, target, label_smoothing=0.1, engine="dense")
    exact, by_z = losses(z.double(), target, label_smoothing=0.1, engine="reference")
    torch.testing.assert_close(loss, exact.float())
    torch.testing.assert_close(grad, by_z.float(), rtol=1e-5, atol=1.2e-38)


# The formula written out in the same type: few rows, and from 2 classes to those of a large vocabulary.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("K", [2, 3, 10, 100, 1000, 4096, 32_001, 256_000])
def test_no_rougher_than_the_naive_formula(K: int, dtype: torch.dtype) -> None:
    rows = 64 if K <= 100 else 4
    z = (3 * random(rows, K)).to(dtype)
    target = torch.arange(rows) * 997 % K

    def naive(z: Tensor) -> tuple[Tensor, Tensor]:
        leaf = z.detach().requires_grad_()
        log_q = leaf.log_softmax(-1)
        loss = 0.9 * -log_q.gather(-1, target[:, None]).squeeze(-1) + 0.1 * -log_q.mean(-1)
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]

    truth, rough = naive(z.double()), naive(z)
    ours = losses(z, target, label_smoothing=0.1, engine="dense")
    for mine, theirs, exact in zip(ours, rough, truth, strict=True):
        assert_near(mine, theirs, exact)
    summed, by_z = total(z, target, label_smoothing=0.1)
    assert_near(summed, rough[0].sum(), truth[0].sum())
    assert_near(by_z, rough[1], truth[1])
