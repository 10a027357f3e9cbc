"""Validation of a prior, and its conversion to fields of :class:`Measures`."""

from typing import TypedDict

import torch
from torch import Tensor

from labelsmooth._core.checks import ROUNDING, check_prior, check_prior_shape, check_values
from labelsmooth._core.modes import readable
from labelsmooth._core.statistics import Measures, blanked
from labelsmooth.priors import PerSample, Prior


class PriorOptions(TypedDict, total=False):
    """The fields of Measures that describe the prior."""

    prior: Tensor | None
    per_row: bool
    classes: Tensor | None


def as_prior(
    prior: Tensor | Prior | PerSample | None,
    shape: torch.Size,
    class_dim: int,
    dtype: torch.dtype,
    counted: Tensor,
) -> PriorOptions:
    """Validate the prior for logits of this shape; priors per sample are checked in rows not ignored."""
    num_classes = shape[class_dim]
    if prior is None:
        return {}
    if isinstance(prior, Prior) and "probabilities" in prior._buffers:
        check_prior_shape(prior.probabilities, num_classes)
        return {"prior": prior.probabilities.to(dtype)}
    if not isinstance(prior, PerSample):
        prior = prior.probabilities if isinstance(prior, Prior) else prior
        check_prior(prior, num_classes)
        return {"prior": prior.to(dtype)}
    probabilities, classes = prior.probabilities, prior.classes
    if classes is None:
        if probabilities.shape != shape:
            raise ValueError(
                f"prior of each sample must have the input's shape {tuple(shape)}, "
                f"got {tuple(probabilities.shape)}"
            )
        probabilities = probabilities.movedim(class_dim, -1)
        _check_rows(probabilities, counted, whole=True)
        return {"prior": probabilities.to(dtype), "per_row": True}
    rows = shape[:class_dim] + shape[class_dim + 1 :]
    if classes.shape != probabilities.shape or classes.shape[:-1] != rows:
        raise ValueError(
            f"prior of each sample must have its classes, and as many probabilities, in shape "
            f"({', '.join(map(str, rows))}, k), got {tuple(classes.shape)} and {tuple(probabilities.shape)}"
        )
    _check_rows(probabilities, counted)
    classes = classes.long().masked_fill(~counted.unsqueeze(-1), 0)
    within = (classes >= 0) & (classes < num_classes)
    check_values("prior of each sample", f"have classes in [0, {num_classes})", classes, within)
    return {"prior": blanked(probabilities.to(dtype), counted), "per_row": True, "classes": classes}


def _check_rows(probabilities: Tensor, counted: Tensor, whole: bool = False) -> None:
    """Check that the rows not ignored are distributions; with ``whole`` they must sum to 1."""
    if not readable(probabilities, counted):
        return
    p, rule = probabilities, "be finite and at least 0"
    good = ((p >= 0) & (p < torch.inf)).all(-1)
    if whole:
        rule += ", and sum to 1,"
        good &= (p.sum(-1, dtype=torch.float64) - 1).abs() <= ROUNDING
    bad = counted & ~good
    if bool(bad.any()):
        row = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"prior of each sample must {rule} in rows that count, got {_shortly(p[row])} in row {row}"
        )


def _shortly(row: Tensor) -> str:
    shown = ", ".join(f"{x:.3g}" for x in row[:4].tolist())
    return f"[{shown}, ...]" if row.numel() > 4 else f"[{shown}]"


def check_others(measures: Measures, num_classes: int) -> None:
    """Check for ``off_target="others"`` that a prior without the target class has mass left."""
    prior = measures.prior
    if num_classes == 1:
        raise ValueError('off_target="others" needs at least 2 classes, got 1')
    if measures.classes is not None and (measures.soft or measures.shares is not None):
        raise ValueError(
            'off_target="others" takes one label for each row with a prior of a few classes, got several'
        )
    if prior is not None and not measures.per_row and readable(prior):
        own = prior.diagonal() if prior.dim() == 2 else prior
        if bool((own >= 1).any()):
            k = int((own >= 1).nonzero()[0])
            raise ValueError(
                f'off_target="others" needs mass on other classes, and prior gives class {k} all of it'
            )


def check_draws(measures: Measures, formula: str) -> None:
    """Check the prior of a formula that assumes wrong labels to be drawn from it."""
    if measures.by_class:
        raise ValueError(
            f"prior must be the same for all classes with {formula}, which takes wrong labels to be drawn"
            " from it, got one of shape (K, K)"
        )
    if measures.exclude_target:
        raise ValueError(
            f'off_target must be "all" with {formula}, which draws wrong labels from the prior, got "others"'
        )
