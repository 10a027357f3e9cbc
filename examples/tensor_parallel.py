"""Train a language model with tensor parallelism: each process has a part of every layer, and of the classes.

The loss takes the sharded weight of the output head as it is. No process has the logits of all classes.

    torchrun --nproc-per-node 2 examples/tensor_parallel.py

With a file name as an argument it saves the trained model there.
"""

import sys
from pydoc_data.topics import topics

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from labelsmooth.functional import linear_cross_entropy


class Model(nn.Module):
    """Predicts a byte from the eight before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Embedding(256, 16), nn.Flatten())
        self.up = nn.Linear(128, 128)
        self.down = nn.Linear(128, 64)
        self.head = nn.Linear(64, 256, bias=False)

    def forward(self, context: Tensor) -> Tensor:
        """The input of the head."""
        return self.down(self.up(self.embedding(context)).tanh())


def rows() -> tuple[Tensor, Tensor]:
    """Bytes of Python's reference: eight, and the one that follows."""
    windows = torch.tensor(list(topics["class"].encode()[:1000])).unfold(0, 9, 1)
    return windows[:, :8], windows[:, 8]


def main() -> None:
    dist.init_process_group()
    device = torch.accelerator.current_accelerator() or torch.device("cpu")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    torch.manual_seed(0)
    torch.set_num_threads(1)  # enough for so small a network
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel(), "head": ColwiseParallel()}
    model = Model().to(device)
    parallelize_module(model, mesh, plan)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)

    context, label = (x.to(device) for x in rows())  # the same on every process
    for step in range(1, 21):
        optimizer.zero_grad()
        loss = linear_cross_entropy(model(context), model.head.weight, label, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        if step % 5 == 0 and dist.get_rank() == 0:
            print(f"step {step:2}: loss {loss.item():.4f}")

    if len(sys.argv) > 1:
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        if dist.get_rank() == 0:
            torch.save(state, sys.argv[1])
    dist.barrier()  # gloo may abort a process that leaves while others are at work
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
