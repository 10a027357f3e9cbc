"""The dense engine gives the reference's numbers, however the logits lie and whatever stands in them."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import product
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from labelsmooth import functional, schedules
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import ABSENT, DIFFERENTIABLE, STATISTICS, Measures
from labelsmooth._engines import dense, reference
from labelsmooth._engines.layout import in_rows
from labelsmooth.engines import available
from labelsmooth.functional import _divergence
from labelsmooth.priors import PerSample
from tests import oracle
from tests.test_properties import Batch, batches, examples

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here

DENSE = available()["dense"]
pytestmark = pytest.mark.skipif(not DENSE.present, reason=str(DENSE))

INF, NAN = torch.inf, torch.nan
BLOCK = 1024  # of the kernel
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


class Kind(NamedTuple):
    soft: bool
    prior: str | None
    weight: bool
    exclude: bool

    def __str__(self) -> str:
        return "-".join(
            [
                "soft" if self.soft else "hard",
                self.prior or "uniform",
                *["weight"] * self.weight,
                *["others"] * self.exclude,
            ]
        )

    def measures(self, z: Tensor) -> Measures:
        """For those logits; the last row does not count."""
        real, N, K = compute_dtype(z), len(z), z.size(-1)
        target: Tensor = torch.arange(N) * 7 % K
        if self.soft:
            target = 2 * random(N, K).softmax(-1).to(real)  # which need not sum to 1
        priors = {None: None, "vector": (K,), "matrix": (K, K)}
        shape = priors[self.prior]
        prior = None
        if shape is not None:
            prior = random(*shape).abs()
            prior[..., 1::3] = 0
            prior = (prior / prior.sum(-1, keepdim=True)).to(real)
        weight = (random(K).abs() * (torch.arange(K) % 5 != 4)).to(real) if self.weight else None
        return Measures(target, torch.arange(N) < N - 1, prior, weight, self.exclude)


KINDS = [
    kind
    for kind in map(
        Kind._make, product([False, True], [None, "vector", "matrix"], [False, True], [False, True])
    )
    if not (kind.soft and (kind.prior == "matrix" or kind.exclude))
]


def answers(engine: Any, z: Tensor, measures: Measures, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics and gradient."""
    if engine is dense:
        found = dense.forward(z, measures)
        return found, dense.backward(grad, z, measures, found)
    leaf = z.detach().clone().requires_grad_()
    found = torch.stack(reference.row_statistics(leaf, measures)[:STATISTICS])
    return found.detach(), torch.autograd.grad(found[:DIFFERENTIABLE], leaf, grad)[0]


def double(measures: Measures) -> Measures:
    floating: list[Any] = [
        x.double() if isinstance(x, Tensor) and x.dtype.is_floating_point else x for x in measures
    ]
    return Measures(*floating)


def assert_near(ours: Tensor, naive: Tensor, truth: Tensor, size: float = 0.0) -> None:
    """At most twice as far from the truth as the naive one, and a few last digits, for it may have luck."""
    finite = truth.isfinite()
    assert ours.isfinite().equal(finite)
    torch.testing.assert_close(ours[~finite].double(), truth[~finite], rtol=0, atol=0, equal_nan=True)
    if finite.any():
        # float64 is its own truth.
        digits = (64 if ours.dtype == torch.float64 else 4) * torch.finfo(ours.dtype).eps
        worst = 2 * (naive.double() - truth)[finite].abs().amax() + digits * truth[finite].abs().amax().clamp(
            min=size
        )
        assert (ours.double() - truth)[finite].abs().amax() <= worst


