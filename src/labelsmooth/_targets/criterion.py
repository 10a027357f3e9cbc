"""A cross entropy apart from its logits: the options, as tensors that correspond to the rows."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from inspect import signature
from typing import Any, Final, NamedTuple, NoReturn, Self, Unpack

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from labelsmooth._core.checks import (
    UNIT,
    Interval,
    as_strength,
    check_choice,
    check_class_weight,
    check_denominator,
    check_devices,
    check_number,
)
from labelsmooth._core.modes import recorded
from labelsmooth._core.precision import as_given
from labelsmooth._core.reduction import Reduction, divisor, reduce
from labelsmooth._core.statistics import (
    DIFFERENTIABLE,
    Linear,
    Measures,
    RowStatistics,
    class_dim_of,
    nll,
    squared_lse,
    taken,
    times,
)
from labelsmooth._engines.operator import Kernels
from labelsmooth._targets.mixed import Mixed, as_mixed_targets
from labelsmooth._targets.options import CrossEntropyOptions, LossOptions, OffTarget, Strength, Weighting
from labelsmooth._targets.priors import as_prior, check_draws, check_others
from labelsmooth._targets.rows import as_targets
from labelsmooth.formulas import Formula
from labelsmooth.formulas._base import check_formula
from labelsmooth.formulas._smoothing import LABEL_SMOOTHING
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import ByClass, Schedule


class Unasked(Tensor):
    """A placeholder for a statistic that a formula has not declared. Any operation on it raises an error.

    With None in its place some operations would pass, such as a comparison.
    """

    said: str

    @classmethod
    def __torch_function__(cls, func: object, types: object, args: Any = (), kwargs: Any = None) -> NoReturn:
        raise ValueError(next(x.said for x in tree_leaves((args, kwargs)) if isinstance(x, cls)))


@cache
def unasked(formula: str, statistic: str, rule: str) -> Tensor:
    made = torch.empty(0).as_subclass(Unasked)
    made.said = f"formula {formula} uses {statistic}, and so must have {rule}"
    return made


class Criterion(NamedTuple):
    """A cross entropy as a function of the row statistics of the logits."""

    measures: Measures
    eps: Tensor  # broadcasts against the rows
    scale: Tensor  # each row's factor
    counts: Tensor  # each row's count in a mean
    reduction: Reduction
    denominator: float | Tensor | None
    z_loss: float
    formula: Formula
    overlap: Tensor | None  # <target, prior>, if the formula uses it

    def losses(self, s: RowStatistics) -> Tensor:
        """One loss per row."""
        loss = self._formula_of(s)
        if self.z_loss:
            # Weighted as the row's lse, so that a common factor of the class weights cancels in a mean.
            squared = squared_lse(s)
            weighted = squared if self.measures.weight is None else times(s.target_mass, squared)
            loss = loss + self.z_loss * weighted
        return times(self.scale, loss)

    def evaluated(self, statistics: Tensor, kernels: Kernels) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """One loss per row given the statistics, ``(10, ...)``, and a function for the gradient.

        The function takes the gradient with respect to the losses, and returns the gradient with respect to
        the differentiable statistics, ``(5, ...)``.
        """
        if (linear := self.linear) is not None:
            return kernels.evaluate(statistics, linear)
        with torch.enable_grad():
            leaf = statistics.detach().requires_grad_()
            losses = self.losses(RowStatistics(*leaf.unbind()))

        def gradient(grad: Tensor) -> Tensor:
            (found,) = torch.autograd.grad(losses, leaf, grad.expand_as(losses), retain_graph=True)
            return found[:DIFFERENTIABLE]

        return losses.detach(), gradient

    @property
    def linear(self) -> Linear | None:
        """The losses as a sum of terms, or None if the formula is not one."""
        if not self.formula.linear:
            return None
        one = self.eps.is_cpu and not self.eps.dim()
        factors = self.formula.factors(self.eps.item() if one else self.eps)
        return Linear(factors, self.scale, self.z_loss, self.measures.weight is not None)

    def _formula_of(self, s: RowStatistics) -> Tensor:
        formula, name = self.formula, type(self.formula).__name__
        if self.overlap is not None:
            empty = s.valid_mass == 0
            share = self.overlap / s.valid_mass.masked_fill(empty, 1.0)
            s = s._replace(overlap=share.masked_fill(empty, 1.0))
        if not formula.hinge:
            s = s._replace(hinge=self._unasked("hinge", "a property hinge that returns (margin, squared)"))
        if not formula.spread:
            s = s._replace(model_z=self._unasked("model_z", "spread = True"))
        if not formula.overlap:
            s = s._replace(overlap=self._unasked("overlap", "overlap = True"))
        loss = formula(s, self.eps)
        if not isinstance(loss, Tensor) or loss.shape != self.scale.shape:
            got = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            shape = tuple(self.scale.shape)
            raise ValueError(f"formula {name} must return one loss for each row, in shape {shape}, got {got}")
        return loss

    def _unasked(self, statistic: str, rule: str) -> Tensor:
        if torch.compiler.is_compiling() or recorded():
            return self.scale.new_full((), torch.nan)
        return unasked(type(self.formula).__name__, statistic, rule)

    def loss(self, s: RowStatistics) -> Tensor:
        return self.reduced(self.losses(s))

    def reduced(self, losses: Tensor) -> Tensor:
        return reduce(losses, self.counts, self.reduction, self.denominator)

    def unreduced(self, grad: Tensor) -> Tensor:
        """The gradient with respect to the losses per row, given ``grad`` with respect to the reduced loss.

        It broadcasts against the rows.
        """
        if self.reduction != "mean":
            return grad
        by = divisor(self.counts, self.denominator)
        return grad / by if self.denominator is not None else torch.where(by == 0, 0.0, grad / by)

    def nll(self, s: RowStatistics) -> Tensor:
        """The reduced loss without smoothing, which has no gradient."""
        return self.reduced(times(self.scale, nll(s))).detach()

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The caller's tensors. Autograd saves them, so that torch refuses them if they change in place."""
        return *self.measures.tensors, self.denominator if isinstance(self.denominator, Tensor) else None

    @property
    def learns(self) -> bool:
        """Whether any of its tensors requires a gradient."""
        if not torch.is_grad_enabled():
            return False
        tensors = (*self.tensors, self.eps, self.scale, self.counts, self.overlap)
        return any(x is not None and x.requires_grad for x in tensors)

    def flat(self) -> Self:
        """The criterion with all rows in one dimension."""
        return self if self.scale.dim() == 1 else self._by_row(self.measures.flat(), lambda x: x.reshape(-1))

    def rows(self, part: slice) -> Self:
        """The criterion of some of the rows, which are in one dimension."""
        if part == slice(0, len(self.scale)):
            return self
        return self._by_row(self.measures.rows(part), lambda x: x[part])

    def _by_row(self, measures: Measures, change: Callable[[Tensor], Tensor]) -> Self:
        return self._replace(
            measures=measures,
            eps=change(self.eps.expand_as(self.scale)) if self.eps.dim() else self.eps,
            scale=change(self.scale),
            counts=change(self.counts),
            overlap=None if self.overlap is None else change(self.overlap),
        )


