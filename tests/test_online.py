"""Losses that change from epoch to epoch: online label smoothing, and strengths on a schedule."""

import copy
import json
import math
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from expecttest import assert_expected_inline
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from labelsmooth import (
    CrossEntropyLoss,
    LabelSmoothingLoss,
    LinearCrossEntropyLoss,
    OnlineLabelSmoothing,
    by_class,
    functional,
    mixed,
    priors,
    schedules,
)
from labelsmooth.schedules import Schedule

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


# --- the definition, in plain Python


def log_softmax(z: list[float]) -> list[float]:
    top = max(z)
    total = math.log(math.fsum(math.exp(x - top) for x in z))
    return [x - top - total for x in z]


def means(batches: list[Batch], ignore_index: int = -100) -> list[list[float]]:
    """For each class the mean prediction of its samples that were right, or else the uniform one."""
    rows: list[list[list[float]]] = [[] for _ in range(K)]
    for z, target in batches:
        for z_i, y in zip(z.double().tolist(), target.tolist(), strict=True):
            if y != ignore_index and max(range(K), key=z_i.__getitem__) == y:
                rows[y].append([math.exp(x) for x in log_softmax(z_i)])
    return [
        [math.fsum(q[k] for q in own) / len(own) for k in range(K)] if own else [1 / K] * K for own in rows
    ]


def mean_loss(z: Tensor, target: Tensor, prior: list[list[float]], eps: float = 0.5) -> float:
    losses = []
    for z_i, y in zip(z.double().tolist(), target.tolist(), strict=True):
        log_q = log_softmax(z_i)
        smoothed = math.fsum(p * lq for p, lq in zip(prior[y], log_q, strict=True))
        losses.append(-(1 - eps) * log_q[y] - eps * smoothed)
    return math.fsum(losses) / len(losses)


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


def selective() -> Any:
    """Keeps what two operators return, in the order of their calls, and computes the rest again."""
    kept = [torch.ops.aten.mm.default, torch.ops.aten._softmax.default]
    return create_selective_checkpoint_contexts(kept)


CHECKPOINTS: dict[str, Any] = {
    "plain": lambda run, x: run(x),
    "reentrant": partial(checkpoint, use_reentrant=True),
    "not reentrant": partial(checkpoint, use_reentrant=False),
    "not stopped early": partial(checkpoint, use_reentrant=False, early_stop=False),
    "selective": partial(checkpoint, use_reentrant=False, context_fn=selective),
    "within another": lambda run, x: checkpoint(
        lambda x: checkpoint(run, x, use_reentrant=False), x, use_reentrant=True
    ),
}


@pytest.mark.parametrize("how", CHECKPOINTS)
def test_a_checkpoint_counts_once(how: str) -> None:
    z, target = batch(20)
    body = torch.eye(z.size(-1), requires_grad=True)

    def run(loss: Any, x: Tensor) -> Tensor:
        # The factor is 1, and is found by an operator that the means use too.
        return loss(x @ body, target) * body.softmax(-1).sum(-1).mean()

    leaf = z.clone().requires_grad_()
    expected, observed = OnlineLabelSmoothing(z.size(-1)), OnlineLabelSmoothing(z.size(-1))
    loss = run(expected, leaf)
    truth = torch.autograd.grad(loss, [leaf, body])
    for _ in range(2):
        found = CHECKPOINTS[how](partial(run, observed), leaf)
        assert_close(found, loss)
        body.grad = leaf.grad = None
        found.backward()
        assert_close([leaf.grad, body.grad], list(truth))
    assert expected.counts.sum() > 0
    assert_close(observed.counts, 2 * expected.counts)
    assert_close(observed.sums, 2 * expected.sums)


@pytest.mark.parametrize("how", ["plain", "reentrant", "not reentrant"])
def test_a_checkpoint_counts_a_compiled_loss_once(how: str) -> None:
    z, target = batch(20)
    expected, observed = OnlineLabelSmoothing(z.size(-1)), OnlineLabelSmoothing(z.size(-1))
    compiled = torch.compile(lambda x: observed(2 * x, target), backend="aot_eager", fullgraph=True)
    leaf = z.clone().requires_grad_()
    expected(z, target)
    for _ in range(2):
        CHECKPOINTS[how](compiled, leaf).backward()
    assert expected.counts.sum() > 0
    assert_close(observed.counts, 2 * expected.counts)


