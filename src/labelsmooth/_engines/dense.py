"""The dense engine on a CPU: the compiled kernel of native/, whose only K-wide output is the gradient."""

import ctypes
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labelsmooth._core.modes import transformed
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import DIFFERENTIABLE, STATISTICS, Gradient, Linear, Measures
from labelsmooth._engines import ahead, kept, native, reference
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
    _check(_kernel().labelsmooth_forward(problem, out.data_ptr()), z, measures)
    return out


def _check(bad: int, z: Tensor, measures: Measures) -> None:
    """Raise an error if a row's target is out of range."""
    if bad >= 0:
        got = int(measures.target.reshape(-1)[bad])
        raise ValueError(f"target must hold class indices in [0, {z.size(-1)}), got {got}")


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
    return found if out is not None else _laid_out(found, z)


def _laid_out(by_z: Tensor, z: Tensor) -> Tensor:
    """The gradient in the memory layout of a segmentation map."""
    if in_columns(z) is None or by_z.stride() == z.stride():
        return by_z
    return laid_like(z).copy_(by_z)


row_statistics = operator("dense", "CPU", serves, forward, backward, laid_like)


def evaluate(statistics: Tensor, linear: Linear) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Evaluate linear losses and their gradient, as :func:`labelsmooth._engines.reference.evaluate`."""
    terms = _terms(linear, statistics[0])
    losses = torch.empty_like(statistics[0])
    _kernel().labelsmooth_losses(terms, statistics.data_ptr(), losses.data_ptr())

    def gradient(grad: Tensor) -> Tensor:
        scaled = (linear.scale * grad).contiguous()
        found = statistics.new_empty(DIFFERENTIABLE, *losses.shape)
        terms.scale = scaled.data_ptr()
        _kernel().labelsmooth_losses_backward(terms, statistics.data_ptr(), found.data_ptr())
        return found

    return losses, gradient


def at_once(
    z: Tensor, measures: Measures, linear: Linear, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The statistics, linear losses, and the gradient with respect to z, given that of the losses.

    None if the priors are over a few classes, which need operations of torch after the kernel's.
    """
    if measures.classes is not None:
        return None
    rows, problem, _keep = _problem(z, *measures)
    statistics = z.new_empty((STATISTICS, *z.shape[:-1]), dtype=compute_dtype(z))
    losses, by_statistics = torch.empty_like(statistics[0]), torch.empty_like(statistics[:DIFFERENTIABLE])
    scaled, by_z = (linear.scale * grad).contiguous(), _place(rows, problem)
    places = (x.data_ptr() for x in (scaled, statistics, losses, by_statistics, by_z))
    _check(_kernel().labelsmooth_at_once(problem, _terms(linear, losses), *places), z, measures)
    return statistics, losses, _laid_out(by_z, z)


def _terms(linear: Linear, like: Tensor) -> Terms:
    factors = [x.expand(like.shape).contiguous() if isinstance(x, Tensor) else x for x in linear.factors]
    scale = linear.scale.contiguous()
    terms = Terms(
        dtype=DTYPES.index(like.dtype),
        rows=like.numel(),
        scale=scale.data_ptr(),
        z_loss=linear.z_loss,
        z_by_target=linear.z_by_target,
        threads=torch.get_num_threads(),
    )
    terms.held = factors, scale
    for i, factor in enumerate(factors):
        if isinstance(factor, Tensor):
            terms.each[i] = factor.data_ptr()
        else:
            terms.factor[i] = factor
    return terms


def uniform(
    z: Tensor,
    target: Tensor,
    eps: float,
    ignore_index: int,
    divisor: float | None,
    divergence: bool = False,
) -> tuple[Tensor, float] | None:
    """The plain loss in one pass, and its value without smoothing.

    The loss is the sum over the rows that are not ignored, by ``divisor``, or their mean if that is None; for
    class indices and the uniform prior. None if a target is out of range, or if the entropy that a divergence
    subtracts differs between rows.
    """
    rows, problem, _keep = _plain_problem(z, target)
    saved = torch.empty((len(Saved._fields), problem.rows), dtype=compute_dtype(z), device="cpu")
    sums = (ctypes.c_double * 3)()
    habit = factor = by_z = None
    if torch.is_grad_enabled() and z.requires_grad:
        habit = ahead.habit((problem.classes, divisor is None))
        factor = habit.expected() if problem.rows else None
        by_z = None if factor is None else _place(rows, problem)
    given = (factor or 0.0, divisor or 0.0, None if by_z is None else by_z.data_ptr())
    if _kernel().labelsmooth_uniform_forward(problem, ignore_index, eps, saved.data_ptr(), sums, *given):
        return None
    total, hard, count = sums
    if divergence:
        valid = Saved(*saved).valid
        if count < target.numel() or (count and valid.min() < z.size(-1)):  # ignored rows, masked classes
            return None
        total -= count * _entropy(eps, z.size(-1))
    by = (count or torch.nan) if divisor is None else divisor
    if habit is None:
        loss = torch.full((), total / by, dtype=saved.dtype, device="cpu")
    else:
        loss = _Uniform.apply(
            z, (target, saved, by_z), total / by, _Call(eps, ignore_index, by, habit, factor)
        )
    return loss, hard / by