def assert_equals_reference(z: Tensor, measures: Measures) -> None:
    grad = random(DIFFERENTIABLE, *z.shape[:-1]).to(compute_dtype(z))
    ours = answers(dense, z, measures, grad)
    naive = answers(reference, z, measures, grad)
    truth = answers(reference, z.double(), double(measures), grad.double())
    assert ours[0].dtype == compute_dtype(z)
    assert ours[1].dtype == z.dtype
    counted = measures.counted
    assert bool(ours[0][:, ~counted].isfinite().all())
    for one, other, exact in zip(ours[0], naive[0], truth[0], strict=True):
        for i in counted.nonzero():
            assert_near(one[i], other[i], exact[i], size=1.0)
    for one, other, exact in zip(ours[1], naive[1], truth[1], strict=True):
        assert_near(one, other, exact)


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


def losses(z: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The losses of the rows and the gradient of their sum."""
    leaf = z.detach().clone().requires_grad_()
    loss = cross_entropy(leaf, target, reduction="none", **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def total(z: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The sum and its gradient: what ``dense.uniform`` finds by itself."""
    leaf = z.detach().clone().requires_grad_()
    loss = cross_entropy(leaf, target, reduction="sum", engine="dense", **options)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]


BAD_ROWS: dict[str, list[tuple[float, slice]]] = {
    **{f"NaN at {k}": [(NAN, slice(k, k + 1))] for k in (0, 1023, 1024, 1030, 2047, 2048, 2056)},
    "NaN block": [(NAN, slice(BLOCK, 2 * BLOCK))],
    "NaN block first": [(NAN, slice(0, BLOCK))],
    "NaN block last": [(NAN, slice(2 * BLOCK, None))],
    "NaN block before -inf": [(NAN, slice(0, BLOCK)), (-INF, slice(BLOCK, None))],
    "NaN block after -inf": [(-INF, slice(0, BLOCK)), (NAN, slice(BLOCK, 2 * BLOCK))],
    "NaN in a block of -inf": [(-INF, slice(0, BLOCK)), (NAN, slice(5, 6))],
    "NaN and -inf only": [(-INF, slice(None)), (NAN, slice(2000, 2001))],
    "all NaN": [(NAN, slice(None))],
    "all -inf": [(-INF, slice(None))],
    "inf first": [(INF, slice(0, 1))],
    "inf last": [(INF, slice(2056, 2057))],
    "inf at the target": [(INF, slice(3, 4))],
    "NaN at the target": [(NAN, slice(3, 4))],
    "inf and -inf": [(INF, slice(5, 6)), (-INF, slice(6, 7))],
    "two inf": [(INF, slice(5, 7))],
}


