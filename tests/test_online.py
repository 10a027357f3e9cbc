"""Losses that change from epoch to epoch: online label smoothing, and strengths on a schedule."""

import copy
import math
from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from torch import Tensor, nn
from torch.testing import assert_close

from labelsmooth import (
    OnlineLabelSmoothing,
    mixed,
)
from tests import oracle

K = 4
INF, NAN = math.inf, math.nan
GENERATOR = torch.Generator().manual_seed(0)
Batch = tuple[Tensor, Tensor]


def batch(rows: int, dtype: torch.dtype = torch.float32) -> Batch:
    """Most of it right, but for class 2, of which nothing is, and class 3, which is not there."""
    target = torch.randint(3, (rows,), generator=GENERATOR)
    z = torch.randn(rows, K, generator=GENERATOR)
    z[torch.arange(rows), target] += 2.0
    z[target == 2, 0] = 9.0
    return z.to(dtype), target


EPOCHS = [[batch(n) for n in (11, 5, 8)] for _ in range(2)]


def means(batches: list[Batch], ignore_index: int = -100) -> list[list[float]]:
    """The definition: for each class the mean prediction of its samples that were right, or else uniform."""
    z, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    right = (z.double().argmax(-1) == y) & (y != ignore_index)
    q = z.double().softmax(-1)
    return [
        (q[right & (y == k)].mean(0) if (right & (y == k)).any() else torch.full((K,), 1 / K)).tolist()
        for k in range(K)
    ]


def mean_loss(z: Tensor, target: Tensor, prior: list[list[float]], eps: float = 0.5) -> float:
    rows = torch.tensor(prior, dtype=torch.float64)
    return oracle.cross_entropy(z.double(), target, label_smoothing=eps, prior=rows)[0].item()


def prior_of(criterion: OnlineLabelSmoothing) -> Tensor:
    assert criterion.prior is not None
    return criterion.prior.probabilities


@pytest.mark.parametrize("eps", [0.5, 0.1])
def test_two_epochs(eps: float) -> None:
    criterion = OnlineLabelSmoothing(K, label_smoothing=eps)
    prior = [[1 / K] * K] * K
    for epoch in EPOCHS:
        for z, target in epoch:
            assert_close(criterion(z, target).item(), mean_loss(z, target, prior, eps), rtol=1e-6, atol=0)
        criterion.end_epoch()
        prior = means(epoch)
        assert_close(prior_of(criterion), torch.tensor(prior), rtol=1e-6, atol=1e-7)
        assert prior[0] != [1 / K] * K
        assert prior[2] == prior[3] == [1 / K] * K
        assert_close(prior_of(criterion)[2:], torch.full((2, K), 1 / K), rtol=0, atol=0)


def test_strength_is_a_half_unless_given() -> None:
    assert OnlineLabelSmoothing(K).label_smoothing == 0.5
    assert OnlineLabelSmoothing(K, label_smoothing=0.1).label_smoothing == 0.1


def test_first_epoch_is_uniform_smoothing() -> None:
    z, target = EPOCHS[0][0]
    z = z.requires_grad_()
    loss = OnlineLabelSmoothing(K)(z, target)
    expected = nn.functional.cross_entropy(z, target, label_smoothing=0.5)
    assert_close(loss, expected)
    assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))
    z.requires_grad_(False)


def test_nothing_right_is_uniform_again() -> None:
    criterion = OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    criterion(z, target)
    criterion.end_epoch()
    for wrong in ([(-z, z.argmax(-1))], []):
        for z_i, y in wrong:
            criterion(z_i, y)
        criterion.end_epoch()
        assert_close(prior_of(criterion), torch.full((K, K), 1 / K), rtol=0, atol=0)
        criterion(z, target)
        criterion.end_epoch()
        assert prior_of(criterion)[0, 0] > 0.3


def test_evaluation_observes_nothing() -> None:
    criterion = OnlineLabelSmoothing(K)
    before = copy.deepcopy(criterion.state_dict())
    criterion.eval()
    for z, target in EPOCHS[0]:
        criterion(z, target)
    assert_close(criterion.state_dict(), before, rtol=0, atol=0)


def test_plain_loss_in_evaluation() -> None:
    criterion = OnlineLabelSmoothing(K, train_only=True)
    z, target = EPOCHS[0][0]
    criterion(z, target)
    criterion.end_epoch()
    criterion.eval()
    assert_close(criterion(z, target), nn.functional.cross_entropy(z, target))


