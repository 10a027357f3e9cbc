"""The float64 result that every entrant is checked against before it is timed."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

# Relative error in the Euclidean norm. In bfloat16 the logits of a linear head are rounded, too.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
ROWS = 256  # at a time
MARGIN = 1.0  # far below the range of the logits, so that some classes are within it and some are not

Exact = Callable[[Tensor, Tensor, float], Tensor]
"""The loss of each row, from logits, class indices and eps. Autograd finds the gradient."""


def _nll(z: Tensor, target: Tensor) -> Tensor:
    return z.logsumexp(-1) - z.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def smoothed(z: Tensor, target: Tensor, eps: float) -> Tensor:
    return (1 - eps) * _nll(z, target) + eps * (z.logsumexp(-1) - z.mean(-1))


def max_suppressed(z: Tensor, target: Tensor, eps: float) -> Tensor:
    return _nll(z, target) + eps * (z.amax(-1) - z.mean(-1))


def within_a_margin(z: Tensor, target: Tensor, eps: float) -> Tensor:
    return _nll(z, target) + eps * (z.amax(-1, keepdim=True) - z - MARGIN).clamp(min=0).mean(-1)


def confidence_penalized(z: Tensor, target: Tensor, eps: float) -> Tensor:
    log_q = z.log_softmax(-1)
    return _nll(z, target) + eps * (log_q.exp() * log_q).sum(-1)


def answer(
    leaves: tuple[Tensor, ...], target: Tensor, eps: float, exact: Exact = smoothed
) -> tuple[float, tuple[Tensor, ...]]:
    """The mean loss and its gradients."""
    if target.dim() > 1:  # segmentation maps
        rows = leaves[0].movedim(1, -1).flatten(0, -2)
        loss, (gradient,) = answer((rows,), target.flatten(), eps, exact)
        return loss, (gradient.unflatten(0, target.shape).movedim(-1, 1),)
    values = [leaf.detach().double() for leaf in leaves]
    gradients = tuple(torch.zeros_like(value) for value in values)
    num_rows, total = len(target), 0.0
    for start in range(0, num_rows, ROWS):
        part = slice(start, start + ROWS)
        used = [values[0][part].requires_grad_(), *(weight.requires_grad_() for weight in values[1:])]
        z = used[0] if len(used) == 1 else used[0] @ used[1].T
        loss = exact(z, target[part], eps).sum() / num_rows
        total += float(loss.detach())
        by_rows, *by_weight = torch.autograd.grad(loss, used)
        gradients[0][part] = by_rows
        if by_weight:
            gradients[1].add_(by_weight[0])
    return total, gradients


def entropy(eps: float, num_classes: int) -> float:
    """The entropy of the smoothed target."""
    off = eps / num_classes
    on = 1 - eps + off
    return -sum(n * p * math.log(p) for n, p in ((1, on), (num_classes - 1, off)) if p > 0)


def disagreement(
    loss: Tensor, gradients: tuple[Tensor, ...], expected: float, exact: tuple[Tensor, ...]
) -> str | None:
    """A description of the error of a result; None if it is correct."""
    tolerance = TOLERANCE[gradients[0].dtype]
    error = abs(float(loss.detach()) - expected) / abs(expected)
    if not error <= tolerance:
        return f"wrong loss: {float(loss.detach()):.6g} instead of {expected:.6g}"
    for gradient, wanted in zip(gradients, exact, strict=True):
        error = float(torch.dist(gradient.double(), wanted) / wanted.norm())
        if not error <= tolerance:
            return f"wrong gradient: off by {error:.1e} of its norm"
    return None
