"""The criterion that a fit trains with."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn


class Criterion(nn.Module):
    """The loss of a fit, called with each batch; ``end_epoch()`` advances losses that change over time.

    Call it with training rows only, since some losses learn from every call.

    Args:
        loss: A module that takes logits and labels; its ``end_epoch()`` is called if it has one.
        arm: The full name of the arm.
        facts: Facts about the fit, by name.

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
        self.facts: dict[str, object] = dict(facts or {})
        self.called: bool = False
        self.epochs: int = 0

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        self.called = True
        return self.loss(input, target)

    def end_epoch(self) -> None:
        self.epochs += 1
        end_epoch: Callable[[], Any] | None = getattr(self.loss, "end_epoch", None)
        if end_epoch is not None:
            end_epoch()
