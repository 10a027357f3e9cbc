"""Row statistics and their gradient in Triton, one program per row: the dense engine on a GPU.

reference.py is the specification. The forward pass reads a row once, in blocks with a running maximum, and
again for a hinge, which needs the final maximum; it writes the statistics. The backward pass reads the row
again and writes the gradient, the only tensor as wide as the logits. Neither synchronises or has shapes that
depend on data, so both can be captured in a CUDA graph.
"""

# ruff: noqa: N803 - constants of a kernel are in capitals, as in Triton

from __future__ import annotations  # annotations name triton, which may be missing

from functools import cache
from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import ABSENT, STATISTICS, Measures, RowStatistics
from labelsmooth._engines.few import with_few
from labelsmooth._engines.layout import in_rows
from labelsmooth._engines.operator import unserved

if TYPE_CHECKING:
    import triton
    import triton.language as tl
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = None

jit: Any = (lambda kernel: kernel) if triton is None else triton.jit

# 8 logits per thread: full vector loads, and few enough registers that programs hide each other's latency.
BLOCK, BLOCK_PER_WARP = 2048, 256


@cache
def absence() -> str | None:
    """Why this engine is not available, or None if it is."""
    if triton is None:
        return "triton is not installed"
    if isinstance(_forward_kernel, triton.JITFunction) and not torch.cuda.is_available():
        return "there is no CUDA device, and TRITON_INTERPRET=1 was not set before triton was imported"
    return None


def _forward(z: Tensor, measures: Measures) -> Tensor:
    """The row statistics of ``z``, stacked."""
    statistics = z.new_empty((STATISTICS, *z.shape[:-1]), dtype=compute_dtype(z))
    constants = {"STATISTICS": STATISTICS, "ABSENT": ABSENT, "LEAST": torch.finfo(statistics.dtype).tiny}
    _launch(_forward_kernel, z, measures, None, statistics=statistics, **constants)
    return statistics


def _backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    """The gradient with respect to ``z``, given that by the statistics; ``out`` may be ``z`` itself."""
    if out is None:
        out = torch.empty_like(z, memory_format=torch.contiguous_format)
    place = in_rows(out)[0]
    tables = {"statistics": statistics.contiguous(), "grad": grad.contiguous()}
    _launch(_backward_kernel, z, measures, place, **tables)
    return out if place is out else out.copy_(place)


forward, backward = with_few(_forward, _backward)