@pytest.mark.parametrize("what", BAD_ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_rows_without_a_distribution_are_nan(dtype: torch.dtype, what: str) -> None:
    K = 2 * BLOCK + 9
    z = random(3, K).to(dtype)
    clean = z.clone()
    for value, where in BAD_ROWS[what]:
        z[1, where] = value
    target = torch.tensor([1, 3, 5])
    soft = F.one_hot(target, K).float()
    lse = dense.forward(z, Measures(target, torch.ones(3, dtype=torch.bool)))[0]
    assert lse.isnan().tolist() == [False, True, False]
    options: list[tuple[Tensor, dict[str, Any]]] = [
        (target, {"engine": "dense"}),
        (target, {"engine": "dense", "weight": torch.ones(K), "off_target": "others"}),
        (soft, {"engine": "dense"}),
    ]
    for eps in (0.0, 0.1, 1.0):
        for y, chosen in options:
            loss, grad = losses(z, y, label_smoothing=eps, **chosen)
            expected, of_reference = losses(z, y, label_smoothing=eps, **{**chosen, "engine": "reference"})
            assert loss.isnan().tolist() == expected.isnan().tolist() == [False, True, False]
            assert grad[1].isnan().any()
            assert grad[1].isnan().equal(of_reference[1].isnan()) or grad[1].isnan().all()
            assert grad[::2].equal(losses(clean, y, label_smoothing=eps, **chosen)[1][::2])
        summed, grad = total(z, target, label_smoothing=eps)
        assert summed.isnan()
        assert grad[1].isnan().any()
        assert grad[::2].equal(total(clean, target, label_smoothing=eps)[1][::2])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_that_do_not_count_reach_nothing(kind: Kind, bad: float) -> None:
    z = random(4, 7).float()
    measures = kind.measures(z)
    counted = torch.tensor([True, False, True, False])
    grad = random(DIFFERENTIABLE, 4).float()
    expected = answers(dense, z, measures._replace(counted=counted), grad)
    z[1::2] = bad
    target = measures.target.clone()
    if kind.soft:
        target[1::2] = bad
    else:
        target[1], target[3] = -5, 2**40
    statistics, by_z = answers(dense, z, measures._replace(target=target, counted=counted), grad)
    assert statistics.equal(expected[0])
    assert by_z.equal(expected[1])
    assert not statistics[:, 1::2].any()
    assert not by_z[1::2].any()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_ignored_rows_reach_no_mean(bad: float) -> None:
    z = random(4, 7)
    keep = [0, 2]
    target = torch.tensor([1, 6, 3, 6])
    expected = total(z[keep], target[keep], label_smoothing=0.1)
    z[1::2] = bad
    loss, grad = total(z, target, label_smoothing=0.1, ignore_index=6)
    assert loss.equal(expected[0])
    assert grad[keep].equal(expected[1])
    assert not grad[1::2].any()


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


# Views whose rows the kernel reads where they lie.
VIEWS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: random(6, 40),
    "sliced classes": lambda: random(6, 50)[:, :-10],
    "offset": lambda: random(8, 50)[1:-1, 7:47],
    "every other row": lambda: random(12, 40)[::2],
    "expanded": lambda: random(1, 40).expand(6, 40),
    "expanded inside": lambda: random(2, 1, 40).expand(2, 3, 40),
    "expanded outside": lambda: random(3, 40).expand(2, 3, 40),
    "transposed rows": lambda: random(3, 2, 40).transpose(0, 1),
    "shifted tokens": lambda: random(2, 4, 40)[:, :-1],
    "shifted tokens, sliced classes": lambda: random(2, 4, 50)[:, 1:, 3:43],
    "every other token": lambda: random(2, 6, 41)[:, ::2, 1:],
    "channels last": lambda: random(2, 40, 3, 5).contiguous(memory_format=torch.channels_last).movedim(1, -1),
    "one row": lambda: random(5, 40, 9)[2:3].transpose(1, 2)[:, 4:5].contiguous()[..., :39],
    "one dimension": lambda: random(50)[5:45],
    "one class": lambda: random(6, 4)[:, 2:3],
    "three dimensions that merge": lambda: random(2, 3, 4, 50)[..., :40],
}
# And those that it cannot.
COPIED: dict[str, Callable[[], Tensor]] = {
    "classes first": lambda: random(40, 6).T,
    "every other class": lambda: random(6, 80)[:, ::2],
    "expanded classes": lambda: random(6, 1).expand(6, 40),
    "channels first": lambda: random(2, 40, 3, 5).movedim(1, -1),
    "three dimensions": lambda: random(3, 4, 5, 40)[:, :-1, :-1],
}