def test_ending_an_epoch_twice() -> None:
    """The second has nothing to go by."""
    criterion = OnlineLabelSmoothing(K)
    criterion(*EPOCHS[0][0])
    criterion.end_epoch()
    criterion.end_epoch()
    assert_close(prior_of(criterion), torch.full((K, K), 1 / K), rtol=0, atol=0)


# --- state


@pytest.mark.parametrize("after", range(6))
def test_goes_on_from_a_checkpoint(after: int, tmp_path: Path) -> None:
    """Wherever it is taken, within an epoch or between two."""
    whole, parts = OnlineLabelSmoothing(K), OnlineLabelSmoothing(K)
    step = 0
    for epoch in EPOCHS:
        for z, target in epoch:
            if step == after:
                torch.save(parts.state_dict(), tmp_path / "state.pt")
                parts = OnlineLabelSmoothing(K)
                parts.load_state_dict(torch.load(tmp_path / "state.pt"))
            assert parts(z, target).equal(whole(z, target))
            step += 1
        whole.end_epoch()
        parts.end_epoch()
    assert_close(parts.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_schedule_in_a_checkpoint() -> None:
    def make() -> OnlineLabelSmoothing:
        return OnlineLabelSmoothing(K, label_smoothing=schedules.warm_up(0.5, 2))

    criterion, other = make(), make()
    criterion(*EPOCHS[0][0])
    criterion.end_epoch()
    other.load_state_dict(criterion.state_dict())
    expected = functional.cross_entropy(*EPOCHS[0][1], label_smoothing=0.25, prior=prior_of(criterion))
    for one in (criterion, other):
        assert_close(one(*EPOCHS[0][1]), expected)


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


# --- many processes

WORKER = """
import json, sys, torch
import torch.distributed as dist
from datetime import timedelta
from labelsmooth import OnlineLabelSmoothing

rank, store, batches = int(sys.argv[1]), sys.argv[2], torch.load(sys.argv[3])
dist.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=30)
)
alone = [dist.new_group([i]) for i in range(2)]
found = []
for group in (None, dist.group.WORLD, alone[rank]):
    criterion = OnlineLabelSmoothing(4, process_group=group)
    for epoch in batches:
        for z, target in epoch[rank::2]:  # the first process has one batch more
            criterion(z, target)
        criterion.end_epoch()
        found.append(criterion.prior.probabilities.tolist())
print(json.dumps(found))
dist.destroy_process_group()
"""


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo")
def test_processes_share_their_predictions(tmp_path: Path) -> None:
    torch.save(EPOCHS, tmp_path / "batches.pt")
    command = [sys.executable, "-W", "ignore", "-c", WORKER]
    runs = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), str(tmp_path / "batches.pt")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    answers = [run.communicate(timeout=60) for run in runs]
    for run, (_, said) in zip(runs, answers, strict=True):
        assert run.returncode == 0, said
    for rank, (told, _) in enumerate(answers):
        found = torch.tensor(json.loads(told)).unflatten(0, (3, 2))
        for i, epoch in enumerate(EPOCHS):
            every, own = torch.tensor(means(epoch)), torch.tensor(means(epoch[rank::2]))
            assert_close(found[0, i], every, rtol=1e-6, atol=1e-7)
            assert_close(found[1, i], every, rtol=1e-6, atol=1e-7)
            assert_close(found[2, i], own, rtol=1e-6, atol=1e-7)
            assert not torch.allclose(own, every)


# --- compiled


def test_compiles_once() -> None:
    torch.compiler.reset()
    counter = CompileCounter()
    criterion, plain = OnlineLabelSmoothing(K), OnlineLabelSmoothing(K)
    compiled: Any = torch.compile(criterion, backend=counter, fullgraph=True, dynamic=True)
    for epoch in EPOCHS:
        for z, target in epoch:
            assert_close(compiled(z, target), plain(z, target))
        criterion.end_epoch()
        plain.end_epoch()
        assert_close(criterion.state_dict(), plain.state_dict())
    assert counter.frame_count == 1


