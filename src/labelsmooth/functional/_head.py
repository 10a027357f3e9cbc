"""The loss of a linear head and its gradient in one go, where it is a sum or a mean."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labelsmooth._core.modes import transformed
from labelsmooth._core.statistics import RowStatistics
from labelsmooth._engines.linear import Head, differentiable, leaves, passes, unheld, whole_statistics
from labelsmooth._engines.operator import Kernels
from labelsmooth._targets.criterion import Criterion


def reduced(head: Head, wanted: Criterion) -> tuple[Tensor, RowStatistics]:
    """A loss that is a sum or mean, and the statistics of the rows, which have no gradient here.

    Its gradients are found on the way, but for a factor that the backward pass brings: three products.
    """
    loss, found = _Reduced.apply(*head, wanted)
    return loss, RowStatistics(*found.unbind())


class _Reduced(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        *parts, wanted = arguments
        head = Head(*parts)
        denominator = wanted.denominator if isinstance(wanted.denominator, Tensor) else None
        # Those of the criterion, for torch to refuse them if they have changed since.
        criterion = *wanted.measures.tensors, denominator
        ctx.save_for_backward(*unheld(head), *criterion)
        ctx.call = *head[3:], wanted
        losses = torch.empty_like(wanted.scale)
        found, ctx.gradients = passes(
            head, wanted.measures, ctx.needs_input_grad, _derivative(wanted, losses)
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
        if gradients is None:  # an earlier backward pass was given them, to keep and to change
            _, gradients = passes(head, wanted.measures, ctx.needs_input_grad, _derivative(wanted))
        grad = wanted.unreduced(grad)
        return *(x if x is None else _scale(x, grad) for x in gradients), *_REST


_REST = (None,) * len((*Head._fields[3:], "wanted"))


def _scale(x: Tensor, factor: Tensor) -> Tensor:
    """x *= factor; elsewhere than on a CPU a number without dimension is first rounded to the type of x."""
    return x.mul_(factor if x.is_cpu else factor.reshape([1] * x.dim()))


def _derivative(
    wanted: Criterion, losses: Tensor | None = None
) -> Callable[[Kernels, slice, Tensor], Tensor]:
    """The gradient of the sum of the losses by the statistics of some rows, whose losses are noted.

    The factor of a mean comes at the end: in float16 the gradients by single logits would vanish.
    """

    def derivative(kernels: Kernels, part: slice, statistics: Tensor) -> Tensor:
        found, gradient = wanted.rows(part).evaluated(statistics, kernels)
        if losses is not None:
            losses[part] = found
        return gradient(statistics.new_ones(()))

    return derivative
