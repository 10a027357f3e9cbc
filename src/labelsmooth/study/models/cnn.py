"""A small residual network for small images."""

from torch import Tensor, nn
from torch.nn.functional import relu


class Block(nn.Module):
    """A residual block of two convolutions, with an optional stride of 2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first: nn.Sequential = _convolution(inputs, outputs, stride)
        self.second: nn.Sequential = _convolution(outputs, outputs, 1)
        self.skip: nn.Sequential = nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.skip(x) + self.second(relu(self.first(x))))


class CNN(nn.Module):
    """Three residual blocks; ``features`` is the mean over pixels of the last, ``head`` the last layer."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        self.features: nn.Sequential = nn.Sequential(
            _convolution(channels, width, 1),
            nn.ReLU(),
            Block(width, width, 2),
            Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head: nn.Linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs)
    )
