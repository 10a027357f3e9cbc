"""What a fit trains with."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn


class Criterion(nn.Module):
    """What a fit trains with: called on a batch, and told when an epoch is over, since some change then.

    It is for training rows alone: what it is called on, some learn from.

    Args:
        loss: A module that takes logits and labels; its ``end_epoch()`` is called where it has one.
        arm: How the arm that it is the loss of is spelled.
        facts: What that arm knows of the fit, by name.

    Example:
        >>> import torch
        >>> from labelsmooth import CrossEntropyLoss
        >>> criterion = Criterion(CrossEntropyLoss(label_smoothing=0.1))
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))
        tensor(0.3365)
        >>> criterion.end_epoch()
        >>> criterion.called, criterion.epochs
        (True, 1)
    """

    def __init__(self, loss: nn.Module, arm: str = "", facts: Mapping[str, object] | None = None) -> None:
        super().__init__()
        self.loss = loss
        self.arm = arm
        self.facts = dict(facts or {})
        self.called = False
        self.epochs = 0

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        self.called = True
        return self.loss(input, target)

    def end_epoch(self) -> None:
        self.epochs += 1
        end_epoch: Callable[[], Any] | None = getattr(self.loss, "end_epoch", None)
        if end_epoch is not None:
            end_epoch()
