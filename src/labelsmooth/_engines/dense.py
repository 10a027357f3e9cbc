"""The dense engine on a CPU: the compiled kernel of native/, whose only K-wide output is the gradient."""

import ctypes
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from labelsmooth._core.modes import transformed
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import DIFFERENTIABLE, STATISTICS, Gradient, Linear, Measures
from labelsmooth._engines import kept, native, reference
from labelsmooth._engines.few import with_few
from labelsmooth._engines.layout import in_columns, in_rows, laid_like
from labelsmooth._engines.native import MOST_LABELS, Problem, Saved, Terms
from labelsmooth._engines.operator import DTYPES, operator, unserved

FEW_CLASSES = 1024
"""The largest number of classes whose sum is kept in one float; a block of native/row.h."""


_library = native.library()
ABSENCE = native.absence()


def serves(z: Tensor, measures: Measures) -> str | None:
    """Why the kernel cannot serve the call, or None if it can."""
    if z.device.type != "cpu":
        return f"it runs on a CPU, and input is on {z.device}"
    if measures.shares is not None and measures.shares.size(-1) > MOST_LABELS:
        return f"a row has more than {MOST_LABELS} labels"
    return unserved(z, measures) or ABSENCE


def _forward(z: Tensor, measures: Measures) -> Tensor:
    z, problem, _keep = _problem(z, *measures)
    out = z.new_empty((STATISTICS, *z.shape[:-1]), dtype=compute_dtype(z))
    bad = _kernel().labelsmooth_forward(problem, out.data_ptr())
    if bad >= 0:
        got = int(measures.target.reshape(-1)[bad])
        raise ValueError(f"target must hold class indices in [0, {z.size(-1)}), got {got}")
    return out


def _backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    z, problem, _keep = _problem(z, *measures)
    rows = problem.class_stride == 1
    fits = out is not None and (out.is_contiguous() if rows else out.stride() == z.stride())
    written = out if out is not None and fits else _place(z, problem)
    grad, statistics = grad.contiguous(), statistics.contiguous()
    _kernel().labelsmooth_backward(problem, statistics.data_ptr(), grad.data_ptr(), written.data_ptr())
    return written if out is None or out is written else out.copy_(written)


_forward_with_few, _backward_with_few = with_few(_forward, _backward)


def forward(z: Tensor, measures: Measures) -> Tensor:
    return (_forward if measures.classes is None else _forward_with_few)(z, measures)


def backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    """The gradient with respect to z. That of a segmentation map keeps the map's memory layout."""
    by_rows = _backward if measures.classes is None else _backward_with_few
    found = by_rows(grad, z, measures, statistics, out)
    if out is not None or in_columns(z) is None or found.stride() == z.stride():
        return found
    return laid_like(z).copy_(found)


row_statistics = operator("dense", "CPU", serves, forward, backward, laid_like)