def _block(classes: int) -> tuple[int, int]:
    """The number of logits that a program holds at a time, and its number of warps."""
    block = min(1 << (classes - 1).bit_length(), BLOCK)
    return block, max(1, block // BLOCK_PER_WARP)


def _launch(kernel: Any, z: Tensor, measures: Measures, out: Tensor | None, **more: object) -> None:
    """Run the kernel on every row; ``out`` has the shape of ``z``."""
    if obstacle := absence() or unserved(z, measures):
        raise ValueError(f"the triton engine cannot serve: {obstacle}")
    classes, num_rows = z.size(-1), measures.counted.numel()
    if num_rows == 0:
        return
    target, prior, weight = measures.target, measures.prior, measures.weight
    nowhere = (1, 0, 0)
    z, (z_inner, *z_strides) = in_rows(z)
    soft, (soft_inner, *soft_strides) = in_rows(target) if measures.soft else (None, nowhere)
    _, (out_inner, *out_strides) = (out, nowhere) if out is None else in_rows(out)
    if prior is None or prior.dim() == 1:
        prior, (prior_inner, *prior_strides) = prior if prior is None else prior.contiguous(), nowhere
    else:
        prior, (prior_inner, *prior_strides) = in_rows(prior)
    lengths = [classes, *z_strides, *soft_strides, *prior_strides, *out_strides]
    align = gcd(16, *lengths)
    block, num_warps = _block(classes)
    with torch.cuda.device_of(z):
        kernel[(num_rows,)](
            out,
            z,
            None if measures.soft else target.contiguous(),
            soft,
            measures.counted.contiguous().view(torch.uint8),
            prior,
            None if weight is None else weight.contiguous(),
            num_rows,
            z_inner,
            soft_inner,
            prior_inner,
            out_inner,
            *(length // align for length in lengths),
            margin=measures.margin or 0.0,
            PER_ROW=measures.per_row,
            EXCLUDE=measures.exclude_target,
            HINGED=measures.margin is not None,
            SQUARED=measures.squared,
            SPREAD=measures.spread,
            ALIGN=align,
            BLOCK=block,
            num_warps=num_warps,
            # Where one class is left, its terms cancel the partition's only if each product is rounded.
            enable_fp_fusion=False,
            **more,
        )


def _number(statistic: str) -> Any:
    """The index of a statistic as a constexpr, the only kind of global that a kernel may read."""
    number = RowStatistics._fields.index(statistic)
    return number if triton is None else tl.constexpr(number)


LSE, TARGET_Z, PRIOR_Z, HINGE, MODEL_Z = map(_number, ("lse", "target_z", "prior_z", "hinge", "model_z"))
TARGET_MASS, PRIOR_MASS, VALID_MASS = map(_number, ("target_mass", "prior_mass", "valid_mass"))
Z_MAX, SLOPE = map(_number, ("z_max", "slope"))

# An argument that is None costs nothing, as Triton specialises the kernel. Lengths are in units of ALIGN:
# Triton infers divisibility from the product with a constant, without which it would load class by class.


@jit
def _forward_kernel(
    out, z, target, soft, counted, prior, weight, num_rows, z_inner, soft_inner, prior_inner, out_inner,
    classes, z_outer, z_step, soft_outer, soft_step, prior_outer, prior_step, out_outer, out_step,
    statistics,
    margin: tl.float64,  # pyright: ignore[reportInvalidTypeForm]
    STATISTICS: tl.constexpr, ABSENT: tl.constexpr, LEAST: tl.constexpr, PER_ROW: tl.constexpr,
    EXCLUDE: tl.constexpr, HINGED: tl.constexpr, SQUARED: tl.constexpr, SPREAD: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0)
    real = statistics.dtype.element_ty
    classes *= ALIGN
    y = _class_of(target, i, classes)
    counts = tl.load(counted + i) != 0
    blank = counts == 0
    if target is not None:
        blank |= (y < 0) & (tl.load(target + i) != ABSENT)
    if blank:
        for j in range(STATISTICS):
            tl.store(_at(statistics, num_rows, j, i), tl.where(counts, float("nan"), 0.0).to(real))
        return
    z += _offset(i, z_inner, z_outer, z_step, ALIGN)
    if soft is not None:
        soft += _offset(i, soft_inner, soft_outer, soft_step, ALIGN)
    if prior is not None:
        prior += _offset(i if PER_ROW else tl.maximum(y, 0), prior_inner, prior_outer, prior_step, ALIGN)

    top = tl.full((), float("-inf"), real)
    nothing = tl.zeros((BLOCK,), real)
    total, valid, mass, dot = nothing, nothing, nothing, nothing
    soft_mass, soft_dot, model = nothing, nothing, nothing
    ahead = _logits(z, tl.arange(0, BLOCK), classes)
    for start in range(0, classes, BLOCK):
        k = start + tl.arange(0, BLOCK)
        x = ahead.to(real)
        # Prefetch: the next block is loaded while this one is summed.
        ahead = _logits(z, k + BLOCK, classes)
        before = top
        top = tl.maximum(top, tl.max(x, 0))
        # While all classes are masked there is no maximum to subtract, and no sum to correct.
        base = tl.where(top == float("-inf"), 0.0, top)
        rise = tl.where(before == float("-inf"), 0.0, base - before)
        x -= base
        decay = tl.exp(before - base)
        exp = tl.exp(x)
        if SPREAD:
            model = model * decay - rise * decay * total + _times(exp, x)
        total = total * decay + exp
        share = _prior_of(prior, x, k, y, classes, EXCLUDE)
        if weight is not None:
            valid += share
            share *= _load(weight, k, classes)
        # No term and no correction is above 0, so nothing cancels.
        dot += _times(share, x) - rise * mass
        mass += share
        if soft is not None:
            share = _load(soft, k, classes)
            if weight is not None:
                share *= _load(weight, k, classes)
            soft_dot += _times(share, x) - rise * soft_mass
            soft_mass += share

    if soft is not None:
        target_mass = tl.sum(soft_mass, 0)
        target_z = tl.sum(soft_dot, 0)
    else:
        target_mass = tl.where(y < 0, 0.0, 1.0).to(real)
        if weight is not None:
            target_mass = tl.load(weight + y, mask=y >= 0, other=0.0)
        target_z = _times(target_mass, tl.load(z + y, mask=y >= 0, other=0.0).to(real) - top)
    prior_mass = tl.sum(mass, 0)
    prior_z = tl.sum(dot, 0)
    valid_mass = prior_mass if weight is None else tl.sum(valid, 0)
    valid_mass = tl.where(valid_mass < LEAST, 0.0, valid_mass)  # too small to divide by
    empty = valid_mass == 0
    divisor = tl.where(empty, 1.0, valid_mass)
    prior_mass = tl.where(empty, target_mass, _ratio(prior_mass, divisor))
    prior_z = tl.where(empty, target_z, prior_z / divisor)
    if prior is None:
        valid_mass /= classes
    # The largest logit adds 1 to the total. It is 0 if all classes are masked, and NaN if any logit is NaN.
    partition = tl.sum(total, 0)
    proper = partition > 0
    lse = tl.log(tl.where(proper, partition, float("nan")))
    hinge = tl.zeros((), real)
    slope = tl.zeros((), real)
    model_z = tl.zeros((), real)
    if HINGED:
        over, steep = nothing, nothing
        for start in range(0, classes, BLOCK):
            k = start + tl.arange(0, BLOCK)
            x = _logits(z, k, classes).to(real) - top
            share = _prior_of(prior, x, k, y, classes, EXCLUDE)
            if weight is not None:
                share *= _load(weight, k, classes)
            beyond = _beyond(x, margin)
            over += share * (beyond * beyond if SQUARED else beyond)
            steep += share * _slope(beyond, SQUARED)
        hinge = tl.where(proper, tl.sum(over, 0) / divisor, float("nan"))
        slope = tl.sum(steep, 0) / divisor
    if SPREAD:
        model_z = tl.sum(model, 0) / partition
    tl.store(_at(statistics, num_rows, LSE, i), lse)
    tl.store(_at(statistics, num_rows, TARGET_Z, i), tl.where(proper, target_z, float("nan")))
    tl.store(_at(statistics, num_rows, PRIOR_Z, i), tl.where(proper, prior_z, float("nan")))
    tl.store(_at(statistics, num_rows, HINGE, i), hinge)
    tl.store(_at(statistics, num_rows, MODEL_Z, i), model_z)
    tl.store(_at(statistics, num_rows, TARGET_MASS, i), target_mass)
    tl.store(_at(statistics, num_rows, PRIOR_MASS, i), prior_mass)
    tl.store(_at(statistics, num_rows, VALID_MASS, i), valid_mass)
    tl.store(_at(statistics, num_rows, Z_MAX, i), tl.where(proper, top, float("nan")))
    tl.store(_at(statistics, num_rows, SLOPE, i), slope)


@jit
def _backward_kernel(
    out, z, target, soft, counted, prior, weight, num_rows, z_inner, soft_inner, prior_inner, out_inner,
    classes, z_outer, z_step, soft_outer, soft_step, prior_outer, prior_step, out_outer, out_step,
    statistics, grad,
    margin: tl.float64,  # pyright: ignore[reportInvalidTypeForm]
    PER_ROW: tl.constexpr, EXCLUDE: tl.constexpr, HINGED: tl.constexpr,
    SQUARED: tl.constexpr, SPREAD: tl.constexpr, ALIGN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0)
    classes *= ALIGN
    out += _offset(i, out_inner, out_outer, out_step, ALIGN)
    if tl.load(counted + i) == 0:
        for start in range(0, classes, BLOCK):
            k = start + tl.arange(0, BLOCK)
            tl.store(out + k, tl.zeros((BLOCK,), out.dtype.element_ty), mask=k < classes)
        return
    y = _class_of(target, i, classes)
    z += _offset(i, z_inner, z_outer, z_step, ALIGN)
    if soft is not None:
        soft += _offset(i, soft_inner, soft_outer, soft_step, ALIGN)
    if prior is not None:
        prior += _offset(i if PER_ROW else tl.maximum(y, 0), prior_inner, prior_outer, prior_step, ALIGN)

    by_lse = tl.load(_at(grad, num_rows, LSE, i))
    by_target = tl.load(_at(grad, num_rows, TARGET_Z, i))
    by_prior = tl.load(_at(grad, num_rows, PRIOR_Z, i))
    lse = tl.load(_at(statistics, num_rows, LSE, i))
    target_mass = tl.load(_at(statistics, num_rows, TARGET_MASS, i))
    valid_mass = tl.load(_at(statistics, num_rows, VALID_MASS, i))
    top = tl.load(_at(statistics, num_rows, Z_MAX, i))
    if prior is None:
        valid_mass = tl.floor(valid_mass * classes + 0.5)  # the number of valid classes, an integer again
    empty = valid_mass == 0
    divisor = tl.where(empty, 1.0, valid_mass)
    by_target += tl.where(empty, by_prior, 0.0)
    by_prior = tl.where(empty, 0.0, by_prior)
    by_hinge, by_top, by_model, first = 0.0, 0.0, 0.0, classes
    if HINGED:
        by_hinge = tl.load(_at(grad, num_rows, HINGE, i))
        by_top = by_hinge * tl.load(_at(statistics, num_rows, SLOPE, i))
    if SPREAD:
        by_model = tl.load(_at(grad, num_rows, MODEL_Z, i))
        by_lse += by_model * (1 - tl.load(_at(statistics, num_rows, MODEL_Z, i)))
    for start in range(0, classes, BLOCK):
        k = start + tl.arange(0, BLOCK)
        logit = _logits(z, k, classes).to(top.dtype)
        x = logit - top
        by_share = by_prior
        if HINGED:
            by_share = by_prior - by_hinge * _slope(_beyond(x, margin), SQUARED)
        # Each term is rounded as in by_lse.
        share = _ratio(_prior_of(prior, x, k, y, classes, EXCLUDE), divisor)
        if weight is not None:
            share *= _load(weight, k, classes)
        measure = by_share * share
        if soft is not None:
            share = _load(soft, k, classes)
            if weight is not None:
                share *= _load(weight, k, classes)
            measure += by_target * share
        else:
            measure += tl.where(k == y, by_target * target_mass, 0.0)
        if HINGED:
            # Only the first of the largest logits has this term.
            found = tl.min(tl.where(logit == top, k, classes), 0)
            measure += tl.where((k == found) & (first == classes), by_top, 0.0)
            first = tl.minimum(first, found)
        share = tl.exp(x - lse)
        gradient = by_lse * share + measure
        if SPREAD:
            gradient += by_model * _times(share, x)
        tl.store(out + k, gradient.to(out.dtype.element_ty), mask=k < classes)


@jit
def _class_of(target, i, classes):
    """The class of row i, or -1 if it is none of them; int32, as every class is compared with it."""
    if target is None:
        y = tl.full((), -1, tl.int32)
    else:
        y = tl.load(target + i)
        y = tl.where((y >= 0) & (y < classes), y, -1).to(tl.int32)
    return y


@jit
def _offset(i, inner, outer, step, ALIGN: tl.constexpr):
    return ((i // inner).to(tl.int64) * outer + (i % inner).to(tl.int64) * step) * ALIGN


@jit
def _logits(z, k, classes):
    return tl.load(z + k, mask=k < classes, other=float("-inf"))


@jit
def _load(row, k, classes):
    return tl.load(row + k, mask=k < classes, other=0.0)


@jit
def _prior_of(prior, x, k, y, classes, EXCLUDE: tl.constexpr):
    """The prior at its allowed classes, 0 elsewhere; the uniform prior is 1, not renormalised."""
    allowed = x > float("-inf")
    if EXCLUDE:
        allowed &= k != y
    if prior is None:
        share = tl.where(allowed, 1.0, 0.0).to(x.dtype)
    else:
        share = tl.where(allowed, _load(prior, k, classes), 0.0)
    return share


@jit
def _ratio(a, b):
    """``a / b``, exactly 1 where they are equal, which Triton's own float32 division does not guarantee."""
    return tl.div_rn(a, b) if a.dtype == tl.float32 else a / b


@jit
def _times(a, x):
    """``a * x``, but 0 where a is 0."""
    return a * tl.where(a == 0, 0.0, x)


@jit
def _beyond(x, margin):
    """The distance -x of a logit from the largest, minus the margin, at least 0; 0 if masked or NaN."""
    return tl.maximum(tl.where(x > float("-inf"), -x, 0.0) - tl.full((), margin, x.dtype), 0.0)


@jit
def _slope(beyond, SQUARED: tl.constexpr):
    """The derivative of the hinge with respect to the distance."""
    return 2 * beyond if SQUARED else tl.where(beyond > 0, 1.0, 0.0).to(beyond.dtype)


@jit
def _at(table, num_rows, j, i):
    return table + (tl.full((), j, tl.int64) * num_rows + i)
