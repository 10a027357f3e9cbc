"""The model of the built-in study on digits."""

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers; ``features`` is the penultimate layer, ``head`` the last."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.features: nn.Sequential = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.head: nn.Linear = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))
