"""A fit trains one model with the criterion it is given. The study's own fit is one such function."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from labelsmooth.calibration import accuracy
from labelsmooth.study.data import POOL, digits, draw
from labelsmooth.study.models import MLP

LogitsAndLabels = tuple[Tensor, Tensor]  # (N, K) and (N,)


class Criterion(nn.Module):
    """What a fit trains with: called on a batch, and told when an epoch is over, since some change then.

    It is for training rows alone: what it is called on, some learn from.

    Args:
        loss: A module that takes logits and labels; its ``end_epoch()`` is called where it has one.

    Example:
        >>> from labelsmooth import CrossEntropyLoss
        >>> criterion = Criterion(CrossEntropyLoss(label_smoothing=0.1))
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))
        tensor(0.3365)
        >>> criterion.end_epoch()
        >>> criterion.called, criterion.epochs
        (True, 1)
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss
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


class FitResult(TypedDict):
    """What a fit returns: ``val`` and ``test``, with the same rows in every call, and what else it has.

    Attributes:
        val: Logits, ``(N, K)``, before any softmax, and labels, ``(N,)``, of the validation rows. Free of
            wrong labels: they choose the arm and fit the temperature. Needed.
        test: Logits and labels of the test rows, ``(N, K)`` and ``(N,)``. Needed.
        train: Logits and labels of the training rows, ``(M, K)`` and ``(M,)``, labelled as trained on.
        clean: True labels of the training rows, ``(M,)``, where some were flipped.
        history: Curves by name, each a list with one number per epoch.
        features: The penultimate layer on the test rows, ``(N, D)``.
        head: The last layer's weight, ``(K, D)``.
        state: The model's ``state_dict()``, to be saved.
    """

    val: LogitsAndLabels
    test: LogitsAndLabels
    train: NotRequired[LogitsAndLabels]
    clean: NotRequired[Tensor]
    history: NotRequired[dict[str, list[float]]]
    features: NotRequired[Tensor]
    head: NotRequired[Tensor]
    state: NotRequired[dict[str, Tensor]]


Fit = Callable[[Criterion, int], FitResult]


@dataclass(frozen=True, kw_only=True)
class DigitsFit:
    """Train an MLP on some of scikit-learn's digits, a share of whose labels is wrong."""

    rows: int = 800
    flipped: float = 0.0
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 2e-3
    hidden: int = 128

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= POOL:
            raise ValueError(f"rows must lie in [1, {POOL}], got {self.rows}")
        if not 0 <= self.flipped <= 1:
            raise ValueError(f"flipped must lie in [0, 1], got {self.flipped}")
        if min(self.epochs, self.batch_size, self.hidden) < 1:
            raise ValueError(
                "epochs, batch_size and hidden must be at least 1, got "
                f"{self.epochs}, {self.batch_size} and {self.hidden}"
            )

    @property
    def description(self) -> str:
        wrong = f"{self.flipped * 100:.0f} % of their labels wrong, " if self.flipped else ""
        return f"{self.rows} training rows, {wrong}{self.epochs} epochs"

    @property
    def num_classes(self) -> int:
        return 10

    @property
    def counts(self) -> Tensor:
        """How many rows of the pool each class has, ``(10,)``."""
        return digits().pool[1].bincount(minlength=self.num_classes)

    @property
    def embeddings(self) -> Tensor:
        """The mean image of each class in the pool, less that of all, ``(10, 64)``."""
        x, labels = digits().pool
        return torch.stack([x[labels == k].mean(0) for k in range(self.num_classes)]) - x.mean(0)

    def model(self) -> MLP:
        return MLP(inputs=64, hidden=self.hidden, classes=self.num_classes)

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        data = digits()
        generator = torch.Generator().manual_seed(seed)
        train = draw(data.pool, self.rows, self.flipped, generator)
        model = self.model()
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate, fused=True)
        history: dict[str, list[float]] = {
            "training NLL": [],
            "validation NLL": [],
            "validation accuracy": [],
        }

        for _ in range(self.epochs):
            for batch in torch.randperm(self.rows, generator=generator).split(self.batch_size):
                optimizer.zero_grad()
                output = model(train.x[batch])
                loss = criterion(output, train.labels[batch])
                loss.backward()
                optimizer.step()
            criterion.end_epoch()
            logits = _predict(model, data.val[0])
            history["training NLL"].append(_nll(_predict(model, train.x), train.labels))
            history["validation NLL"].append(_nll(logits, data.val[1]))
            history["validation accuracy"].append(accuracy(logits, data.val[1]))

        return {
            "val": (_predict(model, data.val[0]), data.val[1]),
            "test": (_predict(model, data.test[0]), data.test[1]),
            "train": (_predict(model, train.x), train.labels),
            "clean": train.clean,
            "history": history,
            "features": _predict(model.features, data.test[0]),
            "head": model.head.weight.detach(),
            "state": model.state_dict(),
        }


@torch.no_grad()
def _predict(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)


def _nll(logits: Tensor, labels: Tensor) -> float:
    return float(nn.functional.cross_entropy(logits, labels))