@pytest.mark.parametrize("by", ["ignore_index", "index in range", "sample_weight"])
def test_rows_that_do_not_count(by: str) -> None:
    z, target = EPOCHS[0][0]
    z, target = z.clone(), target.clone()
    gone = torch.arange(len(z)) % 3 == 0
    gone |= target == 1
    z[gone] = torch.tensor([NAN, INF, -INF, 1e30])
    options: dict[str, Any] = {}
    ignore_index = -100
    if by == "sample_weight":
        options["sample_weight"] = torch.where(gone, 0.0, 0.5)
    else:
        ignore_index = 1 if by == "index in range" else -100
        target[gone] = ignore_index
    criterion = OnlineLabelSmoothing(K, ignore_index=ignore_index)
    assert criterion(z, target, **options).isfinite()
    criterion.end_epoch()
    expected = torch.tensor(means([(z[~gone], target[~gone])]))
    assert_close(prior_of(criterion), expected, rtol=1e-6, atol=1e-7)


# A loss scaler skips a step whose logits overflowed: what they were must not reach the next epoch.
@pytest.mark.parametrize("bad", [NAN, INF])
def test_overflow_spoils_no_epoch(bad: float) -> None:
    criterion = OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    spoiled = z.clone()
    spoiled[0, int(target[0])] = bad
    criterion(spoiled, target)
    criterion.end_epoch()
    assert_close(prior_of(criterion), torch.tensor(means([(z[1:], target[1:])])), rtol=1e-6, atol=1e-7)
    assert criterion(z, target).isfinite()


# Maps have more positions than float32 counts one by one.
def test_more_rows_than_float32_counts() -> None:
    criterion = OnlineLabelSmoothing(2)
    z = torch.tensor([[3.0, 0.0]]).expand(2**18, 2)
    target = torch.zeros(2**18, dtype=torch.long)
    before = torch.tensor([0.999, 0.001])
    criterion.counts[0] = 2**24
    criterion.sums[0] = 2**24 * before
    for _ in range(8):
        criterion(z, target)
    criterion.end_epoch()
    expected = (2**24 * before + 2**21 * z[0].softmax(-1)) / (2**24 + 2**21)
    assert_close(prior_of(criterion)[0], expected, rtol=0, atol=1e-3)
    assert_close(prior_of(criterion).sum(-1), torch.ones(2))
    assert criterion(z[:8], target[:8]).isfinite()


@pytest.mark.parametrize("shape", [(2, 6), (2, 3, 2), ()])
def test_maps(shape: tuple[int, ...]) -> None:
    z, target = batch(12)
    z, target = z[: math.prod(shape)], target[: math.prod(shape)]
    prior = [[1 / K] * K] * K
    criterion = OnlineLabelSmoothing(K)
    maps = z.reshape(*shape, K).movedim(-1, min(1, len(shape)))
    loss = criterion(maps, target.reshape(shape))
    assert_close(loss.item(), mean_loss(z, target, prior), rtol=1e-6, atol=0)
    criterion.end_epoch()
    assert_close(prior_of(criterion), torch.tensor(means([(z, target)])), rtol=1e-6, atol=1e-7)


