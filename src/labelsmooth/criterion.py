"""Everything of a cross entropy but its logits: options become tensors, one row of which serves one row."""

from typing import NamedTuple, Self, TypedDict

import torch
from torch import Tensor

from labelsmooth.checks import (
    as_given,
    as_targets,
    check_broadcasts,
    check_choice,
    check_class_weight,
    check_denominator,
    check_number,
    check_others,
    check_prior,
    check_strength,
)
from labelsmooth.engines.statistics import Measures, RowStatistics, times
from labelsmooth.formulas import nll, smoothed_nll, squared_lse
from labelsmooth.reduction import Reduction, reduce
from labelsmooth.schedules import ByClass
from labelsmooth.targets import OffTarget, Strength, Weighting


class CrossEntropyOptions(TypedDict, total=False):
    """The keyword options of :func:`labelsmooth.functional.cross_entropy` that its kin share."""

    ignore_index: int
    reduction: Reduction
    label_smoothing: Strength
    prior: Tensor | None
    off_target: OffTarget
    weighting: Weighting
    sample_weight: Tensor | None
    denominator: float | Tensor | None
    z_loss: float


class Criterion(NamedTuple):
    """A cross entropy that waits for the row statistics of the logits."""

    measures: Measures
    eps: Tensor  # broadcasts against the rows
    scale: Tensor  # each row's factor
    counts: Tensor  # what each row counts in a mean
    reduction: Reduction
    denominator: float | Tensor | None
    z_loss: float

    def losses(self, s: RowStatistics) -> Tensor:
        """One loss per row."""
        loss = smoothed_nll(s, self.eps)
        if self.z_loss:
            loss = loss + self.z_loss * squared_lse(s)
        return times(self.scale, loss)

    def loss(self, s: RowStatistics) -> Tensor:
        return reduce(self.losses(s), self.counts, self.reduction, self.denominator)

    def nll(self, s: RowStatistics) -> Tensor:
        """The loss without smoothing, without gradient."""
        return reduce(times(self.scale, nll(s)), self.counts, self.reduction, self.denominator).detach()

    @property
    def learns(self) -> bool:
        """Whether a gradient is asked for by anything in it."""
        tensors = (*self.measures, self.eps, self.scale, self.counts, self.denominator)
        return torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in tensors)

    def flat(self) -> Self:
        """The same with all rows in one dimension."""
        target = self.measures.target
        return self._replace(
            measures=self.measures._replace(
                target=target.reshape(-1, target.size(-1)) if self.measures.soft else target.reshape(-1),
                counted=self.measures.counted.reshape(-1),
            ),
            eps=self.eps.expand_as(self.scale).reshape(-1),
            scale=self.scale.reshape(-1),
            counts=self.counts.reshape(-1),
        )

    def rows(self, part: slice) -> Self:
        """The same of some of the rows, which have one dimension."""
        return self._replace(
            measures=self.measures.rows(part),
            eps=self.eps.expand_as(self.scale)[part],
            scale=self.scale[part],
            counts=self.counts[part],
        )


def criterion(
    shape: torch.Size,
    dtype: torch.dtype,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: Strength = 0.0,
    prior: Tensor | None = None,
    off_target: OffTarget = "all",
    weighting: Weighting = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
    z_loss: float = 0.0,
    class_dim: int | None = None,
) -> Criterion:
    """The cross entropy of logits of that shape, computed in ``dtype``; torch's class dimension if none."""
    check_choice("reduction", reduction, Reduction)
    check_choice("off_target", off_target, OffTarget)
    check_choice("weighting", weighting, Weighting)
    check_number("z_loss", z_loss)
    if denominator is not None:
        check_denominator(denominator, reduction)
    num_classes = shape[min(1, len(shape) - 1) if class_dim is None else class_dim]
    target, counted = as_targets(
        target, shape, class_dim, dtype=dtype, ignore_index=ignore_index, sample_weight=sample_weight
    )
    soft = target.is_floating_point()
    if prior is not None:
        check_prior(prior, num_classes)
        prior = prior.to(dtype)
    if off_target == "others":
        check_others(prior, num_classes)
    scale = counts = counted.to(dtype)
    if sample_weight is not None:
        scale = counts = torch.where(counted, sample_weight, 0.0).to(dtype)
    if weight is not None:
        check_class_weight(weight, num_classes)
        weight = weight.to(dtype)
        if weighting == "sample":
            with as_given(target.device):
                scale = counts = scale * (target @ weight if soft else weight[target])
            weight = None
        elif not soft and denominator is None:
            counts = scale * weight[target]
    return Criterion(
        Measures(target, counted, prior, weight, exclude_target=off_target == "others"),
        strength("label_smoothing", label_smoothing, target, num_classes, scale),
        scale,
        counts,
        reduction,
        denominator,
        z_loss,
    )


def strength(name: str, eps: Strength, target: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """eps as a tensor that broadcasts against the rows, ``like`` one of which it is; NaN if out of range."""
    if isinstance(eps, ByClass):
        if target.is_floating_point():
            raise ValueError(f"{name}: by_class goes with class indices, got class probabilities")
        if eps.eps.numel() != num_classes:
            raise ValueError(f"{name}: by_class has K={eps.eps.numel()} classes, input K={num_classes}")
        eps = eps.eps[target]
    check_strength(name, eps)
    if isinstance(eps, Tensor):
        check_broadcasts(name, eps, like.shape, "the rows'")
        eps = eps.to(like.dtype)
        return torch.where((eps >= 0) & (eps <= 1), eps, torch.nan)
    return like.new_ones(()) * eps  # arithmetic: torch.compile keeps the float open, one graph for all
