"""The loss of a linear head and its gradient in one pass, for a sum or a mean."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labelsmooth._core.modes import transformed
from labelsmooth._core.statistics import RowStatistics
from labelsmooth._engines.linear import (
    Head,
    Predictions,
    differentiable,
    leaves,
    passes,
    unheld,
    whole_statistics,
)
from labelsmooth._engines.operator import Kernels
from labelsmooth._targets.criterion import Criterion


def reduced(
    head: Head, wanted: Criterion, predictions: Predictions | None = None
) -> tuple[Tensor, RowStatistics]:
    """The reduced loss, for a sum or mean, and the statistics of the rows, which have no gradient here.

    The forward pass computes the gradients as well, with three matrix products in all. The backward pass
    multiplies them by its factor. ``predictions``, if given, are written.
    """
    loss, found = _Reduced.apply(*head, wanted, predictions)
    return loss, RowStatistics(*found.unbind())


class _Reduced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *parts, wanted, predictions = arguments
        head = Head(*parts)
        ctx.save_for_backward(*unheld(head), *wanted.tensors)
        ctx.call = *head[3:], wanted
        losses = torch.empty_like(wanted.scale)
        found, ctx.gradients = passes(
            head, wanted.measures, ctx.needs_input_grad, _derivative(wanted, losses), predictions
        )
        ctx.mark_non_differentiable(found)
        return wanted.reduced(losses), found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad, _ = grads
        hidden, weight, bias, *_ = ctx.saved_tensors
        *options, wanted = ctx.call
        head = Head(hidden, weight, bias, *options)
        if torch.is_grad_enabled() or transformed(grad):
            head = head._replace(**leaves(ctx, head))
            gradients = differentiable(
                head, lambda h: wanted.loss(whole_statistics(h, wanted.measures)), grad
            )
            return *gradients, *_REST
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # an earlier backward pass has returned them to its caller
            _, gradients = passes(head, wanted.measures, ctx.needs_input_grad, _derivative(wanted))
        grad = wanted.unreduced(grad)
        return *(x if x is None else _scale(x, grad) for x in gradients), *_REST


_REST = (None,) * len((*Head._fields[3:], "wanted", "predictions"))


def _scale(x: Tensor, factor: Tensor) -> Tensor:
    """x *= factor. Except on a CPU, torch would first round a 0-d factor to the dtype of x."""
    return x.mul_(factor if x.is_cpu else factor.reshape([1] * x.dim()))


def _derivative(
    wanted: Criterion, losses: Tensor | None = None
) -> Callable[[Kernels, slice, Tensor], Tensor]:
    """A function for the gradient of the summed losses with respect to the statistics of a chunk of rows.

    It writes the rows' losses into ``losses``. The factor of a mean is applied at the end, as in float16 the
    gradients with respect to the logits would underflow.
    """

    def derivative(kernels: Kernels, part: slice, statistics: Tensor) -> Tensor:
        found, gradient = wanted.rows(part).evaluated(statistics, kernels)
        if losses is not None:
            losses[part] = found
        return gradient(statistics.new_ones(()))

    return derivative