def criterion(
    shape: torch.Size,
    dtype: torch.dtype,
    device: torch.device,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    class_dim: int | None = None,
    **options: Unpack[CrossEntropyOptions],
) -> Criterion:
    """Validate the arguments of a cross entropy of logits with this shape and device, computed in ``dtype``.

    The class dimension is torch's by default.
    """
    check_options(weight, options)
    class_dim = class_dim_of(len(shape), class_dim) % len(shape)
    return _criterion(shape, class_dim, dtype, device, target, weight, **options)


def check_options(weight: Tensor | None, options: LossOptions) -> None:
    """Check the options that do not depend on a batch."""
    for name, value in options.items():
        if name in CHECKS:
            CHECKS[name](name, value)
    if weight is None and options.get("weighting") == "sample":
        raise ValueError('weighting="sample" goes with weight only, got weight=None')


CHECKS: Final[Mapping[str, Callable[[str, Any], None]]] = {
    "reduction": partial(check_choice, choices=Reduction),
    "formula": check_formula,
    "off_target": partial(check_choice, choices=OffTarget),
    "weighting": partial(check_choice, choices=Weighting),
    "z_loss": check_number,
}


def _criterion(
    shape: torch.Size,
    class_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    target: Tensor | Mixed,
    weight: Tensor | None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: Strength = 0.0,
    formula: Formula = LABEL_SMOOTHING,
    prior: Tensor | Prior | PerSample | None = None,
    off_target: OffTarget = "all",
    weighting: Weighting = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
    z_loss: float = 0.0,
) -> Criterion:
    if denominator is not None:
        check_denominator(denominator, reduction)
    check_devices(
        device,
        target=target,
        weight=weight,
        label_smoothing=label_smoothing,
        prior=prior,
        sample_weight=sample_weight,
        denominator=denominator,
    )
    num_classes = shape[class_dim]
    shares = None
    if isinstance(target, Mixed):
        target, counted, shares = as_mixed_targets(
            target, shape, class_dim, dtype=dtype, ignore_index=ignore_index, sample_weight=sample_weight
        )
    else:
        target, counted = as_targets(
            target, shape, class_dim, dtype=dtype, ignore_index=ignore_index, sample_weight=sample_weight
        )
    measures = Measures(
        target,
        counted,
        exclude_target=off_target == "others",
        shares=shares,
        **as_prior(prior, shape, class_dim, dtype, counted),
        margin=formula.hinge and formula.hinge[0],
        squared=bool(formula.hinge and formula.hinge[1]),
        spread=formula.spread,
    )
    if off_target == "others":
        check_others(measures, num_classes)
    if formula.draws:
        check_draws(measures, type(formula).__name__)
    several = measures.soft or shares is not None
    scale = counts = counted.to(dtype)
    if sample_weight is not None:
        scale = counts = torch.where(counted, sample_weight, 0.0).to(dtype)
    if weight is not None:
        check_class_weight(weight, num_classes)
        weight = weight.to(dtype)
        if weighting == "sample":
            with as_given(target.device):
                by_row = target @ weight if measures.soft else taken(weight, target)
            scale = counts = scale * (by_row if shares is None else (shares * by_row).sum(-1))
            weight = None
        elif not several and denominator is None:
            counts = scale * taken(weight, target)
    return Criterion(
        measures._replace(weight=weight),
        strength("label_smoothing", label_smoothing, measures, num_classes, scale, formula.strengths),
        scale,
        counts,
        reduction,
        denominator,
        z_loss,
        formula,
        _overlap(measures, num_classes, scale) if formula.overlap else None,
    )


