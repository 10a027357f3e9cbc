"""Row statistics and their gradient in Triton, one program per row: the dense engine on a GPU.

reference.py is the specification. The forward pass reads a row once, in blocks under a running maximum, and
writes seven numbers; the backward pass reads it once more and writes the gradient. Nothing is as wide as
the logits but the gradient. Both are free of synchronisation and of shapes that depend on data, so that a
CUDA graph can hold them.
"""

# ruff: noqa: N803 - constants of a kernel are in capitals, as Triton has them

from __future__ import annotations  # annotations name triton, which need not be there

from functools import cache
from math import gcd
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from labelsmooth.checks import compute_dtype
from labelsmooth.engines.layout import in_rows
from labelsmooth.engines.statistics import ABSENT, Measures, RowStatistics

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

# 8 logits a thread: whole vector loads, and sums in so few registers that programs hide each other's waiting.
BLOCK, BLOCK_PER_WARP = 2048, 256


@cache
def absence() -> str | None:
    """Why this engine cannot serve here, or None if it can."""
    if triton is None:
        return "triton is not installed"
    if isinstance(_forward_kernel, triton.JITFunction) and not torch.cuda.is_available():
        return "there is no CUDA device, and TRITON_INTERPRET=1 was not set before triton was imported"
    return None


def serves(measures: Measures) -> bool:
    """Class probabilities over priors per class would need a matrix product in every row."""
    return not measures.mixed


def forward(z: Tensor, measures: Measures) -> Tensor:
    """The row statistics of ``z``, ``(7, ...)`` in the order of :class:`RowStatistics`."""
    rows = z.shape[:-1]
    statistics = z.new_empty((len(RowStatistics._fields), *rows), dtype=compute_dtype(z))
    _launch(_forward_kernel, z, measures, None, statistics=statistics, ABSENT=ABSENT)
    return statistics


def backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    """The gradient by ``z``, given that by lse, target_z and prior_z; ``out`` may be ``z`` itself."""
    if out is None:
        out = torch.empty_like(z, memory_format=torch.contiguous_format)
    place = in_rows(out)[0]
    tables = {"statistics": statistics.contiguous(), "grad": grad.contiguous()}
    _launch(_backward_kernel, z, measures, place, **tables)
    return out if place is out else out.copy_(place)