def assert_layout_does_not_matter(view: Tensor) -> None:
    K = view.size(-1)
    target = torch.arange(view[..., 0].numel()).reshape(view.shape[:-1]) % K
    # A target's layout does not matter either.
    target = torch.stack([target, target], dim=-1)[..., 0]
    counted = target != 1
    grad = random(DIFFERENTIABLE, *target.shape, 2)[..., 0]
    weight = torch.stack([random(K).abs()] * 2, dim=-1)[:, 0]
    prior = torch.stack([random(K).softmax(-1)] * 2, dim=-1)[:, 0]
    for dtype in (torch.float64, torch.float32):
        memory = view.as_strided((view.untyped_storage().nbytes() // 8,), (1,), 0).to(dtype)
        z = memory.as_strided(view.size(), view.stride(), view.storage_offset())
        measures = Measures(target, counted, prior.to(dtype), weight.to(dtype))
        ours = answers(dense, z, measures, grad.to(dtype))
        plain = answers(dense, z.contiguous(), measures, grad.to(dtype))
        assert ours[0].equal(plain[0])
        assert ours[1].equal(plain[1])


@pytest.mark.parametrize("layout", VIEWS)
def test_rows_are_read_where_they_lie(layout: str) -> None:
    z = VIEWS[layout]()
    read, *_ = in_rows(z)
    assert read.data_ptr() == z.data_ptr()
    assert_layout_does_not_matter(z)


@pytest.mark.parametrize("layout", COPIED)
def test_scattered_rows_are_copied(layout: str) -> None:
    z = COPIED[layout]()
    read, *_ = in_rows(z)
    assert read.is_contiguous()
    assert_layout_does_not_matter(z)


# (B, T, V) as a model gives it, to a loss that wants (B, V, T); images; a language model's shifted tokens.
CLASS_SECOND: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens": lambda z: z.transpose(1, 2),
    "shifted": lambda z: z[:, :-1].transpose(1, 2),
    "image": lambda z: z.unflatten(1, (3, 2)).permute(0, 3, 1, 2),
    "copied": lambda z: z.transpose(1, 2).contiguous(),
    "rows": lambda z: z.flatten(0, 1),
}


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("view", CLASS_SECOND)
def test_class_dimension(view: str, reduction: str) -> None:
    z = random(4, 6, 20).requires_grad_()
    shown = CLASS_SECOND[view](z)
    target = torch.arange(shown[:, 0].numel()).reshape(shown[:, 0].shape) % 20
    options: dict[str, Any] = {"label_smoothing": 0.1, "reduction": reduction, "ignore_index": 3}
    ours = cross_entropy(shown, target, engine="dense", **options)
    theirs = F.cross_entropy(shown, target, **options)
    torch.testing.assert_close(ours, theirs)
    direction = torch.ones_like(ours).cumsum(0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, z, direction), torch.autograd.grad(theirs, z, direction)
    )


def allocated(profile: torch.profiler.profile) -> list[int]:
    """The sizes of the blocks of memory that were asked for."""
    events = profile.events()
    assert events is not None
    return [e.self_cpu_memory_usage for e in events if e.self_cpu_memory_usage > 0]


@pytest.mark.parametrize(
    "options", [{}, {"weight": torch.ones(5000), "reduction": "none"}], ids=["uniform", "op"]
)
def test_nothing_as_wide_as_the_classes_but_the_gradient(options: dict[str, Any]) -> None:
    K = 5000
    z = random(2, 5, K + 1).float()[:, :-1, :-1].requires_grad_()
    target = torch.zeros(2, 4, dtype=torch.long)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        loss = cross_entropy(z.transpose(1, 2), target, label_smoothing=0.1, engine="dense", **options)
    assert allocated(seen)
    assert max(allocated(seen)) < 4 * K
    grad = torch.ones_like(loss)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        torch.autograd.grad(loss, z, grad)
    assert [size for size in allocated(seen) if size >= 4 * K] == [4 * K * 8]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradient_in_place_of_the_logits(kind: Kind, dtype: torch.dtype) -> None:
    z = random(6, BLOCK + 6).to(dtype) if kind.prior != "matrix" else random(6, 20).to(dtype)
    measures = kind.measures(z)
    grad = random(DIFFERENTIABLE, 6).to(compute_dtype(z))
    statistics, expected = answers(dense, z, measures, grad)
    assert dense.backward(grad, z, measures, statistics, out=z) is z
    assert z.equal(expected)