# The sums are in float32 whatever the logits are: in bfloat16 a sum of many stops growing.
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types_of_logits(dtype: torch.dtype) -> None:
    batches = [batch(400, dtype) for _ in range(5)]
    criterion = OnlineLabelSmoothing(K)
    for z, target in batches:
        loss = criterion(z, target)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    criterion.end_epoch()
    assert_close(prior_of(criterion), torch.tensor(means(batches)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_moves_as_a_module(dtype: torch.dtype) -> None:
    """To bfloat16 as a model does; with sums of its own type it counts to 256 and no further."""
    criterion = OnlineLabelSmoothing(K).to(dtype)
    batches = [batch(400, dtype) for _ in range(5)]
    for z, target in batches:
        criterion(z, target)
    criterion.end_epoch()
    expected = torch.tensor(means(batches), dtype=torch.float64)
    # The prior itself may be rounded, to the type that was asked for.
    rtol = 4 * torch.finfo(dtype).eps
    assert_close(prior_of(criterion).double(), expected, rtol=rtol, atol=rtol)


def test_strided_and_short_targets() -> None:
    z, target = EPOCHS[0][0]
    for y in (target.to(torch.int32), target.to(torch.uint8), torch.stack([target, target], 1)[:, 0]):
        criterion = OnlineLabelSmoothing(K)
        criterion(z, y)
        criterion.end_epoch()
        assert_close(prior_of(criterion), torch.tensor(means([(z, target)])), rtol=1e-6, atol=1e-7)


def test_masked_classes() -> None:
    z, target = EPOCHS[0][0]
    z = z.clone()
    z[:, 3] = -INF
    criterion = OnlineLabelSmoothing(K)
    for _ in range(2):
        assert criterion(z, target).isfinite()
        criterion.end_epoch()
    found = prior_of(criterion)
    assert found[:2, 3].eq(0).all()
    assert_close(found, torch.tensor(means([(z, target)])), rtol=1e-6, atol=1e-7)


def test_nothing_is_kept_of_the_graph() -> None:
    criterion = OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    leaf = z.clone().requires_grad_()
    criterion(leaf, target).backward()
    criterion(leaf, target).backward()
    assert not criterion.sums.requires_grad
    assert leaf.grad is not None


def test_observing_leaves_an_earlier_loss_its_gradient() -> None:
    """Two calls, as with two crops, and an epoch's end before the gradient of neither is asked for."""
    criterion = OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    leaf = z.clone().requires_grad_()
    loss = criterion(leaf, target) + criterion(leaf, target)
    (expected,) = torch.autograd.grad(loss, leaf)
    loss = criterion(leaf, target) + criterion(leaf, target)
    assert_close(torch.autograd.grad(loss, leaf)[0], expected, rtol=0, atol=0)


def test_ending_an_epoch_twice() -> None:
    """The second has nothing to go by."""
    criterion = OnlineLabelSmoothing(K)
    criterion(*EPOCHS[0][0])
    criterion.end_epoch()
    criterion.end_epoch()
    assert_close(prior_of(criterion), torch.full((K, K), 1 / K), rtol=0, atol=0)


def test_state_of_another_number_of_classes() -> None:
    state = OnlineLabelSmoothing(K + 1).state_dict()
    with pytest.raises(RuntimeError, match=r"size mismatch for (prior|sums|counts)"):
        OnlineLabelSmoothing(K).load_state_dict(state)


def test_copies_are_their_own() -> None:
    criterion = OnlineLabelSmoothing(K)
    criterion(*EPOCHS[0][0])
    other = copy.deepcopy(criterion)
    other(*EPOCHS[0][1])
    other.end_epoch()
    assert_close(prior_of(criterion), torch.full((K, K), 1 / K))
    criterion(*EPOCHS[0][1])
    criterion.end_epoch()
    assert_close(criterion.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_repr() -> None:
    assert_expected_inline(
        repr(OnlineLabelSmoothing(K)),
        """\
OnlineLabelSmoothing(
  label_smoothing=0.5, ignore_index=-100, reduction='mean', off_target='all', weighting='torch', train_only=False
  (prior): Prior(of the epoch before, shape (4, 4))
)""",  # noqa: E501
    )


@pytest.mark.parametrize("bad", [5, -1])
def test_what_is_refused_is_not_observed(bad: int) -> None:
    criterion = OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    target = target.clone()
    target[3] = bad
    with pytest.raises(ValueError, match=r"^target must hold class indices in \[0, 4\)"):
        criterion(z, target)
    assert criterion.counts.eq(0).all()


def test_means_are_never_of_a_short_type() -> None:
    """Where torch's default is one, 1000 samples in a row still count."""
    torch.set_default_dtype(torch.bfloat16)
    try:
        criterion = OnlineLabelSmoothing(2)
    finally:
        torch.set_default_dtype(torch.float32)
    for _ in range(1000):
        criterion(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert criterion.counts.tolist() == [1000, 0]


@pytest.mark.parametrize("num_classes", [3, 5, 6, 7, 10])
def test_epochs_in_bfloat16(num_classes: int) -> None:
    criterion = OnlineLabelSmoothing(num_classes).to(torch.bfloat16)
    z, target = torch.zeros(num_classes, num_classes), torch.arange(num_classes)
    for _ in range(3):
        assert criterion(z.bfloat16(), target).isfinite()
        criterion.end_epoch()
        criterion.to(torch.bfloat16)
    assert {buffer.dtype for buffer in criterion.buffers()} == {torch.float32}


def test_a_certain_class_says_nothing_of_the_others() -> None:
    criterion = OnlineLabelSmoothing(3, off_target="others")
    z, target = torch.tensor([[200.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1])
    criterion(z, target)
    criterion.end_epoch()
    assert_close(prior_of(criterion)[0], torch.ones(3) / 3)
    assert_close(prior_of(criterion)[1], z[1].softmax(-1))
    assert criterion(z, target).isfinite()


def test_any_target_in_evaluation() -> None:
    criterion = OnlineLabelSmoothing(K, label_smoothing=0.2).eval()
    z, target = EPOCHS[0][0]
    expected = criterion(z, target)
    one_hot = torch.nn.functional.one_hot(target, K).to(z)
    assert_close(criterion(z, mixed(target, target, 0.3)), expected)
    assert_close(criterion(z, one_hot), expected)
    assert not criterion.counts.any()


def test_finds_how_digits_are_alike() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    criterion, generator = OnlineLabelSmoothing(10), torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(4):
        for part in torch.randperm(1200, generator=generator).split(100):
            optimizer.zero_grad()
            criterion(model(x[part]), y[part]).backward()
            optimizer.step()
        criterion.end_epoch()
        prior = prior_of(criterion)
        assert_close(prior.sum(-1), torch.ones(10))
        assert (prior >= 0).all()
    prior = prior_of(criterion)
    assert prior.argmax(-1).tolist() == list(range(10))
    assert (prior.diagonal() > 0.4).all()
    # Not merely smoothed alike: which others are likely differs by the class.
    assert prior.fill_diagonal_(0).argmax(-1).unique().numel() > 2
    assert (model(x[1200:]).argmax(-1) == y[1200:]).float().mean() > 0.8
