"""Losses composed of the library's parts: smoothing that depends on the model's own predictions."""

import torch
from torch import Tensor, nn

from labelsmooth import priors, schedules
from labelsmooth._core.checks import UNIT, check_strength
from labelsmooth._core.statistics import class_dim_of
from labelsmooth.functional import cross_entropy


class Bootstrap(nn.Module):
    r"""Soft bootstrapping: smoothing toward the model's own prediction, without gradient.

    .. math::
        \ell = (1 - \epsilon) H(e_y, q) + \epsilon H(\bar q, q), \qquad \bar q = q \text{ without gradient}

    Args:
        eps: The weight of the model's prediction, in ``[0, 1]``; the authors use 0.05.

    Raises:
        ValueError: if ``eps`` lies outside ``[0, 1]``.

    Example:
        >>> criterion = Bootstrap(eps=0.05)
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([1]))
        tensor(2.0876)

    Reference:
        Reed et al., *Training Deep Neural Networks on Noisy Labels with Bootstrapping*, ICLR workshop 2015.
    """

    def __init__(self, eps: float = 0.05) -> None:
        super().__init__()
        check_strength("eps", eps, UNIT)
        self.eps = eps

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        prior = priors.per_sample(_probabilities(input))
        return cross_entropy(input, target, label_smoothing=self.eps, prior=prior)

    def extra_repr(self) -> str:
        return f"eps={self.eps}"


class Graduated(nn.Module):
    r"""Graduated smoothing: a strength that increases with the model's own confidence in a sample.

    .. math::
        \ell = -\log q_y + \epsilon(\max_k q_k)\, (z_y - \bar z)

    with three strengths, as in :func:`labelsmooth.schedules.graduated`. The authors use the confidence of a
    trained model instead.

    Args:
        eps: The strength between the thresholds, in ``[0, 1]``.
        sure: The strength above the thresholds, in ``[0, 1]``; below them it is 0.
        low: The lower threshold of the confidence, in ``[0, 1]``.
        high: The upper threshold, at least ``low``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> criterion = Graduated()
        >>> criterion(torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0]))
        tensor(0.6698)

    Reference:
        Wang et al., *On the Inference Calibration of Neural Machine Translation*, ACL 2020.
    """

    def __init__(self, eps: float = 0.1, sure: float = 0.3, low: float = 0.3, high: float = 0.7) -> None:
        super().__init__()
        for name, value in (("eps", eps), ("sure", sure), ("low", low), ("high", high)):
            check_strength(name, value, UNIT)
        if low > high:
            raise ValueError(f"high must be at least low={low}, got {high}")
        self.eps: float = eps
        self.sure: float = sure
        self.low: float = low
        self.high: float = high

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        confidence = _probabilities(input).amax(class_dim_of(input.dim()))
        strengths = (0.0, self.eps, self.sure)
        eps = schedules.graduated(confidence, (self.low, self.high), strengths)
        return cross_entropy(input, target, label_smoothing=eps)

    def extra_repr(self) -> str:
        return f"eps={self.eps}, sure={self.sure}, low={self.low}, high={self.high}"


@torch.no_grad()
def _probabilities(logits: Tensor) -> Tensor:
    return logits.float().softmax(class_dim_of(logits.dim()))
