"""Calibration of the top prediction, from logits (never probabilities) and class indices.

Shapes: logits ``(N, K)``, labels ``(N,)``. Confidence is the largest probability of a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Reliability:
    """Predictions grouped by confidence into bins of equal width; each field has one number per bin."""

    count: Tensor  # rows
    confidence: Tensor  # mean confidence; NaN in an empty bin
    accuracy: Tensor  # share of correct rows; NaN in an empty bin

    @property
    def ece(self) -> float:
        """The expected calibration error: how far confidence is from accuracy, mean over rows, in [0, 1]."""
        gap = (self.confidence - self.accuracy).abs().where(self.count > 0, 0.0)
        return float((self.count * gap).sum() / self.count.sum())


def confidence(logits: Tensor) -> Tensor:
    """The largest probability of each row, ``(N,)``, float64."""
    return logits.double().softmax(-1).amax(-1)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """1.0 where the largest logit is the label's, ``(N,)``, float64."""
    return (logits.argmax(-1) == labels).double()


def bin_of(confidence: Tensor, num_bins: int) -> Tensor:
    """The bin (b / num_bins, (b + 1) / num_bins] of each confidence; 1.0 lies in the last one."""
    inner = torch.arange(1, num_bins, dtype=torch.float64, device=confidence.device) / num_bins
    return torch.bucketize(confidence, inner)


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """The share of rows whose largest logit is the label's, in [0, 1].

    Example:
        >>> accuracy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        0.5
    """
    check_logits(logits, labels)
    return float(correct(logits, labels).mean())


def reliability(logits: Tensor, labels: Tensor, num_bins: int = 15) -> Reliability:
    """Group rows by confidence into ``num_bins`` bins of equal width.

    Args:
        logits: ``(N, K)``.
        labels: Class indices, ``(N,)``.
        num_bins: At least 1.

    Raises:
        ValueError: if there is no row, a shape is wrong or ``num_bins`` is not positive.

    Example:
        >>> r = reliability(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), num_bins=2)
        >>> r.count.tolist(), r.accuracy.tolist()
        ([0.0, 2.0], [nan, 0.5])

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    check_logits(logits, labels)
    _check_positive("num_bins", num_bins)
    sure, right = confidence(logits), correct(logits, labels)
    bins = bin_of(sure, num_bins)
    count, sure_sum, right_sum = (
        torch.zeros(num_bins, dtype=torch.float64, device=logits.device).index_add_(0, bins, x)
        for x in (torch.ones_like(sure), sure, right)
    )
    return Reliability(count, sure_sum / count, right_sum / count)


def expected_calibration_error(logits: Tensor, labels: Tensor, num_bins: int = 15) -> float:
    r"""ECE: :math:`\sum_b \frac{n_b}{N} |\mathrm{conf}_b - \mathrm{acc}_b|`, in [0, 1].

    It is biased upward: see :func:`noise_floor` for what a perfectly calibrated model would show.

    Example:
        >>> expected_calibration_error(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        0.0

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    return reliability(logits, labels, num_bins).ece


def noise_floor(logits: Tensor, num_bins: int = 15, draws: int = 1000, seed: int = 0) -> float:
    """The ECE that chance alone would show: its mean when labels are drawn from the model's own confidence.

    Args:
        logits: ``(N, K)``.
        num_bins: As in :func:`expected_calibration_error`.
        draws: How often labels are drawn.
        seed: Of the draws.

    Example:
        >>> round(noise_floor(torch.zeros(100, 2)), 3)
        0.039

    Raises:
        ValueError: if there is no row, the shape is wrong or a number is not positive.

    Reference:
        Vaicenavicius et al., *Evaluating model calibration in classification*, AISTATS 2019.
    """
    check_logits(logits)
    _check_positive("num_bins", num_bins)
    _check_positive("draws", draws)
    sure = confidence(logits)
    generator = torch.Generator(device=sure.device).manual_seed(seed)
    hits = torch.rand(draws, len(sure), dtype=torch.float64, device=sure.device, generator=generator) < sure
    in_bin = torch.nn.functional.one_hot(bin_of(sure, num_bins), num_bins).double()
    return float(((sure - hits.double()) @ in_bin).abs().sum(-1).mean() / len(sure))


def check_logits(logits: Tensor, labels: Tensor | None = None) -> None:
    if logits.dim() != 2 or not logits.is_floating_point():
        raise ValueError(
            f"logits must be floating point of shape (N, K), got {logits.dtype} {tuple(logits.shape)}"
        )
    if not logits.numel():
        raise ValueError(f"logits must have at least one row and class, got shape {tuple(logits.shape)}")
    if labels is None:
        return
    if labels.shape != logits.shape[:1] or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"labels must be integers of shape ({len(logits)},), got {labels.dtype} {tuple(labels.shape)}"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < logits.size(1):
        raise ValueError(
            f"labels must lie in [0, {logits.size(1)}), got {int(labels.min())} to {int(labels.max())}"
        )


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
