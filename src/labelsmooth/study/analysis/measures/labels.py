"""Metrics of the predicted class."""

import torch
from torch import Tensor

from labelsmooth.study.analysis.evidence import Evidence


def accuracy(run: Evidence) -> Tensor:
    return run.right


def balanced_accuracy(run: Evidence) -> Tensor:
    """The mean recall of the classes with rows."""
    count = _count(run.labels, run)
    recall = _sums(run.labels, run.right, run) / count
    by_class = len(run.labels) / ((count > 0).sum() * count)
    return recall.nanmean() + (run.right - recall[run.labels]) * by_class[run.labels]


def macro_f1(run: Evidence) -> Tensor:
    """The mean F1 of the classes that occur as a label or a prediction."""
    both = _count(run.labels, run) + _count(run.predicted, run)
    f1 = 2 * _sums(run.labels, run.right, run) / both  # NaN for a class that does not occur
    share = len(run.labels) / ((both > 0).sum() * both)
    moved = 2 * run.right * share[run.labels]
    for k in (run.labels, run.predicted):
        moved -= f1[k] * share[k]
    return f1.nanmean() + moved


def absolute_error(run: Evidence) -> Tensor | None:
    """The absolute error in ranks, for ordinal classes."""
    return (run.predicted - run.labels).abs().double() if run.ordinal else None


def weighted_kappa(run: Evidence) -> Tensor | None:
    r"""Cohen's kappa with quadratic weights, for ordinal classes:

    .. math::
        1 - E(y - \hat y)^2 / E_\text{independent}(y - \hat y)^2
    """
    if not run.ordinal:
        return None
    y, guess = run.labels.double(), run.predicted.double()
    squared = (y - guess).square()
    # The expected squared error of independent labels and predictions, and each row's influence on it.
    expected = (y.square() + guess.square()).mean() - 2 * y.mean() * guess.mean()
    if not expected:
        return None
    moved = y.square() + guess.square() - 2 * (y * guess.mean() + guess * y.mean())
    ratio = squared.mean() / expected
    return 1 - ratio - (squared - squared.mean() - ratio * (moved - moved.mean())) / expected


def _count(k: Tensor, run: Evidence) -> Tensor:
    return torch.bincount(k, minlength=run.num_classes).double()


def _sums(k: Tensor, x: Tensor, run: Evidence) -> Tensor:
    return x.new_zeros(run.num_classes).index_add_(0, k, x)
