"""The plain loss on a CPU: class indices, the uniform prior and one strength, in one call of the kernel.

In eager mode the gradient is computed with the loss. For torch.compile both are operators.
"""

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labelsmooth._core.modes import transformed
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import Gradient, Measures
from labelsmooth._engines import ahead, kept, reference
from labelsmooth._engines.dense import ABSENCE, kernel, laid_out, memory_of, place
from labelsmooth._engines.layout import laid_like
from labelsmooth._engines.native import Problem, Saved
from labelsmooth._engines.operator import DTYPES, LIBRARY


def eager(
    z: Tensor,
    target: Tensor,
    eps: float,
    ignore_index: int,
    divisor: float | None,
    divergence: bool = False,
) -> tuple[Tensor, float] | None:
    """The plain loss, and its value without smoothing.

    The loss is the sum over the rows that are not ignored, by ``divisor``, or their mean if that is None. The
    result is None if a target is out of range, or if the entropy that a divergence subtracts differs between
    rows.
    """
    rows, problem, _keep = _problem(z, target)
    habit = factor = by_z = None
    if torch.is_grad_enabled() and z.requires_grad:
        habit = ahead.habit((problem.classes, divisor is None))
        factor = habit.expected() if problem.rows else None
        by_z = None if factor is None else place(rows, problem)
    saved = _new_saved(z, problem)
    sums = _forward(problem, saved, eps, ignore_index, factor or 0.0, divisor or 0.0, by_z)
    if sums is None:
        return None
    total, hard, count = sums
    if divergence:
        valid = Saved(*saved).valid
        if count < target.numel() or (count and valid.min() < z.size(-1)):  # ignored rows, masked classes
            return None
        total -= count * _entropy(eps, z.size(-1))
    by = (count or torch.nan) if divisor is None else divisor
    if habit is None:
        loss = torch.scalar_tensor(total / by, dtype=saved.dtype, device="cpu")
    else:
        call = _Call(eps, ignore_index, by, habit, factor)
        loss = _Uniform.apply(z, (target, saved, by_z), total / by, call)
    return loss, hard / by


