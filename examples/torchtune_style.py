"""Train a language model in a recipe like torchtune's: the loss object has the head and makes no logits.

The gradients of a step are sums over the tokens of all its micro-batches, divided once by their number.

    python examples/torchtune_style.py

With a file name as an argument it saves the trained model there.
"""

import sys
from pydoc_data.topics import topics
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader

from labelsmooth import LinearCrossEntropyLoss
from labelsmooth.functional import next_tokens


class Model(nn.Module):
    """Predicts the next byte; a recipe may leave its output layer to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 32)
        self.rnn = nn.GRU(32, 64, batch_first=True)
        self.output = nn.Linear(64, 256, bias=False)
        self.skip_output_layer = False

    def forward(self, tokens: Tensor) -> Tensor:
        hidden, _ = self.rnn(self.embedding(tokens))
        return hidden if self.skip_output_layer else self.output(hidden)


def paragraphs() -> list[Tensor]:
    """Of Python's reference, as bytes."""
    texts = [text.encode()[:200] for text in topics["class"].split("\n\n")]
    return [torch.tensor(list(text)) for text in texts[:16]]


def collate(texts: list[Tensor]) -> dict[str, Tensor]:
    """Tokens, and labels in which the padding is ignored."""
    labels = pad_sequence(texts, batch_first=True, padding_value=-100)
    return {"tokens": pad_sequence(texts, batch_first=True), "labels": labels}


class Recipe:
    def __init__(self, gradient_accumulation_steps: int = 4) -> None:
        torch.manual_seed(0)
        self._model = Model()
        self._loss_fn = LinearCrossEntropyLoss.from_linear(
            self._model.output, label_smoothing=0.1, reduction="sum"
        )
        self._model.skip_output_layer = True
        self._optimizer = torch.optim.SGD(self._model.parameters(), lr=1.0)
        texts: Any = paragraphs()
        self._dataloader = DataLoader(texts, batch_size=2, collate_fn=collate)
        self._gradient_accumulation_steps = gradient_accumulation_steps

    def _loss_step(self, batch: dict[str, Tensor]) -> Tensor:
        return self._loss_fn(self._model(batch["tokens"]), next_tokens(batch["labels"]))

    def train(self, epochs: int = 5) -> None:
        for epoch in range(1, epochs + 1):
            running_loss, num_tokens = 0.0, 0
            for idx, batch in enumerate(self._dataloader, 1):
                num_tokens += int((next_tokens(batch["labels"]) != -100).sum())
                loss = self._loss_step(batch)
                loss.backward()
                running_loss += loss.item()
                if idx % self._gradient_accumulation_steps == 0:
                    self._scale_grads(1 / num_tokens)
                    self._optimizer.step()
                    self._optimizer.zero_grad()
                    mean = running_loss / num_tokens
                    print(f"epoch {epoch}: loss {mean:.4f}, a mean of {num_tokens} tokens")
                    running_loss, num_tokens = 0.0, 0

    def _scale_grads(self, scaler: float) -> None:
        for parameter in self._model.parameters():
            if parameter.grad is not None:
                parameter.grad *= scaler

    def save_checkpoint(self, path: str) -> None:
        torch.save(self._model.state_dict(), path)


if __name__ == "__main__":
    torch.set_num_threads(1)  # enough for so small a network
    recipe = Recipe()
    recipe.train()
    if len(sys.argv) > 1:
        recipe.save_checkpoint(sys.argv[1])