def evaluate(statistics: Tensor, linear: Linear) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Evaluate linear losses and their gradient, as :func:`labelsmooth._engines.reference.evaluate`."""
    rows = statistics.shape[1:]
    factors = [x.expand(rows).contiguous() if isinstance(x, Tensor) else x for x in linear.factors]
    scale = linear.scale.contiguous()
    terms = Terms(
        dtype=DTYPES.index(statistics.dtype),
        rows=rows.numel(),
        scale=scale.data_ptr(),
        z_loss=linear.z_loss,
        z_by_target=linear.z_by_target,
        threads=torch.get_num_threads(),
    )
    terms.held = factors
    for i, factor in enumerate(factors):
        if isinstance(factor, Tensor):
            terms.each[i] = factor.data_ptr()
        else:
            terms.factor[i] = factor
    losses = torch.empty_like(statistics[0])
    _kernel().labelsmooth_losses(terms, statistics.data_ptr(), losses.data_ptr())

    def gradient(grad: Tensor) -> Tensor:
        scaled = (scale * grad).contiguous()
        found = statistics.new_empty(DIFFERENTIABLE, *rows)
        terms.scale = scaled.data_ptr()
        _kernel().labelsmooth_losses_backward(terms, statistics.data_ptr(), found.data_ptr())
        return found

    return losses, gradient


def uniform(
    z: Tensor, target: Tensor, eps: float, ignore_index: int, mean: bool, divergence: bool = False
) -> tuple[Tensor, float] | None:
    """The plain loss in one pass, and its value without smoothing.

    The loss is the sum or mean over the rows that are not ignored, for class indices and the uniform prior.
    None if a target is out of range, or if the entropy that a divergence subtracts differs between rows.
    """
    rows, problem, _keep = _problem(z, target)
    saved = rows.new_empty((len(Saved._fields), target.numel()), dtype=compute_dtype(z))
    sums = (ctypes.c_double * 3)()
    if _kernel().labelsmooth_uniform_forward(problem, ignore_index, eps, saved.data_ptr(), sums):
        return None
    total, hard, count = sums
    if divergence:
        valid = Saved(*saved).valid
        if count < target.numel() or (count and valid.min() < z.size(-1)):  # ignored rows, masked classes
            return None
        total -= count * _entropy(eps, z.size(-1))
    divisor = 1.0 if not mean else count or torch.nan
    if torch.is_grad_enabled() and z.requires_grad:
        loss = _Uniform.apply(z, target, saved, total / divisor, eps, ignore_index, divisor)
    else:
        loss = saved.new_tensor(total / divisor)
    return loss, hard / divisor


def _entropy(eps: float, classes: int) -> float:
    """The entropy of a smoothed target."""
    off = eps / classes
    shares = ((1, 1 - eps + off), (classes - 1, off))
    return -sum(n * p * math.log(p) for n, p in shares if p > 0)


class _Uniform(torch.autograd.Function):
    """The node of the plain loss in the autograd graph."""

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        target: Tensor,
        saved: Tensor,
        loss: float,
        *options: float,
    ) -> Tensor:
        ctx.save_for_backward(z, target, saved)
        ctx.options = options
        # A new tensor: autograd makes a view of an input that is returned, which cannot be changed in place.
        return saved.new_tensor(loss)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, target, saved = ctx.saved_tensors
        eps, ignore_index, divisor = ctx.options
        (grad,) = grads
        if torch.is_grad_enabled() or transformed(grad):
            counted = target != ignore_index
            by_row = torch.where(counted, grad / divisor, 0.0)
            nothing = torch.zeros_like(by_row)
            hard, spread = by_row * (eps - 1), by_row * -eps
            by = Gradient(lse=by_row, target_z=hard, prior_z=spread, hinge=nothing, model_z=nothing)
            measures = Measures(target.masked_fill(~counted, 0), counted)
            by_z = reference.gradient(torch.stack(by), z, measures)
        else:
            rows, problem, _keep = _problem(z, target)
            by_z = _place(rows, problem)
            scale = float(grad) / divisor
            _kernel().labelsmooth_uniform_backward(
                problem, ignore_index, eps, scale, saved.data_ptr(), by_z.data_ptr()
            )
        return by_z, *[None] * 6


def _place(z: Tensor, problem: Problem) -> Tensor:
    """Memory for a gradient: each row's classes side by side or, in columns, in the layout of the logits."""
    return kept.new_empty(z, z.shape) if problem.class_stride == 1 else kept.empty_like(z)


def _kernel() -> ctypes.CDLL:
    if _library is None:
        raise RuntimeError(f"the compiled kernel is not there: {ABSENCE}")
    return _library


def _problem(
    z: Tensor,
    target: Tensor,
    counted: Tensor | None = None,
    prior: Tensor | None = None,
    weight: Tensor | None = None,
    exclude_target: bool = False,
    shares: Tensor | None = None,
    per_row: bool = False,
    _classes: object = None,
    margin: float | None = None,
    squared: bool = False,
    spread: bool = False,
) -> tuple[Tensor, Problem, tuple[Tensor | None, ...]]:
    """The logits in a layout that the kernel reads, its arguments, and the tensors that these point to."""
    classes = z.size(-1)
    soft = target.is_floating_point()
    one_for_all = prior is None or (prior.dim() == 1 and not per_row)
    one_label = not soft and shares is None
    plain = one_for_all and one_label and margin is None and not (exclude_target or spread)
    columns = in_columns(z) if plain and classes <= FEW_CLASSES else None
    if columns is None:
        z, (inner, outer_stride, inner_stride) = in_rows(z)
        class_stride = 1
    else:
        inner, outer_stride, inner_stride = columns
        class_stride = inner
    # The kernel reads memory, in which a lazy negation has not been applied.
    z, target = z.resolve_neg(), target.contiguous().resolve_neg()
    counted, prior, weight, shares = (
        x if x is None else x.contiguous().resolve_neg() for x in (counted, prior, weight, shares)
    )
    problem = Problem(
        z.data_ptr(),
        DTYPES.index(z.dtype),
        z.numel() // classes,
        inner,
        outer_stride,
        inner_stride,
        class_stride,
        classes,
        None if soft else target.data_ptr(),
        1 if shares is None else shares.size(-1),
        None if shares is None else shares.data_ptr(),
        target.data_ptr() if soft else None,
        None if counted is None else counted.data_ptr(),
        None if prior is None else prior.data_ptr(),
        0 if one_for_all else classes,
        per_row,
        None if weight is None else weight.data_ptr(),
        exclude_target,
        math.nan if margin is None else margin,
        squared,
        spread,
        plain,
        torch.get_num_threads(),
    )
    return z, problem, (target, counted, prior, weight, shares)