DEFAULTS: Final[Mapping[str, Any]] = {
    **{name: p.default for name, p in signature(_criterion).parameters.items() if p.kind is p.KEYWORD_ONLY},
    "check_ranks": False,
    "train_only": False,
}
"""The defaults of the options of all losses. Options that are not listed have the default None."""


def strength(
    name: str,
    eps: Strength,
    measures: Measures,
    num_classes: int,
    like: Tensor,
    within: Interval = UNIT,
) -> Tensor:
    """eps as a tensor with the dtype of ``like`` that broadcasts against it; NaN where out of range."""
    if isinstance(eps, Schedule):
        eps = eps.eps
    if isinstance(eps, ByClass):
        if measures.soft or measures.shares is not None:
            given = "class probabilities" if measures.soft else "mixed labels"
            raise ValueError(f"{name}: by_class goes with class indices, got {given}")
        eps.check_classes(name, num_classes)
        eps = taken(eps.eps, measures.target)
    vector = isinstance(eps, Tensor) and eps.shape == (num_classes,)
    hint = "; a strength for each class is given as by_class(...)" if vector else ""
    return as_strength(name, eps, like, "the rows'", within, hint)


def _overlap(measures: Measures, num_classes: int, like: Tensor) -> Tensor:
    """<target, prior>, for the prior before it is renormalised over the valid classes."""
    target, prior, shares = measures.target, measures.prior, measures.shares
    if measures.exclude_target and not measures.mixed:
        return torch.zeros_like(like)
    if measures.mixed or (measures.soft and measures.classes is not None):
        raise ValueError("this formula takes one label for each row with such a prior, got several")
    if prior is None:
        prior = like.new_full((num_classes,), 1 / num_classes)
    if measures.soft:
        return (target * prior).sum(-1).masked_fill(~measures.counted, 0.0)
    labels = target if shares is not None else target.unsqueeze(-1)
    if measures.classes is not None:
        same = labels.unsqueeze(-1) == measures.classes.unsqueeze(-2)
        at = (prior.unsqueeze(-2) * same).sum(-1)
    elif measures.per_row:
        at = prior.gather(-1, labels)
    else:
        at = prior[labels, labels] if measures.by_class else prior[labels]
    return (at if shares is None else at * shares).sum(-1).masked_fill(~measures.counted, 0.0)
