"""However many threads, and after a fork, the dense engine's answers are the same to the last bit."""

import os
import subprocess
import sys
from collections.abc import Iterator
from threading import Thread

import pytest
import torch
from torch import Tensor

from tests.cases import kernel, random
from tests.engines.private import (
    DTYPES,
    losses,
    total,
)

pytestmark = kernel


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


@pytest.mark.slow
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
