"""Train a language model with FSDP2: parameters are sharded, and each process has rows of its own.

    torchrun --nproc-per-node 2 examples/fsdp2.py

With a file name as an argument it saves the trained model there.
"""

import sys
from pydoc_data.topics import topics

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from labelsmooth import LinearCrossEntropyLoss
from labelsmooth.functional import next_tokens

LENGTH = 64


class Model(nn.Module):
    """Predicts the next byte. The loss has the head and is in forward, where FSDP has the whole weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 32)
        self.position = nn.Parameter(torch.zeros(LENGTH, 32))
        layers = [nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True) for _ in range(2)]
        self.layers = nn.ModuleList(layers)
        self.loss = LinearCrossEntropyLoss(32, 256, label_smoothing=0.1)

    def forward(self, tokens: Tensor, labels: Tensor, denominator: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.size(1), device=tokens.device)
        x = self.embedding(tokens) + self.position[: tokens.size(1)]
        for layer in self.layers:
            x = layer(x, src_mask=mask, is_causal=True)
        return self.loss(x, next_tokens(labels), denominator=denominator)


def rows() -> tuple[Tensor, Tensor]:
    """Paragraphs of Python's reference as bytes, and their labels, in which the padding is ignored."""
    texts = [torch.tensor(list(text.encode()[:LENGTH])) for text in topics["class"].split("\n\n")[:16]]
    pad = nn.utils.rnn.pad_sequence
    return pad(texts, batch_first=True), pad(texts, batch_first=True, padding_value=-100)


def main() -> None:
    dist.init_process_group()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # enough for so small a network
    model = Model()
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)

    rank, world = dist.get_rank(), dist.get_world_size()
    tokens, labels = (x[rank::world].to(model.loss.linear.weight.device) for x in rows())
    count = (next_tokens(labels) != -100).sum()
    dist.all_reduce(count)
    for step in range(1, 21):
        optimizer.zero_grad()
        # Gradients are averaged over the processes: each divides by its share of the tokens.
        loss = model(tokens, labels, denominator=count / world)
        loss.backward()
        optimizer.step()
        if step % 5 == 0:
            total = loss.detach().clone()
            dist.all_reduce(total)
            if rank == 0:
                print(f"step {step:2}: loss {total / world:.4f}, a mean of {count} tokens")

    if len(sys.argv) > 1:
        state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
        if rank == 0:
            torch.save(state, sys.argv[1])
    dist.barrier()  # gloo may abort a process that leaves while others are at work
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
