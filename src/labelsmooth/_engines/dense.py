"""The dense engine on a CPU: the compiled kernel of native/, whose only K-wide output is the gradient."""

import ctypes
import math
from collections.abc import Callable

import torch
from torch import Tensor

from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import DIFFERENTIABLE, STATISTICS, Linear, Measures
from labelsmooth._engines import kept, native
from labelsmooth._engines.few import with_few
from labelsmooth._engines.layout import in_columns, in_rows, laid_like
from labelsmooth._engines.native import MOST_LABELS, Problem, Terms
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
    _check(kernel().labelsmooth_forward(problem, out.data_ptr()), z, measures)
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
    written = out if out is not None and fits else place(z, problem)
    grad, statistics = grad.contiguous(), statistics.contiguous()
    kernel().labelsmooth_backward(problem, statistics.data_ptr(), grad.data_ptr(), written.data_ptr())
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
    return found if out is not None else laid_out(found, z)


def laid_out(by_z: Tensor, z: Tensor) -> Tensor:
    """The gradient in the memory layout of a segmentation map."""
    if in_columns(z) is None or by_z.stride() == z.stride():
        return by_z
    return laid_like(z).copy_(by_z)


row_statistics = operator("dense", "CPU", serves, forward, backward, laid_like)


def evaluate(statistics: Tensor, linear: Linear) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Evaluate linear losses and their gradient, as :func:`labelsmooth._engines.reference.evaluate`."""
    terms = _terms(linear, statistics[0])
    losses = torch.empty_like(statistics[0])
    kernel().labelsmooth_losses(terms, statistics.data_ptr(), losses.data_ptr())

    def gradient(grad: Tensor) -> Tensor:
        scaled = (linear.scale * grad).contiguous()
        found = statistics.new_empty(DIFFERENTIABLE, *losses.shape)
        terms.scale = scaled.data_ptr()
        kernel().labelsmooth_losses_backward(terms, statistics.data_ptr(), found.data_ptr())
        return found

    return losses, gradient


def at_once(z: Tensor, measures: Measures, linear: Linear, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The statistics, linear losses, and the gradient with respect to z, given that of the losses.

    Priors over a few classes are not served: they need operations of torch after the kernel's.
    """
    assert measures.classes is None
    rows, problem, _keep = _problem(z, *measures)
    statistics = z.new_empty((STATISTICS, *z.shape[:-1]), dtype=compute_dtype(z))
    losses, by_statistics = torch.empty_like(statistics[0]), torch.empty_like(statistics[:DIFFERENTIABLE])
    scaled, by_z = (linear.scale * grad).contiguous(), place(rows, problem)
    places = (x.data_ptr() for x in (scaled, statistics, losses, by_statistics, by_z))
    _check(kernel().labelsmooth_at_once(problem, _terms(linear, losses), *places), z, measures)
    return statistics, losses, laid_out(by_z, z)


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


def place(z: Tensor, problem: Problem) -> Tensor:
    """Memory for a gradient: each row's classes side by side or, in columns, in the layout of the logits."""
    like_z = problem.class_stride != 1 or z.is_contiguous()
    return kept.empty_like(z) if like_z else kept.new_empty(z, z.shape)


def kernel() -> ctypes.CDLL:
    if _library is None:
        raise RuntimeError(f"the compiled kernel is not there: {ABSENCE}")
    return _library


def memory_of(z: Tensor, plain: bool) -> tuple[Tensor, tuple[int, int, int, int]]:
    """The logits in memory that the kernel can read, and inner, outer_stride, inner_stride, class_stride."""
    z = z.resolve_neg()  # a lazy negation has not been applied to memory
    columns = in_columns(z) if plain and z.dim() > 2 and z.size(-1) <= FEW_CLASSES else None
    if columns is not None:
        return z, (*columns, columns[0])
    z, rows = in_rows(z)
    return z, (*rows, 1)


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
    z, layout = memory_of(z, plain)
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