@pytest.mark.parametrize(
    "part",
    [lambda x: x[:, :-1], lambda x: x[:, ::2], lambda x: x.T],
    ids=["fewer", "every other", "transposed"],
)
def test_gradient_in_place_of_logits_among_others(part: Callable[[Tensor], Tensor]) -> None:
    whole = random(6, 8)
    z = part(whole)
    measures = Kind(False, None, False, False).measures(z)
    grad = random(DIFFERENTIABLE, len(z))
    statistics, expected = answers(dense, z, measures, grad)
    before = whole.clone()
    part(before).copy_(expected)
    assert dense.backward(grad, z, measures, statistics, out=z) is z
    assert whole.equal(before)


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
def test_no_rows(shape: tuple[int, ...]) -> None:
    for kind in (Kind(False, None, False, False), Kind(True, "vector", True, False)):
        z = torch.zeros(shape)
        rows = shape[:-1]
        measures = kind.measures(torch.zeros(1, 4))
        target = torch.zeros(shape) if kind.soft else torch.zeros(rows, dtype=torch.long)
        measures = measures._replace(target=target, counted=torch.ones(rows, dtype=torch.bool))
        statistics = dense.forward(z, measures)
        assert statistics.shape == (10, *rows)
        assert dense.backward(statistics[:3], z, measures, statistics).shape == shape


@pytest.mark.parametrize("target", [-1, 7, -100, 2**40, -(2**63) + 1])
@pytest.mark.parametrize("engine", [None, "dense"])
def test_target_out_of_range(engine: Any, target: int) -> None:
    z, targets = random(3, 7), torch.tensor([1, target, 2])
    words = rf"target must hold class indices in \[0, 7\).*, got {target}$"
    with pytest.raises(ValueError, match=words):
        dense.forward(z, Measures(targets, torch.ones(3, dtype=torch.bool)))
    for options in ({}, {"weight": torch.ones(7)}, {"reduction": "none"}):
        with pytest.raises(ValueError, match=words):
            cross_entropy(z, targets, label_smoothing=0.1, ignore_index=-99, engine=engine, **options)


@pytest.fixture
def restored_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def everything(dtype: torch.dtype) -> list[Tensor]:
    """Answers that take several threads."""
    z = random(400, 700).to(dtype)
    target = torch.arange(400) % 700
    found = [*losses(z, target, weight=torch.linspace(0, 2, 700), label_smoothing=0.1, engine="dense")]
    return [*found, *total(z, target, label_smoothing=0.1)]


def assert_same(ours: list[Tensor], expected: list[Tensor]) -> None:
    assert len(ours) == len(expected)
    assert all(one.equal(other) for one, other in zip(ours, expected, strict=True))