def test_compiled_gradient() -> None:
    torch.compiler.reset()
    criterion = OnlineLabelSmoothing(K)
    compiled: Any = torch.compile(criterion, backend="aot_eager", fullgraph=True)
    z, target = EPOCHS[0][0]
    leaf, other = (z.clone().requires_grad_() for _ in range(2))
    ours = torch.autograd.grad(compiled(leaf, target), leaf)
    assert_close(ours, torch.autograd.grad(OnlineLabelSmoothing(K)(other, target), other))
    criterion.end_epoch()
    assert_close(prior_of(criterion), torch.tensor(means([(z, target)])), rtol=1e-6, atol=1e-7)


# --- bad input


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, "ten", None, torch.tensor(3), True])
def test_bad_number_of_classes(num_classes: Any) -> None:
    with pytest.raises(ValueError, match=r"^num_classes must be an integer of at least 1, got "):
        OnlineLabelSmoothing(num_classes)


def test_prior_cannot_be_given() -> None:
    words = r"^prior is what OnlineLabelSmoothing finds itself, and cannot be given"
    with pytest.raises(ValueError, match=words):
        OnlineLabelSmoothing(K, prior=torch.full((K,), 1 / K))
    z, target = EPOCHS[0][0]
    with pytest.raises(ValueError, match=words):
        OnlineLabelSmoothing(K)(z, target, prior=priors.teacher(z))


def test_bad_targets() -> None:
    z, target = EPOCHS[0][0]
    for bad in (z.softmax(-1), mixed(target, target, 0.5)):
        with pytest.raises(ValueError, match=r"^target must hold class indices in training"):
            OnlineLabelSmoothing(K)(z, bad)
    with pytest.raises(ValueError, match=r"^target must be a tensor, got list"):
        OnlineLabelSmoothing(K)(z, target.tolist())


@pytest.mark.parametrize("bad", [5, -1])
def test_what_is_refused_is_not_observed(bad: int) -> None:
    criterion = OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    target = target.clone()
    target[3] = bad
    with pytest.raises(ValueError, match=r"^target must hold class indices in \[0, 4\)"):
        criterion(z, target)
    assert criterion.counts.eq(0).all()


def test_logits_of_other_classes() -> None:
    for other in (K - 1, K + 1):
        with pytest.raises(ValueError, match=rf"^input must have num_classes=4 classes, got {other}$"):
            OnlineLabelSmoothing(K)(torch.zeros(2, other), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"^label_smoothing must lie in \[0, 1\], got 1.5"):
        OnlineLabelSmoothing(K, label_smoothing=1.5)


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


def test_what_is_held_is_for_as_many_classes() -> None:
    with pytest.raises(ValueError, match=r"^weight must have shape \(K,\) with K=3 classes, got \(5,\)"):
        OnlineLabelSmoothing(3, weight=torch.ones(5))
    with pytest.raises(ValueError, match=r"^label_smoothing: by_class has K=5 classes, input K=3"):
        OnlineLabelSmoothing(3, label_smoothing=by_class(torch.ones(5)))


@pytest.mark.parametrize("strict", [False, True])
def test_exported_in_training(strict: bool) -> None:
    criterion, twin = OnlineLabelSmoothing(K), OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    exported = torch.export.export(criterion, (z, target), strict=strict).module()
    assert_close(exported(z, target), twin(z, target))
    assert_close(dict(exported.named_buffers())["sums"], twin.sums)
    assert_close(dict(exported.named_buffers())["counts"], twin.counts)


# --- as it is used


