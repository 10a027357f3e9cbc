"""Train a language model in a loop of Hugging Face accelerate, with gradients accumulated over micro-batches.

Micro-batches have different numbers of tokens. The loss of each is divided by the number of tokens of the
whole step, of all its micro-batches and processes, so that every token has the same weight.

    python examples/accelerate_loop.py
    accelerate launch --cpu --num_processes 2 examples/accelerate_loop.py

With a file name as an argument it saves the trained model there.
"""

import sys
from contextlib import nullcontext
from itertools import islice
from pydoc_data.topics import topics
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from labelsmooth.functional import causal_cross_entropy

MICRO_BATCHES = 4  # of a step, over all processes


class Model(nn.Module):
    """Predicts the next byte."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 32)
        self.rnn = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.rnn(self.embedding(tokens))
        return self.head(hidden)


def paragraphs() -> list[Tensor]:
    """Of Python's reference, as bytes."""
    texts = [text.encode()[:200] for text in topics["class"].split("\n\n")]
    return [torch.tensor(list(text)) for text in texts[:16]]


def collate(texts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Tokens, and labels in which the padding is ignored."""
    return pad_sequence(texts, batch_first=True), pad_sequence(texts, batch_first=True, padding_value=-100)


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # enough for so small a network
    accelerator = Accelerator()
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    texts: Any = paragraphs()
    loader = DataLoader(texts, batch_size=2, collate_fn=collate)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    for epoch in range(1, 6):
        batches = iter(loader)
        while step := list(islice(batches, MICRO_BATCHES // accelerator.num_processes)):
            # The first token of a text is not predicted.
            tokens = accelerator.reduce(sum((labels[:, 1:] != -100).sum() for _, labels in step))
            total = torch.zeros((), device=accelerator.device)
            for i, (inputs, labels) in enumerate(step, 1):
                with accelerator.no_sync(model) if i < len(step) else nullcontext():
                    # Gradients are averaged over the processes: each divides by its share of the tokens.
                    loss = causal_cross_entropy(
                        model(inputs),
                        labels,
                        label_smoothing=0.1,
                        denominator=tokens / accelerator.num_processes,
                    )
                    accelerator.backward(loss)
                total += loss.detach()
            optimizer.step()
            optimizer.zero_grad()
            mean = accelerator.reduce(total, "mean")
            accelerator.print(f"epoch {epoch}: loss {mean:.4f}, a mean of {tokens} tokens")

    if len(sys.argv) > 1:
        accelerator.save(accelerator.unwrap_model(model).state_dict(), sys.argv[1])


if __name__ == "__main__":
    main()
