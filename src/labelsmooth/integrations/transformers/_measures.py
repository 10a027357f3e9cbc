"""The loss and the plain NLL of logits or lazy logits."""

from typing import Final

import torch
from torch import Tensor

from labelsmooth import BCEWithLogitsLoss, CrossEntropyLoss, LabelSmoothingLoss, OnlineLabelSmoothing
from labelsmooth.functional import cross_entropy, linear_cross_entropy
from labelsmooth.functional._divergence import smoothed_entropy
from labelsmooth.integrations.transformers._lazy import LazyLogits
from labelsmooth.schedules import Schedule

IGNORED: Final = -100
Count = float | Tensor | None
Criterion = CrossEntropyLoss | LabelSmoothingLoss | BCEWithLogitsLoss


def measured(criterion: Criterion, z: Tensor, y: Tensor, count: Count) -> tuple[Tensor, Tensor]:
    """The loss and the NLL, as means.

    Args:
        criterion: One of the library's.
        z: Logits, ``(..., K)``.
        y: Class indices ``(...)``, or multilabel targets ``(..., K)``.
        count: The divisor. None is the number of labels that are not ignored.
    """
    if isinstance(count, Tensor):
        count = count.to(z.device)
    if isinstance(criterion, BCEWithLogitsLoss):
        return criterion(_rows(z), y, denominator=count, return_nll=True)
    y = y.flatten()
    if isinstance(criterion, LabelSmoothingLoss):
        loss, nll = _cross_entropy(CrossEntropyLoss(label_smoothing=criterion.smoothing), z, y, count)
        counted = (y != IGNORED).sum()
        eps = criterion.smoothing
        eps = eps.eps if isinstance(eps, Schedule) else torch.as_tensor(eps)
        entropy = smoothed_entropy(eps.double(), torch.tensor(z.size(-1))).to(loss)
        return loss - entropy * (1 if count is None else counted / count), nll
    if isinstance(criterion, OnlineLabelSmoothing):
        return criterion(_rows(z), y, denominator=count, return_nll=True)
    return _cross_entropy(criterion, z, y, count)


def _cross_entropy(criterion: CrossEntropyLoss, z: Tensor, y: Tensor, count: Count) -> tuple[Tensor, Tensor]:
    options = criterion.options(denominator=count)
    if not isinstance(z, LazyLogits):
        return cross_entropy(_rows(z), y, criterion.weight, return_nll=True, **options)
    head = z.head()
    return linear_cross_entropy(
        head.hidden.reshape(-1, head.hidden.size(-1)),
        head.weight,
        y,
        linear_bias=head.bias,
        scale=head.scale,
        softcap=head.softcap,
        weight=criterion.weight,
        return_nll=True,
        **options,
    )


def _rows(z: Tensor) -> Tensor:
    """``(N, K)``."""
    z = z.made() if isinstance(z, LazyLogits) else z
    return z.reshape(-1, z.size(-1))
