"""The built-in fit: an MLP on scikit-learn's digits."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from labelsmooth.calibration import accuracy
from labelsmooth.study.data.digits import POOL, digits, draw
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.models.mlp import MLP


@dataclass(frozen=True, kw_only=True)
class DigitsFit:
    """Train an MLP on some of scikit-learn's digits, with a share of wrong labels."""

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
        """The number of rows of each class in the pool, ``(10,)``."""
        return digits().pool[1].bincount(minlength=self.num_classes)

    @property
    def embeddings(self) -> Tensor:
        """The mean image of each class in the pool minus the mean of all images, ``(10, 64)``."""
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