SAVED = len(Saved._fields)


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
    """The node of the loss in the autograd graph."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, others: tuple[Tensor, Tensor, Tensor | None], loss: float, call: _Call
    ) -> Tensor:
        target, ctx.saved, ctx.by_z = others
        ctx.save_for_backward(z, target)
        ctx.call = call
        # A new tensor: autograd makes a view of an input that is returned, which cannot be changed in place.
        return torch.scalar_tensor(loss, dtype=ctx.saved.dtype, device="cpu")

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        z, target = ctx.saved_tensors
        call: _Call = ctx.call
        (grad,) = grads
        if torch.is_grad_enabled() or transformed(grad):
            by_z = _differentiable(grad / call.divisor, z, target, call.eps, call.ignore_index)
            return by_z, None, None, None
        factor, by_z, ctx.by_z = float(grad), ctx.by_z, None  # which is its caller's once it is returned
        call.habit.came(factor)
        if by_z is not None:
            kept.prefer(by_z)
        if by_z is None or factor != call.factor:
            by_z = _backward(factor / call.divisor, z, target, ctx.saved, call.eps, call.ignore_index, by_z)
        return by_z, None, None, None


def _differentiable(
    grad: Tensor, z: Tensor, target: Tensor, eps: float | Tensor, ignore_index: int
) -> Tensor:
    """The gradient of the sum times ``grad``, in operations of torch."""
    counted = target != ignore_index
    by_row = torch.where(counted, grad, 0.0)
    nothing = torch.zeros_like(by_row)
    hard, spread = by_row * (eps - 1), by_row * -eps
    by = Gradient(lse=by_row, target_z=hard, prior_z=spread, hinge=nothing, model_z=nothing)
    return reference.gradient(torch.stack(by), z, Measures(target.masked_fill(~counted, 0), counted))


def _problem(z: Tensor, target: Tensor) -> tuple[Tensor, Problem, Tensor]:
    """The logits in a layout that the kernel reads, its arguments, and the target that these point to."""
    z, layout = memory_of(z, plain=True)
    classes, target = z.size(-1), target.contiguous().resolve_neg()
    problem = Problem(
        z.data_ptr(), DTYPES.index(z.dtype), target.numel(), *layout, classes, target.data_ptr(), 1, *NOTHING
    )
    problem.threads = torch.get_num_threads()
    return z, problem, target


# No shares, class probabilities, ignored rows, prior, weights, excluded class or bend: a plain problem.
NOTHING = (None, None, None, None, 0, 0, None, 0, math.nan, 0, 0, 1)


def _new_saved(z: Tensor, problem: Problem) -> Tensor:
    return z.new_empty((SAVED, problem.rows), dtype=compute_dtype(z))


def _forward(
    problem: Problem,
    saved: Tensor,
    eps: float,
    ignore_index: int,
    factor: float = 0.0,
    divisor: float = 0.0,
    by_z: Tensor | None = None,
) -> tuple[float, float, float] | None:
    """The sums of the losses and of those without smoothing, and the number of rows that are not ignored.

    None if a target is out of range.
    """
    sums = (ctypes.c_double * 3)()
    given = (factor, divisor, None if by_z is None else by_z.data_ptr())
    if kernel().labelsmooth_uniform_forward(problem, ignore_index, eps, saved.data_ptr(), sums, *given):
        return None
    total, hard, count = sums
    return total, hard, count


def _backward(
    factor: float,
    z: Tensor,
    target: Tensor,
    saved: Tensor,
    eps: float,
    ignore_index: int,
    by_z: Tensor | None = None,
) -> Tensor:
    rows, problem, _keep = _problem(z, target)
    by_z = place(rows, problem) if by_z is None else by_z
    kernel().labelsmooth_uniform_backward(
        problem, ignore_index, eps, factor, saved.data_ptr(), by_z.data_ptr()
    )
    return by_z


class Found(NamedTuple):
    """What the operator returns."""

    loss: Tensor
    nll: Tensor
    saved: Tensor
    divisor: Tensor


ARGUMENTS = "Tensor eps, int ignore_index"  # a float would be compiled in, and each step of a schedule again
LIBRARY.define(
    f"uniform(Tensor z, Tensor target, {ARGUMENTS}, float? divisor) -> (Tensor, Tensor, Tensor, Tensor)"
)
LIBRARY.define(f"uniform_backward(Tensor grad, Tensor z, Tensor target, Tensor saved, {ARGUMENTS}) -> Tensor")


def _uniform_operator(
    z: Tensor, target: Tensor, eps: Tensor, ignore_index: int, divisor: float | None
) -> Found:
    _check(z, target)
    _, problem, _keep = _problem(z, target)
    saved = _new_saved(z, problem)
    sums = _forward(problem, saved, float(eps), ignore_index)
    if sums is None:
        wrong = (target != ignore_index) & ((target < 0) | (target >= z.size(-1)))
        got = int(target[wrong][0])
        raise ValueError(f"target must hold class indices in [0, {z.size(-1)}), got {got}")
    total, hard, count = sums
    by = (count or torch.nan) if divisor is None else divisor
    loss, nll, by = torch.tensor([total / by, hard / by, by], dtype=saved.dtype).unbind()
    return Found(loss.clone(), nll.clone(), saved, by.clone())


def _uniform_backward_operator(
    grad: Tensor, z: Tensor, target: Tensor, saved: Tensor, eps: Tensor, ignore_index: int
) -> Tensor:
    _check(z, target)
    return laid_out(_backward(float(grad), z, target, saved, float(eps), ignore_index), z)


def _check(z: Tensor, target: Tensor) -> None:
    """Check a call again, as an operator can be called from outside of this package."""
    if ABSENCE is not None:
        raise ValueError(f"the dense engine cannot serve: {ABSENCE}")
    if z.dtype not in DTYPES or target.dtype != torch.int64 or target.shape != z.shape[:-1]:
        got = f"{z.dtype} {tuple(z.shape)} and {target.dtype} {tuple(target.shape)}"
        raise ValueError(f"z and target must hold logits (..., K) and int64 class indices (...), got {got}")


LIBRARY.impl("uniform", _uniform_operator, "CPU")
LIBRARY.impl("uniform_backward", _uniform_backward_operator, "CPU")


@torch.library.register_fake("labelsmooth::uniform", lib=LIBRARY)
def _(z: Tensor, target: Tensor, eps: Tensor, ignore_index: int, divisor: float | None) -> Found:
    saved = z.new_empty((SAVED, target.numel()), dtype=compute_dtype(z))
    loss, nll, by = (saved.new_empty(()) for _ in range(3))
    return Found(loss, nll, saved, by)


@torch.library.register_fake("labelsmooth::uniform_backward", lib=LIBRARY)
def _(grad: Tensor, z: Tensor, *_: Any) -> Tensor:
    return laid_like(z)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    z, target, eps, ctx.ignore_index, _ = inputs
    _, nll, saved, divisor = output
    ctx.save_for_backward(z, target, eps, saved, divisor)
    ctx.mark_non_differentiable(nll, saved, divisor)


def _differentiate(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    z, target, eps, saved, divisor = ctx.saved_tensors
    grad = grad / divisor
    if torch.is_grad_enabled() or transformed(grad):
        by_z = _differentiable(grad, z, target, eps, ctx.ignore_index)
    else:
        by_z = torch.ops.labelsmooth.uniform_backward(grad, z, target, saved, eps, ctx.ignore_index)
    return by_z, None, None, None, None


torch.library.register_autograd("labelsmooth::uniform", _differentiate, setup_context=_setup, lib=LIBRARY)


def compiled(
    z: Tensor, target: Tensor, eps: float, ignore_index: int, divisor: float | None
) -> tuple[Tensor, Tensor]:
    """:func:`eager` for torch.compile: the loss, and its value without smoothing and without a gradient."""
    # A float that meets no tensor's arithmetic would be compiled in.
    strength = torch.zeros((), dtype=torch.float64) + eps
    found = Found(*torch.ops.labelsmooth.uniform(z, target, strength, ignore_index, divisor))
    return found.loss, found.nll
