"""Online label smoothing over checkpoints of both kinds, processes, the compiler and export."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from labelsmooth import OnlineLabelSmoothing, functional, schedules
from tests.test_online import EPOCHS, K, batch, means, prior_of


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


@pytest.mark.slow
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


WORKER = """
import json, sys, torch
import torch.distributed as dist
from datetime import timedelta
from labelsmooth import OnlineLabelSmoothing, functional, schedules

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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
def test_exported_in_training(strict: bool) -> None:
    criterion, twin = OnlineLabelSmoothing(K), OnlineLabelSmoothing(K)
    z, target = EPOCHS[0][0]
    exported = torch.export.export(criterion, (z, target), strict=strict).module()
    assert_close(exported(z, target), twin(z, target))
    assert_close(dict(exported.named_buffers())["sums"], twin.sums)
    assert_close(dict(exported.named_buffers())["counts"], twin.counts)