def _block(classes: int) -> tuple[int, int]:
    """How many logits a program holds at a time, and in how many warps."""
    block = min(1 << (classes - 1).bit_length(), BLOCK)
    return block, max(1, block // BLOCK_PER_WARP)


def _launch(kernel: Any, z: Tensor, measures: Measures, out: Tensor | None, **more: object) -> None:
    """Runs the kernel on every row; ``out`` has the shape of ``z``."""
    if reason := absence():
        raise RuntimeError(f"the triton engine cannot serve: {reason}")
    if not serves(measures):
        raise NotImplementedError("the triton engine takes no prior per class with class probabilities")
    target, counted, prior, weight, exclude_target = measures
    classes, num_rows = z.size(-1), counted.numel()
    if num_rows == 0:
        return
    z, (z_inner, *z_strides) = in_rows(z)
    soft, (soft_inner, *soft_strides) = in_rows(target) if measures.soft else (None, (1, 0, 0))
    _, (out_inner, *out_strides) = (out, (1, 0, 0)) if out is None else in_rows(out)
    prior_stride = classes if prior is not None and prior.dim() == 2 else 0
    lengths = [classes, prior_stride, *z_strides, *soft_strides, *out_strides]
    align = gcd(16, *lengths)
    block, num_warps = _block(classes)
    with torch.cuda.device_of(z):
        kernel[(num_rows,)](
            out,
            z,
            None if measures.soft else target.contiguous(),
            soft,
            counted.contiguous().view(torch.uint8),
            None if prior is None else prior.contiguous(),
            None if weight is None else weight.contiguous(),
            num_rows,
            z_inner,
            soft_inner,
            out_inner,
            *(length // align for length in lengths),
            EXCLUDE=exclude_target,
            ALIGN=align,
            BLOCK=block,
            num_warps=num_warps,
            **more,
        )


# A tensor that is None costs nothing: Triton compiles what is left. Lengths come in units of ALIGN, since
# from a product with a constant Triton learns what divides them, without which it loads class by class.


@jit
def _forward_kernel(
    out, z, target, soft, counted, prior, weight, num_rows, z_inner, soft_inner, out_inner,
    classes, prior_stride, z_outer, z_step, soft_outer, soft_step, out_outer, out_step,
    statistics, ABSENT: tl.constexpr, EXCLUDE: tl.constexpr, ALIGN: tl.constexpr, BLOCK: tl.constexpr,
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
        x = tl.where(counts, float("nan"), 0.0).to(real)
        _store(statistics, num_rows, i, x, x, x, x, x, x, x)
        return
    z += _offset(i, z_inner, z_outer, z_step, ALIGN)
    if soft is not None:
        soft += _offset(i, soft_inner, soft_outer, soft_step, ALIGN)
    if prior is not None:
        prior += _offset(tl.maximum(y, 0), 1, prior_stride, 0, ALIGN)

    top = tl.full((), float("-inf"), real)
    total = tl.zeros((BLOCK,), real)
    valid = tl.zeros((BLOCK,), real)
    mass = tl.zeros((BLOCK,), real)
    dot = tl.zeros((BLOCK,), real)
    soft_mass = tl.zeros((BLOCK,), real)
    soft_dot = tl.zeros((BLOCK,), real)
    ahead = _logits(z, tl.arange(0, BLOCK), classes)
    for start in range(0, classes, BLOCK):
        k = start + tl.arange(0, BLOCK)
        x = ahead.to(real)
        # Asked for now, the next block arrives while this one is summed.
        ahead = _logits(z, k + BLOCK, classes)
        before = top
        top = tl.maximum(top, tl.max(x, 0))
        # While all classes are masked there is no maximum to measure from, nor anything to correct.
        base = tl.where(top == float("-inf"), 0.0, top)
        rise = tl.where(before == float("-inf"), 0.0, base - before)
        x -= base
        total = total * tl.exp(before - base) + tl.exp(x)
        share = _prior_of(prior, x, k, y, classes, EXCLUDE)
        if weight is not None:
            valid += share
            share *= _load(weight, k, classes)
        # No term is above 0, nor is any correction: nothing cancels.
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
    valid_mass = prior_mass
    if weight is not None:
        valid_mass = tl.sum(valid, 0)
    empty = valid_mass == 0
    divisor = tl.where(empty, 1.0, valid_mass)
    prior_mass = tl.where(empty, target_mass, prior_mass / divisor)
    prior_z = tl.where(empty, target_z, prior_z / divisor)
    if prior is None:
        valid_mass /= classes
    # The largest class alone adds 1 to the total, which is 0 if all are masked and NaN if any is.
    partition = tl.sum(total, 0)
    proper = partition > 0
    lse = tl.log(tl.where(proper, partition, float("nan")))
    target_z = tl.where(proper, target_z, float("nan"))
    prior_z = tl.where(proper, prior_z, float("nan"))
    top = tl.where(proper, top, float("nan"))
    _store(statistics, num_rows, i, lse, target_z, prior_z, target_mass, prior_mass, valid_mass, top)


@jit
def _backward_kernel(
    out, z, target, soft, counted, prior, weight, num_rows, z_inner, soft_inner, out_inner,
    classes, prior_stride, z_outer, z_step, soft_outer, soft_step, out_outer, out_step,
    statistics, grad, EXCLUDE: tl.constexpr, ALIGN: tl.constexpr, BLOCK: tl.constexpr,
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
        prior += _offset(tl.maximum(y, 0), 1, prior_stride, 0, ALIGN)

    row = tl.full((), 1, tl.int64) * num_rows
    by_lse = tl.load(grad + i)
    by_target = tl.load(grad + (row + i))
    by_prior = tl.load(grad + (2 * row + i))
    lse = tl.load(statistics + i)
    target_mass = tl.load(statistics + (3 * row + i))
    valid_mass = tl.load(statistics + (5 * row + i))
    top = tl.load(statistics + (6 * row + i))
    if prior is None:
        valid_mass *= classes
    empty = valid_mass == 0
    by_target += tl.where(empty, by_prior, 0.0)
    by_prior = tl.where(empty, 0.0, by_prior / tl.where(empty, 1.0, valid_mass))
    for start in range(0, classes, BLOCK):
        k = start + tl.arange(0, BLOCK)
        x = _logits(z, k, classes).to(top.dtype)
        measure = by_prior * _prior_of(prior, x, k, y, classes, EXCLUDE)
        if soft is not None:
            measure += by_target * _load(soft, k, classes)
        if weight is not None:
            measure *= _load(weight, k, classes)
        if soft is None:
            measure += tl.where(k == y, by_target * target_mass, 0.0)
        gradient = by_lse * tl.exp((x - top) - lse) + measure
        tl.store(out + k, gradient.to(out.dtype.element_ty), mask=k < classes)


@jit
def _class_of(target, i, classes):
    """The class of row i or, where it is none of these, -1; short, as every class is compared with it."""
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
    """The prior where it is allowed; the uniform one is 1 there."""
    allowed = x > float("-inf")
    if EXCLUDE:
        allowed &= k != y
    if prior is None:
        share = tl.where(allowed, 1.0, 0.0).to(x.dtype)
    else:
        share = tl.where(allowed, _load(prior, k, classes), 0.0)
    return share


@jit
def _times(a, x):
    """``a * x``, and 0 where a is 0 and x infinite."""
    return a * tl.where(a == 0, 0.0, x)


@jit
def _store(table, num_rows, i, a, b, c, d, e, f, g):
    row = tl.full((), 1, tl.int64) * num_rows
    tl.store(table + i, a)
    tl.store(table + (row + i), b)
    tl.store(table + (2 * row + i), c)
    tl.store(table + (3 * row + i), d)
    tl.store(table + (4 * row + i), e)
    tl.store(table + (5 * row + i), f)
    tl.store(table + (6 * row + i), g)
