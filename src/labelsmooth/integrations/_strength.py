"""The current strength of a criterion."""

from typing import Any

from torch import Tensor

from labelsmooth import BCEWithLogitsLoss, CrossEntropyLoss, LabelSmoothingLoss
from labelsmooth.schedules import Schedule


def strength_of(
    criterion: CrossEntropyLoss | LabelSmoothingLoss | BCEWithLogitsLoss,
) -> float | Tensor | None:
    """eps, or None if it is not one number."""
    one = isinstance(criterion, LabelSmoothingLoss)
    eps: Any = criterion.smoothing if one else criterion.label_smoothing
    eps = eps.eps if isinstance(eps, Schedule) else eps
    single = isinstance(eps, float | int) or (isinstance(eps, Tensor) and eps.numel() == 1)
    return eps if single else None
