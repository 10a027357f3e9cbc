"""Calibration of the most probable class, from logits (not probabilities) and class indices.

Shapes: logits ``(..., K)``, classes last, such as ``(N, K)``, or ``(B, T, K)`` for a language model; labels
``(...)``. Both may be tensors, NumPy arrays or nested lists; labels have any integer dtype. A logit of -inf
masks a class. Confidence is the largest probability of a row.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from labelsmooth.calibration._checks import CHUNK, Given, Rows, as_count, as_integer, as_rows

CELLS: Final = 64  # groups of similar confidence in a bin of many rows
MANY: Final = 16 * CELLS  # rows; a binomial sample costs about as much as 16 uniform ones


@dataclass(frozen=True)
class Reliability:
    """Predictions grouped by confidence into bins of equal width; each field has one number per bin."""

    count: Tensor  # rows
    confidence: Tensor  # mean confidence; NaN in an empty bin
    accuracy: Tensor  # share of correct rows; NaN in an empty bin

    @property
    def ece(self) -> float:
        """The expected calibration error, the mean over rows of their bin's gap, in [0, 1]."""
        gap = (self.confidence - self.accuracy).abs().where(self.count > 0, 0.0)
        return float((self.count * gap).sum() / self.count.sum())


def confidence(logits: Tensor) -> Tensor:
    """The largest probability of each row of ``(N, K)``, ``(N,)``, float64."""
    return _confidence(Rows(logits.detach()))


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """1.0 for each row whose largest logit is the label's, else 0.0, ``(N,)``, float64."""
    return (logits.argmax(-1) == labels).double()


def bin_of(confidence: Tensor, num_bins: int) -> Tensor:
    """The index b of the bin (b / num_bins, (b + 1) / num_bins] of each confidence."""
    inner = torch.arange(1, num_bins, dtype=torch.float64, device=confidence.device) / num_bins
    return torch.bucketize(confidence, inner)


def accuracy(logits: Given, labels: Given, *, ignore_index: int | None = -100) -> float:
    """The share of rows whose largest logit is the label's, in [0, 1].

    Args:
        logits: ``(..., K)``, classes last.
        labels: Class indices, ``(...)``.
        ignore_index: Rows with this label are ignored; None ignores none.

    Raises:
        ValueError: if all rows are ignored, a shape, dtype or label is wrong, a row holds NaN, +inf or only
            -inf, or probabilities are given.

    Example:
        >>> accuracy(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        0.5
    """
    rows = as_rows(logits, labels, ignore_index)
    return sum(float(correct(z, y).sum()) for z, y in rows.chunks()) / len(rows)


def reliability(
    logits: Given, labels: Given, num_bins: int = 15, *, ignore_index: int | None = -100
) -> Reliability:
    """Group rows by confidence into ``num_bins`` bins of equal width.

    Args:
        logits: ``(..., K)``, classes last.
        labels: Class indices, ``(...)``.
        num_bins: The number of bins, at least 1.
        ignore_index: Rows with this label are ignored; None ignores none.

    Raises:
        ValueError: if all rows are ignored, a shape, dtype or label is wrong, a row holds NaN, +inf or only
            -inf, probabilities are given, or ``num_bins`` is not a positive integer.

    Example:
        >>> r = reliability(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]), num_bins=2)
        >>> r.count.tolist(), r.accuracy.tolist()
        ([0.0, 2.0], [nan, 0.5])

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    return group(as_rows(logits, labels, ignore_index), as_count("num_bins", num_bins))


def group(rows: Rows, num_bins: int) -> Reliability:
    """The bins of validated rows."""
    sure, right = zip(*((_sure(z), correct(z, labels)) for z, labels in rows.chunks()), strict=True)
    return binned(torch.cat(sure), torch.cat(right), num_bins)


def binned(sure: Tensor, right: Tensor, num_bins: int) -> Reliability:
    """The bins of confidences and correctness (1.0 or 0.0) of rows; both ``(N,)``, float64."""
    bins = bin_of(sure, num_bins)
    count, sure, right = (
        sure.new_zeros(num_bins).index_add_(0, bins, x) for x in (torch.ones_like(sure), sure, right)
    )
    return Reliability(count, sure / count, right / count)


def expected_calibration_error(
    logits: Given, labels: Given, num_bins: int = 15, *, ignore_index: int | None = -100
) -> float:
    r"""ECE: :math:`\sum_b \frac{n_b}{N} |\mathrm{conf}_b - \mathrm{acc}_b|`, in [0, 1].

    It is biased upward: :func:`noise_floor` gives the value of a perfectly calibrated model. The arguments
    and errors are those of :func:`reliability`.

    Example:
        >>> expected_calibration_error(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0, 1]))
        0.0

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    return reliability(logits, labels, num_bins, ignore_index=ignore_index).ece


