"""The float64 result that every entrant is checked against before it is timed."""

import math

import torch
from torch import Tensor

# Relative error in the Euclidean norm. In bfloat16 the logits of a linear head are rounded, too.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}
ROWS = 256  # at a time


def answer(leaves: tuple[Tensor, ...], target: Tensor, eps: float) -> tuple[float, tuple[Tensor, ...]]:
    """The mean loss and its gradients: ``H(p, q) = lse(z) - <p, z>`` and ``dH/dz = q - p``."""
    if target.dim() > 1:  # segmentation maps
        loss, (gradient,) = answer((leaves[0].movedim(1, -1).flatten(0, -2),), target.flatten(), eps)
        return loss, (gradient.unflatten(0, target.shape).movedim(-1, 1),)
    values = [leaf.detach().double() for leaf in leaves]
    gradients = tuple(torch.zeros_like(value) for value in values)
    num_rows, total = len(target), 0.0
    for start in range(0, num_rows, ROWS):
        part = slice(start, start + ROWS)
        z = values[0][part] if len(values) == 1 else values[0][part] @ values[1].T
        p = torch.full_like(z, eps / z.size(-1))
        p[torch.arange(len(p)), target[part]] += 1 - eps
        total += float((z.logsumexp(-1) - (p * z).sum(-1)).sum())
        g = (z.softmax(-1) - p) / num_rows
        if len(values) == 1:
            gradients[0][part] = g
        else:
            h, weight = values
            gradients[0][part] = g @ weight
            gradients[1].addmm_(g.T, h[part])
    return total / num_rows, gradients


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
