"""The textbook formula in float64, one row and one class at a time: what the library is tested against."""

import math
from itertools import product
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from labelsmooth.schedules import ByClass


class Answer(NamedTuple):
    """All in float64."""

    loss: Tensor
    nll: Tensor
    grad: Tensor  # of the loss, or of the sum of the losses, by the input


def spread(k: int, prior: Tensor | None, others: bool, valid: list[bool]) -> list[float]:
    """The distribution that the smoothing of class ``k`` goes to."""
    K = len(valid)
    pi = [1 / K] * K if prior is None else (prior[k] if prior.dim() == 2 else prior).tolist()
    left = [pi[c] if valid[c] and not (others and c == k) else 0.0 for c in range(K)]
    total = math.fsum(left)
    if total == 0:
        return [float(c == k) for c in range(K)]
    return [mass / total for mass in left]


def smooth(t: list[float], eps: float, prior: Tensor | None, others: bool, valid: list[bool]) -> list[float]:
    """(1 - eps) t + eps sum_k t_k spread(k), for class probabilities ``t``."""
    p = [(1 - eps) * t_k for t_k in t]
    for k, t_k in enumerate(t):
        for c, mass in enumerate(spread(k, prior, others, valid) if t_k else []):
            p[c] += eps * t_k * mass
    return p


def log_softmax(z: list[float]) -> list[float]:
    top = max(z)
    log_sum = math.log(math.fsum(math.exp(z_k - top) for z_k in z))
    return [z_c - top - log_sum for z_c in z]


def cross_entropy_row(z: list[float], a: list[float]) -> tuple[float, list[float]]:
    """-sum_c a_c log q_c, where 0 log 0 is 0, and its gradient (sum a) q - a."""
    log_q = log_softmax(z)
    loss = math.fsum(-a_c * l_c for a_c, l_c in zip(a, log_q, strict=True) if a_c)
    mass = math.fsum(a)
    return loss, [mass * math.exp(l_c) - a_c for a_c, l_c in zip(a, log_q, strict=True)]


def entropy(p: list[float]) -> float:
    return -math.fsum(p_c * math.log(p_c) for p_c in p if p_c)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Literal["none", "mean", "sum"] = "mean",
    label_smoothing: float | Tensor | ByClass = 0.0,
    prior: Tensor | None = None,
    off_target: Literal["all", "others"] = "all",
    weighting: Literal["torch", "sample"] = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
) -> Answer:
    """Class probabilities have to sum to 1."""
    class_dim = min(1, input.dim() - 1)
    z = input.detach().movedim(class_dim, -1)
    soft = target.shape == input.shape
    t = target.movedim(class_dim, -1) if soft else target
    shape, K = z.shape[:-1], z.size(-1)
    scales = torch.ones(shape) if sample_weight is None else sample_weight.expand(shape)
    w = [1.0] * K if weight is None else weight.tolist()

    loss, nll = torch.zeros(2, *shape, dtype=torch.float64)
    grad = torch.zeros(*shape, K, dtype=torch.float64)
    total = 0.0
    rows = 0
    for i in product(*map(range, shape)):
        scale = scales[i].item()
        if scale == 0 or (not soft and t[i] == ignore_index):
            continue
        rows += 1
        row = t[i].tolist() if soft else [float(k == t[i]) for k in range(K)]
        if isinstance(label_smoothing, ByClass):
            eps = label_smoothing.eps[t[i]].item()
        else:
            eps = torch.as_tensor(label_smoothing, dtype=torch.float64).expand(shape)[i].item()
        logits = z[i].tolist()
        p = smooth(row, eps, prior, off_target == "others", [z_c > -math.inf for z_c in logits])
        row_weight = sum(t_c * w_c for t_c, w_c in zip(row, w, strict=True))
        if weighting == "sample":
            scale *= row_weight
            total += scale
        else:
            total += scale if soft else scale * row_weight
            p, row = ([a_c * w_c for a_c, w_c in zip(a, w, strict=True)] for a in (p, row))
        row_loss, row_grad = cross_entropy_row(logits, p)
        loss[i] = scale * row_loss if scale else 0.0
        nll[i] = scale * cross_entropy_row(logits, row)[0] if scale else 0.0
        grad[i] = torch.tensor([scale * g for g in row_grad], dtype=torch.float64)

    grad = grad.movedim(-1, class_dim)
    if reduction == "none":
        return Answer(loss, nll, grad)
    if reduction == "sum":
        return Answer(loss.sum(), nll.sum(), grad)
    if denominator is not None:
        total = float(denominator) if rows else 1.0
    return Answer(loss.sum() / total, nll.sum() / total, grad / total)