def noise_floor(
    logits: Given,
    num_bins: int = 15,
    draws: int = 1000,
    seed: int = 0,
    *,
    labels: Given | None = None,
    ignore_index: int | None = -100,
) -> float:
    """The ECE of a perfectly calibrated model: its mean over labels drawn from the model's confidence.

    Args:
        logits: ``(..., K)``, classes last.
        num_bins: As in :func:`expected_calibration_error`.
        draws: The number of draws of labels, at least 1.
        seed: The seed of the draws.
        labels: Class indices, ``(...)``, used only to ignore the rows of ``ignore_index``.
        ignore_index: As in :func:`expected_calibration_error`.

    Raises:
        ValueError: if all rows are ignored, a shape, dtype or label is wrong, a row holds NaN, +inf or only
            -inf, probabilities are given, or a number is not an integer or not positive.

    Example:
        >>> round(noise_floor(torch.zeros(100, 2)), 2)
        0.04

    Reference:
        Vaicenavicius et al., *Evaluating model calibration in classification*, AISTATS 2019.
    """
    num_bins, draws = as_count("num_bins", num_bins), as_count("draws", draws)
    seed = as_integer("seed", seed)
    return chance_gap(_confidence(as_rows(logits, labels, ignore_index)), num_bins, draws, seed)


def chance_gap(sure: Tensor, num_bins: int, draws: int, seed: int = 0) -> float:
    """The noise floor of confidences, ``(N,)``, float64."""
    sure = sure.sort().values
    return chance_gaps(sure, bin_of(sure, num_bins), draws, seed)


def chance_gaps(sure: Tensor, bins: Tensor, draws: int, seed: int = 0) -> float:
    """The noise floor of increasing confidences and their bins, ``(N,)``."""
    generator = torch.Generator(device=sure.device).manual_seed(seed)
    count = bins.unique_consecutive(return_counts=True)[1].tolist()
    return sum(_mean_gap(held, draws, generator) for held in sure.split(count)) / len(sure)


def _mean_gap(sure: Tensor, draws: int, generator: torch.Generator) -> float:
    """The mean absolute difference between a bin's number of correct rows and its expectation.

    Few rows are drawn one by one. Many rows are drawn by cells: the rows of a cell have nearly the same
    confidence p, so a binomial sample at the mean of p replaces them. Its mean is the same; its variance is
    larger by the variance of p, a share of at most w / p for a cell of width w.
    """
    size, p = torch.ones_like(sure), sure
    if by_cell := len(sure) > MANY:
        width = float(sure[-1] - sure[0]) or 1.0
        cell = ((sure - sure[0]) * (CELLS / width)).long().clamp_(0, CELLS - 1)
        size, p = (sure.new_zeros(CELLS).index_add_(0, cell, x) for x in (size, sure))
        size, p = size[size > 0], (p[size > 0] / size[size > 0]).clamp_max_(1.0)
    expected, total = sure.sum(), 0.0
    step = max(1, CHUNK // len(p))
    for start in range(0, draws, step):
        shape = (min(step, draws - start), len(p))
        if by_cell:
            hits = torch.binomial(size.expand(shape), p.expand(shape), generator)
        else:
            hits = torch.rand(shape, dtype=p.dtype, device=p.device, generator=generator) < p
        total += float((hits.sum(-1, dtype=p.dtype) - expected).abs().sum())
    return total / draws


def _confidence(rows: Rows) -> Tensor:
    return torch.cat([_sure(z) for z, _ in rows.chunks()])


def _sure(z: Tensor) -> Tensor:
    """The largest probability of each row of float64 logits: 1 / sum(exp(z - max z))."""
    return 1 / (z - z.amax(-1, keepdim=True)).exp_().sum(-1)