@pytest.mark.usefixtures("restored_threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_number_of_threads_changes_no_bit(dtype: torch.dtype) -> None:
    torch.set_num_threads(1)
    expected = everything(dtype)
    for threads in (2, 4, 3, 1, 4, 4):
        torch.set_num_threads(threads)
        assert_same(everything(dtype), expected)


@pytest.mark.usefixtures("restored_threads")
def test_calls_from_many_threads() -> None:
    torch.set_num_threads(2)
    expected = everything(torch.float32)
    found: list[list[Tensor]] = []
    threads = [
        Thread(target=lambda: found.extend(everything(torch.float32) for _ in range(5))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    for answer in found:
        assert_same(answer, expected)


FORK = """
import os, sys, threading
import torch, torch.multiprocessing
from labelsmooth.functional import cross_entropy

torch.set_num_threads(3)
z, y = torch.randn(300, 800), torch.arange(300)

# torch's own parallel loops do not survive a fork, and have no part in this.
def find():
    found = []
    for reduction in ("mean", "none"):
        leaf = z.detach().requires_grad_()
        loss = cross_entropy(leaf, y, label_smoothing=0.1, engine="dense", reduction=reduction)
        found += [loss.detach(), *torch.autograd.grad(loss, leaf, torch.ones_like(loss))]
    return [x.numpy().tobytes() for x in found]

expected = find()
same = lambda: find() == expected

def in_child(queue):
    torch.set_num_threads(3)
    queue.put(same())

# Once after use, once from a child, once while another thread is at work.
stop = threading.Event()
busy = threading.Thread(target=lambda: [find() for _ in iter(stop.is_set, True)])
for at_work in (False, True):
    if at_work:
        busy.start()
    for _ in range(5):
        if not (child := os.fork()):
            grandchild = os.fork()
            ok = same() and same()
            if not grandchild:
                os._exit(not ok)
            os._exit(not ok or os.waitpid(grandchild, 0)[1] != 0)
        assert os.waitpid(child, 0)[1] == 0
stop.set()
busy.join()

context = torch.multiprocessing.get_context("fork")
queue = context.SimpleQueue()
workers = [context.Process(target=in_child, args=(queue,)) for _ in range(2)]
for worker in workers:
    worker.start()
assert all(queue.get() for _ in workers)
for worker in workers:
    worker.join()
assert same()

class Losses(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, i):
        return same()

loader = torch.utils.data.DataLoader(Losses(), num_workers=2, multiprocessing_context="fork")
assert all(map(bool, loader))
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork_after_use() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], capture_output=True, text=True, timeout=60
    )
    assert run.stdout == "done\n", run.stderr


def test_runs_are_the_same() -> None:
    expected = everything(torch.float32)
    for _ in range(3):
        assert_same(everything(torch.float32), expected)


# What the pass that does all at once finds is what the statistics and the formulas give.
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


def test_ignored_index_of_another_kind() -> None:
    z, target = random(3, 5), torch.tensor([0, 1, 2])
    expected = cross_entropy(z, target, label_smoothing=0.1, ignore_index=1)
    for one in (1.0, True, torch.tensor(1), np.int64(1), np.uint8(1)):
        assert cross_entropy(z, target, label_smoothing=0.1, ignore_index=one).equal(expected)
    with pytest.raises(OverflowError, match="too big"):
        cross_entropy(z, target, label_smoothing=0.1, ignore_index=2**64 + 1)


@pytest.mark.parametrize("engine", ["reference", "dense"])
def test_a_prior_of_nan_is_seen(engine: Any) -> None:
    """Where nobody reads its values, it is not taken for one without mass."""
    z, target = random(2, 3).requires_grad_(), torch.tensor([0, 1])
    rows = torch.tensor([[0.5, NAN, 0.5], [0.2, 0.3, 0.5]], dtype=torch.float64)
    prior = PerSample(rows)
    compiled = torch.compile(cross_entropy, backend="eager")
    loss = compiled(z, target, label_smoothing=0.1, prior=prior, reduction="none", engine=engine)
    assert loss.isnan().tolist() == [True, False]
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert grad.isnan().any(-1).tolist() == [True, False]


def test_zeros_without_memory() -> None:
    z: Tensor = torch._efficientzerotensor((3, 4))  # pyright: ignore[reportPrivateImportUsage]
    target = torch.tensor([0, 1, 2])
    expected = cross_entropy(torch.zeros(3, 4), target, label_smoothing=0.1)
    assert cross_entropy(z, target, label_smoothing=0.1).equal(expected)
    assert cross_entropy(z, target, torch.ones(4), label_smoothing=0.1).equal(expected)


def test_all_at_once_serves_the_plain_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr("labelsmooth.functional._cross_entropy.logits_cross_entropy", refuse)
    for z in (random(3, 5), random(3, 5, 2).float(), random(5)):
        target = torch.zeros_like(z.select(min(1, z.dim() - 1), 0), dtype=torch.long)
        for eps in (0, 0.1, torch.tensor(0.2)):
            assert cross_entropy(z, target, label_smoothing=eps).isfinite()
            assert cross_entropy(z, target, label_smoothing=eps, reduction="sum", engine="dense").isfinite()


def test_divergence_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with more care where classes are masked, or an index is that of nobody."""
    label_smoothing_loss: Any = functional.label_smoothing_loss
    found = []
    original = _divergence.uniform

    def record(*args: Any, **options: Any) -> Any:
        found.append(original(*args, **options))
        return found[-1]

    monkeypatch.setattr(_divergence, "uniform", record)
    for z, dim in ((random(3, 5), -1), (random(3, 5, 4), 1), (random(3, 4, 5), -1), (random(5), 0)):
        target = torch.zeros_like(z.select(dim, 0), dtype=torch.long)
        for smoothing in (0, 0.1, 1.0, torch.tensor(0.2), schedules.constant(0.3)):
            leaf = z.clone().requires_grad_()
            loss = label_smoothing_loss(leaf, target, smoothing, dim)
            assert found.pop() is not None
            eps = smoothing.eps.item() if isinstance(smoothing, schedules.Schedule) else float(smoothing)
            K = z.size(dim)
            p = (F.one_hot(target, K) * (1 - eps) + eps / K).movedim(-1, dim)
            other = z.clone().requires_grad_()
            expected = F.kl_div(other.log_softmax(dim), p, reduction="batchmean")
            torch.testing.assert_close(loss, expected)
            grads = (torch.autograd.grad(loss, leaf), torch.autograd.grad(expected, other))
            torch.testing.assert_close(*grads)
    masked = random(3, 5).index_fill(1, torch.tensor([4]), -INF)
    cut = label_smoothing_loss(masked[:, :4], torch.tensor([0, 1, 2]))
    found.clear()
    torch.testing.assert_close(label_smoothing_loss(masked, torch.tensor([0, 1, 2])), cut)
    assert found == [None]
    with pytest.raises(ValueError, match="target must hold class indices"):
        label_smoothing_loss(masked, torch.tensor([0, 1, _divergence.NO_INDEX]))


@examples
@given(batches(), st.sampled_from(["none", "mean", "sum"]), st.data())
def test_equals_oracle(batch: Batch, reduction: str, data: st.DataObject) -> None:
    N, K = batch.input.shape
    z = batch.input.masked_fill(
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=N * K, max_size=N * K))).reshape(N, K), -INF
    )
    options: dict[str, Any] = {**batch.options, "reduction": reduction}
    options["sample_weight"] = data.draw(st.sampled_from([None, torch.linspace(0, 1, N).double()]))
    if data.draw(st.booleans()):
        options["label_smoothing"] = options["label_smoothing"][0]
    weight = data.draw(st.sampled_from([None, torch.linspace(0, 2, K).double()]))
    options["weighting"] = data.draw(st.sampled_from(["torch"] if weight is None else ["torch", "sample"]))
    target = data.draw(st.sampled_from([batch.hard, batch.soft]))
    if target is batch.soft:
        if options["off_target"] == "others" or (
            options["prior"] is not None and options["prior"].dim() == 2
        ):
            target = batch.hard
        else:  # no mass where the logit is masked, or the loss is infinite
            target = target * (z > -INF)
    if target is batch.hard:
        z = z.scatter(-1, target[:, None], batch.input.gather(-1, target[:, None]))
        options["ignore_index"] = data.draw(st.integers(-1, K - 1))
    else:
        z[:, 0], target[:, 0] = batch.input[:, 0], batch.soft[:, 0]
        target /= target.sum(-1, keepdim=True)
    leaf = z.clone().requires_grad_()
    loss, nll = cross_entropy(leaf, target, weight, engine="dense", return_nll=True, **options)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    if reduction == "mean" and not loss.isfinite():  # the weights of the labels add to 0, which divides
        return
    expected = oracle.cross_entropy(z, target, weight, **options)
    for ours, theirs in zip((loss, nll, grad), expected, strict=True):
        # NaN of 0 / 0, where no weight of a label counts.
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13, equal_nan=True)
