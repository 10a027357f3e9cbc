"""The cross entropy of given logits, by the requested engine and formula."""

from typing import Any, Unpack

import torch
from torch import Tensor

from labelsmooth._core.modes import is_dtensor, recorded, transformed
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import RowStatistics
from labelsmooth._engines import ahead, dense, kept, reference
from labelsmooth._engines.operator import Kernels
from labelsmooth._engines.route import Engine, choose
from labelsmooth._targets.criterion import Criterion, criterion
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import CrossEntropyOptions
from labelsmooth._targets.rows import as_rows
from labelsmooth.functional._dtensor import dtensor_cross_entropy


def logits_cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    dim: int | None = None,
    engine: Engine | None = None,
    return_nll: bool = False,
    **options: Unpack[CrossEntropyOptions],
) -> tuple[Tensor, Tensor]:
    """:func:`cross_entropy` by the general path; the second result is the NLL if ``return_nll``."""
    if is_dtensor(input):
        return dtensor_cross_entropy(
            input, target, weight, dim=dim, engine=engine, return_nll=return_nll, **options
        )
    z, dtype = as_rows(input, dim), compute_dtype(input)
    wanted = criterion(input.shape, dtype, input.device, target, weight, class_dim=dim, **options)
    kernels = choose(z, wanted.measures, engine)
    if kernels is reference or wanted.learns or torch.compiler.is_compiling() or recorded():
        statistics = kernels.row_statistics(z, wanted.measures)
        loss = wanted.loss(statistics)
        return loss, wanted.nll(statistics) if return_nll else loss
    habit = None
    if torch.is_grad_enabled() and z.requires_grad and two_passes(wanted, kernels) is None:
        habit = ahead.habit((z.size(-1), wanted.reduction, type(wanted.formula)))
    loss, found = _Loss.apply(z, wanted, kernels, habit)
    return loss, wanted.nll(RowStatistics(*found.unbind())) if return_nll else loss


class _Loss(torch.autograd.Function):
    """Kernel and formula as one autograd node.

    It serves calls in which only the logits require a gradient, and no tracer or mode watches operators.
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, wanted: Criterion, kernels: Kernels, habit: ahead.Habit | None
    ) -> tuple[Tensor, Tensor]:
        factor, linear = habit and habit.expected(), wanted.linear
        if factor is None or linear is None:
            statistics, by_z = kernels.forward(z, wanted.measures), None
            losses, ctx.gradient = wanted.evaluated(statistics, kernels)
        else:
            grad, ctx.gradient = wanted.unreduced(wanted.scale.new_tensor(factor)), None
            statistics, losses, by_z = dense.at_once(z, wanted.measures, linear, grad)
        ctx.ahead = habit, factor, by_z
        ctx.save_for_backward(z, *wanted.tensors)
        ctx.call = wanted, kernels, statistics
        ctx.mark_non_differentiable(statistics)
        return wanted.reduced(losses), statistics

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, _ = grads
        z, *_ = ctx.saved_tensors
        wanted, kernels, statistics = ctx.call
        if torch.is_grad_enabled() or transformed(grad):
            measures = wanted.measures
            by_z = reference.differentiable(
                z, lambda x: wanted.loss(reference.row_statistics(x, measures)), grad
            )
            return by_z, None, None, None
        habit, factor, by_z = ctx.ahead
        ctx.ahead = habit, factor, None  # as the gradient is its caller's once it is returned
        if habit is not None:
            habit.came(float(grad))
        if by_z is not None:
            kept.prefer(by_z)
        if by_z is None or float(grad) != factor:
            gradient = ctx.gradient or wanted.evaluated(statistics, kernels)[1]
            by_z = kernels.backward(gradient(wanted.unreduced(grad)), z, wanted.measures, statistics, by_z)
        return by_z, None, None, None


def two_passes(wanted: Criterion, kernels: Kernels) -> str | None:
    """Why the gradient is computed in the backward pass, or None if it is computed with the loss."""
    if kernels is not dense:
        return "the dense engine does it"
    if wanted.reduction == "none":
        return "reduction='none' brings a factor for each row"
    if not wanted.formula.linear:
        return f"{type(wanted.formula).__name__} is no sum of factors and terms"
    if wanted.measures.classes is not None:
        return "the prior is over a few classes of each row"
    return None
