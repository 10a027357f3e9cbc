"""DDP and FSDP, which copy, reduce and free gradients on their own, train as one process does.

torchrun runs this file in two processes.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD
from torch.testing import assert_close

from labelsmooth.engines import memory_reserved
from tests.cases import needs_chunks
from tests.engines.large import LARGE, NBYTES, K, N, Y, cross_entropy, linear_cross_entropy, logits

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)

pytestmark = [*LARGE, needs_chunks, pytest.mark.slow]

WORLD, STEPS, RATE = 2, 3, 64.0
FEATURES = NBYTES // (4 * K)


class Logits(nn.Module):
    """Whose gradient is the tensor that the loss returns."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(logits().detach())

    def forward(self, rank: int) -> Tensor:
        return cross_entropy(self.weight, Y + rank, label_smoothing=0.1)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(K, FEATURES))

    def forward(self, rank: int) -> Tensor:
        return linear_cross_entropy(features(rank), self.weight, Y, label_smoothing=0.1)


def features(rank: int) -> Tensor:
    h = torch.randn(N, FEATURES, generator=torch.Generator().manual_seed(rank))
    return F.normalize(h, dim=1)


def trained(weight: Tensor, loss: Callable[[Tensor, int], Tensor]) -> Iterator[Tensor]:
    """The weight after each step of torch's own loss in one process."""
    weight = weight.detach().clone().requires_grad_()
    for _ in range(STEPS):
        total = sum(loss(weight, rank) for rank in range(WORLD)) / WORLD
        (by_weight,) = torch.autograd.grad(torch.as_tensor(total), weight)
        weight.data.sub_(by_weight, alpha=RATE)
        yield weight.detach()


def of_logits(z: Tensor, rank: int) -> Tensor:
    return F.cross_entropy(z, Y + rank, label_smoothing=0.1)


def of_head(weight: Tensor, rank: int) -> Tensor:
    return F.cross_entropy(features(rank) @ weight.T, Y, label_smoothing=0.1)


def ddp(as_views: bool) -> None:
    model = Logits()
    expected = trained(model.weight, of_logits)
    wrapped = DistributedDataParallel(model, gradient_as_bucket_view=as_views)
    optimizer = SGD(model.parameters(), RATE)
    for wanted in expected:
        with wrapped.no_sync():
            (wrapped(dist.get_rank()) / 4).backward()
        (wrapped(dist.get_rank()) * 3 / 4).backward()  # is added to the first
        optimizer.step()
        optimizer.zero_grad()
        assert_close(model.weight.detach(), wanted)


def fsdp() -> None:
    model = Head()
    expected = trained(model.weight, of_head)
    sharded = fully_shard(model)
    optimizer = SGD(model.parameters(), RATE)
    for wanted in expected:
        sharded.set_requires_gradient_sync(False)
        (model(dist.get_rank()) / 4).backward()
        sharded.set_requires_gradient_sync(True)
        (model(dist.get_rank()) * 3 / 4).backward()
        optimizer.step()
        optimizer.zero_grad()
        assert isinstance(model.weight, DTensor)
        assert_close(model.weight.full_tensor(), wanted)


WAYS: dict[str, Callable[[], None]] = {
    "DDP": partial(ddp, False),
    "DDP with views of buckets": partial(ddp, True),
    "FSDP": fsdp,
}


@pytest.mark.parametrize("way", WAYS)
def test_data_parallel_training(way: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(WORLD)]
    command = [*torchrun, "-m", "tests.engines.test_kept_processes", way]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[:8000]


def main() -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=30))
    WAYS[sys.argv[1]]()
    assert memory_reserved() >= NBYTES
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