def test_finds_how_digits_are_alike() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    x, y = torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    criterion = OnlineLabelSmoothing(10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(4):
        for part in torch.randperm(1200, generator=GENERATOR).split(100):
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


# --- strengths on a schedule

SCHEDULES = {
    "linear": lambda: schedules.linear(0.2, 0.0, 4),
    "cosine": lambda: schedules.cosine(0.0, 0.3, 3),
    "warm_up": lambda: schedules.warm_up(0.1, 2),
    "drop_late": lambda: schedules.drop_late(0.1, 2),
    "constant": lambda: schedules.constant(0.1),
}
H = torch.randn(11, 3, generator=GENERATOR)


def make(kind: str, schedule: Schedule) -> Any:
    match kind:
        case "CrossEntropyLoss":
            return CrossEntropyLoss(label_smoothing=schedule)
        case "LabelSmoothingLoss":
            return LabelSmoothingLoss(schedule)
        case _:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return LinearCrossEntropyLoss(3, K, label_smoothing=schedule)


def expected(kind: str, loss: Any, eps: float) -> Tensor:
    z, target = EPOCHS[0][0]
    match kind:
        case "CrossEntropyLoss":
            return nn.functional.cross_entropy(z, target, label_smoothing=eps)
        case "LabelSmoothingLoss":
            p = (1 - eps) * nn.functional.one_hot(target, K) + eps / K
            return nn.KLDivLoss(reduction="batchmean")(z.log_softmax(-1), p)
        case _:
            return nn.functional.cross_entropy(loss.linear(H), target, label_smoothing=eps)


KINDS = ["CrossEntropyLoss", "LabelSmoothingLoss", "LinearCrossEntropyLoss"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_losses_follow_a_schedule(name: str, kind: str) -> None:
    loss, alone = make(kind, SCHEDULES[name]()), SCHEDULES[name]()
    given = H if kind == "LinearCrossEntropyLoss" else EPOCHS[0][0][0]
    for _ in range(6):
        found = loss(given, EPOCHS[0][0][1])
        assert_close(found, expected(kind, loss, alone.eps.item()))
        loss.end_epoch()
        alone.step()


@pytest.mark.parametrize("kind", KINDS)
def test_state_of_a_schedule_goes_through_the_loss(kind: str, tmp_path: Path) -> None:
    loss, other = (make(kind, schedules.linear(0.2, 0.0, 4)) for _ in range(2))
    loss.end_epoch()
    loss.end_epoch()
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    given = H if kind == "LinearCrossEntropyLoss" else EPOCHS[0][0][0]
    for _ in range(3):
        assert other(given, EPOCHS[0][0][1]).equal(loss(given, EPOCHS[0][0][1]))
        other.end_epoch()
        loss.end_epoch()
    assert_close(other(given, EPOCHS[0][0][1]), expected(kind, other, 0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_copies_have_schedules_of_their_own(kind: str) -> None:
    loss = make(kind, schedules.linear(0.2, 0.0, 4))
    other = copy.deepcopy(loss)
    other.end_epoch()
    given = H if kind == "LinearCrossEntropyLoss" else EPOCHS[0][0][0]
    assert_close(loss(given, EPOCHS[0][0][1]), expected(kind, loss, 0.2))
    assert_close(other(given, EPOCHS[0][0][1]), expected(kind, other, 0.15))


@pytest.mark.parametrize("kind", KINDS)
def test_epochs_compile_nothing_again(kind: str) -> None:
    torch.compiler.reset()
    counter = CompileCounter()
    loss = make(kind, schedules.linear(0.2, 0.0, 3))
    compiled: Any = torch.compile(loss, backend=counter, fullgraph=True)
    given = H if kind == "LinearCrossEntropyLoss" else EPOCHS[0][0][0]
    for eps in (0.2, 0.2 * 2 / 3, 0.2 / 3, 0.0, 0.0):
        assert_close(compiled(given, EPOCHS[0][0][1]), expected(kind, loss, eps))
        loss.end_epoch()
    assert counter.frame_count == 1


def test_schedule_is_off_in_evaluation() -> None:
    loss = CrossEntropyLoss(label_smoothing=schedules.constant(0.5), train_only=True).eval()
    z, target = EPOCHS[0][0]
    assert_close(loss(z, target), nn.functional.cross_entropy(z, target))


@pytest.mark.parametrize("eps", [1.5, -0.1])
def test_schedule_out_of_range(eps: float) -> None:
    """A loss has a range of its own, and a schedule that leaves it is refused before training starts."""
    for kind, name in (
        ("CrossEntropyLoss", "label_smoothing"),
        ("LabelSmoothingLoss", "smoothing"),
        ("LinearCrossEntropyLoss", "label_smoothing"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must lie in \[0, 1\], got {eps}"):
            make(kind, schedules.linear(0.0, eps, 10))