class _Call(NamedTuple):
    """What a backward pass needs besides tensors."""

    eps: float
    ignore_index: int
    divisor: float
    habit: ahead.Habit
    factor: float | None  # of the gradient that was computed ahead


def _entropy(eps: float, classes: int) -> float:
    """The entropy of a smoothed target."""
    off = eps / classes
    shares = ((1, 1 - eps + off), (classes - 1, off))
    return -sum(n * p * math.log(p) for n, p in shares if p > 0)


class _Uniform(torch.autograd.Function):
    """The node of the plain loss in the autograd graph."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, others: tuple[Tensor, Tensor, Tensor | None], loss: float, call: _Call
    ) -> Tensor:
        target, saved, ctx.by_z = others
        ctx.save_for_backward(z, target, saved)
        ctx.call = call
        # A new tensor: autograd makes a view of an input that is returned, which cannot be changed in place.
        return torch.full((), loss, dtype=saved.dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, target, saved = ctx.saved_tensors
        call: _Call = ctx.call
        (grad,) = grads
        if torch.is_grad_enabled() or transformed(grad):
            counted = target != call.ignore_index
            by_row = torch.where(counted, grad / call.divisor, 0.0)
            nothing = torch.zeros_like(by_row)
            hard, spread = by_row * (call.eps - 1), by_row * -call.eps
            by = Gradient(lse=by_row, target_z=hard, prior_z=spread, hinge=nothing, model_z=nothing)
            measures = Measures(target.masked_fill(~counted, 0), counted)
            return reference.gradient(torch.stack(by), z, measures), None, None, None
        factor, by_z, ctx.by_z = float(grad), ctx.by_z, None  # which is its caller's once it is returned
        call.habit.came(factor)
        if by_z is not None:
            kept.prefer(by_z)
        if by_z is None or factor != call.factor:
            rows, problem, _keep = _plain_problem(z, target)
            by_z = _place(rows, problem) if by_z is None else by_z
            _kernel().labelsmooth_uniform_backward(
                problem, call.ignore_index, call.eps, factor / call.divisor, saved.data_ptr(), by_z.data_ptr()
            )
        return by_z, None, None, None


def _place(z: Tensor, problem: Problem) -> Tensor:
    """Memory for a gradient: each row's classes side by side or, in columns, in the layout of the logits."""
    like_z = problem.class_stride != 1 or z.is_contiguous()
    return kept.empty_like(z) if like_z else kept.new_empty(z, z.shape)


def _kernel() -> ctypes.CDLL:
    if _library is None:
        raise RuntimeError(f"the compiled kernel is not there: {ABSENCE}")
    return _library


def _layout(z: Tensor, plain: bool) -> tuple[Tensor, tuple[int, int, int, int]]:
    """The logits in memory that the kernel can read, and inner, outer_stride, inner_stride, class_stride."""
    z = z.resolve_neg()  # a lazy negation has not been applied to memory
    columns = in_columns(z) if plain and z.dim() > 2 and z.size(-1) <= FEW_CLASSES else None
    if columns is not None:
        return z, (*columns, columns[0])
    z, rows = in_rows(z)
    return z, (*rows, 1)


def _plain_problem(z: Tensor, target: Tensor) -> tuple[Tensor, Problem, Tensor]:
    """:func:`_problem` of class indices alone, in less time."""
    z, layout = _layout(z, plain=True)
    classes, target = z.size(-1), target.contiguous().resolve_neg()
    problem = Problem(
        z.data_ptr(), DTYPES.index(z.dtype), target.numel(), *layout, classes, target.data_ptr(), 1
    )
    problem.margin, problem.plain, problem.threads = math.nan, True, torch.get_num_threads()
    return z, problem, target


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
    z, layout = _layout(z, plain)
    target = target.contiguous().resolve_neg()
    counted, prior, weight, shares = (
        x if x is None else x.contiguous().resolve_neg() for x in (counted, prior, weight, shares)
    )
    problem = Problem(
        z.data_ptr(),
        DTYPES.index(z.dtype),
        z.numel() // classes,
        *layout,
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
