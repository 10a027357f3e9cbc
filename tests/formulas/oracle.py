"""Every formula as its paper has it, in float64, one row and one class at a time, with its gradient."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from labelsmooth.formulas import (
    BackwardCorrection,
    ConfidencePenalty,
    Focal,
    Formula,
    ForwardCorrection,
    LabelRelaxation,
    LabelSmoothing,
    MarginSmoothing,
    MaxSup,
    NegativeSmoothing,
)
from tests.oracle import Answer, cross_entropy_row, entropy, log_softmax, spread

Value = tuple[float, list[float]]  # a function of the logits, and its gradient


class Row(NamedTuple):
    z: list[float]
    t: list[float]  # the target
    pi: list[float]  # the prior
    w: list[float]  # the class weights
    share: list[
        float
    ]  # the prior, but for what returns to the target because nothing else is left to have it


def product(a: list[float], b: list[float]) -> list[float]:
    return [a_k * b_k for a_k, b_k in zip(a, b, strict=True)]


def plus(a: Value, factor: float, b: Value) -> Value:
    if factor == 0:
        return a
    return a[0] + factor * b[0], [x + factor * y for x, y in zip(a[1], b[1], strict=True)]


def nll(row: Row) -> Value:
    return cross_entropy_row(row.z, product(row.t, row.w))


def to_prior(row: Row) -> Value:
    return cross_entropy_row(row.z, product(row.pi, row.w))


def smoothed(row: Row, eps: float) -> Value:
    a = [((1 - eps) * t + eps * pi) * w for t, pi, w in zip(row.t, row.pi, row.w, strict=True)]
    return cross_entropy_row(row.z, a)


def negative(row: Row, eps: float, clip: float) -> Value:
    above = plus(to_prior(row), -1, nll(row))
    if eps < 0 and above[0] > clip:
        above = clip, [0.0] * len(row.z)
    return plus(nll(row), eps, above)


def margin(row: Row, eps: float, m: float, squared: bool) -> Value:
    """The first of the largest logits is the one that is pulled down."""
    top = row.z.index(max(row.z))
    value, grad = 0.0, [0.0] * len(row.z)
    for k, z in enumerate(row.z):
        beyond = row.z[top] - z - m
        if row.share[k] == 0 or beyond <= 0:
            continue
        slope = row.share[k] * row.w[k] * (2 * beyond if squared else 1)
        value += row.share[k] * row.w[k] * (beyond**2 if squared else beyond)
        grad[top] += slope
        grad[k] -= slope
    return plus(nll(row), eps, (value, grad))


def confidence(row: Row, eps: float, threshold: float | None) -> Value:
    log_q = log_softmax(row.z)
    q = [math.exp(x) for x in log_q]
    H = entropy(q)
    by_z = [-q_k * (x + H) if q_k else 0.0 for q_k, x in zip(q, log_q, strict=True)]
    if threshold is not None and threshold <= H:
        return nll(row)
    return plus(nll(row), -eps, (H - (threshold or 0.0), by_z))


class Likelihood(NamedTuple):
    log: Value  # log q_y
    wrong: float  # 1 - q_y
    mass: float


def likelihood(row: Row) -> Likelihood:
    """For class probabilities t, <t, log q> by their mass in place of log q_y."""
    log_q = log_softmax(row.z)
    a = row.t if row.t.count(0.0) == len(row.t) - 1 else product(row.t, row.w)
    mass = math.fsum(a)
    log = math.fsum(a_k * x for a_k, x in zip(a, log_q, strict=True) if a_k) / mass
    by_z = [a_k / mass - math.exp(x) for a_k, x in zip(a, log_q, strict=True)]
    single = [k for k, a_k in enumerate(a) if a_k]
    others = math.fsum(math.exp(x) for k, x in enumerate(log_q) if k not in single)
    wrong = others if len(single) == 1 else -math.expm1(log)
    return Likelihood((log, by_z), wrong, math.fsum(product(row.t, row.w)))


def chain(value: float, slope: float, inner: list[float]) -> Value:
    return value, [slope * x for x in inner]


def relaxation(row: Row, eps: float) -> Value:
    (log, by_z), wrong, mass = likelihood(row)
    if math.exp(log) >= 1 - eps:
        return 0.0, [0.0] * len(row.z)
    value = (1 - eps) * (math.log(1 - eps) - log)
    if eps:
        value += eps * (math.log(eps) - math.log(wrong))
    slope = -(1 - eps) + eps * math.exp(log) / wrong
    return chain(mass * value, mass * slope, by_z)


def focal(row: Row, eps: float, gamma: float) -> Value:
    (log, by_z), wrong, _ = likelihood(row)
    value, grad = smoothed(row, eps)
    if gamma == 0 or value == 0:
        return value, grad
    outer = gamma * wrong ** (gamma - 1) * math.exp(log) * value
    grad = [wrong**gamma * g - outer * d for g, d in zip(grad, by_z, strict=True)]
    return wrong**gamma * value, grad


def forward(row: Row, eps: float) -> Value:
    (log, by_z), _, mass = likelihood(row)
    q = math.exp(log)
    p = (1 - eps) * q + eps * math.fsum(product(row.t, row.pi))
    if p == 0:
        return math.inf, [math.nan] * len(row.z)
    return chain(-mass * math.log(p), -mass * (1 - eps) * q / p, by_z)


def row_loss(formula: Formula, row: Row, eps: float) -> Value:
    match formula:
        case LabelSmoothing():
            return smoothed(row, eps)
        case NegativeSmoothing(clip):
            return negative(row, eps, clip)
        case MaxSup():
            return margin(row, eps, 0.0, False)
        case MarginSmoothing(m, squared):
            return margin(row, eps, m, squared)
        case ConfidencePenalty(threshold):
            return confidence(row, eps, threshold)
        case LabelRelaxation():
            return relaxation(row, eps)
        case Focal(gamma):
            return focal(row, eps, gamma)
        case ForwardCorrection():
            return forward(row, eps)
        case BackwardCorrection():
            return smoothed(row, -eps / (1 - eps))
    raise AssertionError(formula)


def cross_entropy(
    formula: Formula,
    z: Tensor,
    target: Tensor,
    eps: Callable[[int], float],
    *,
    prior: Tensor | None = None,
    prior_by_row: bool = False,
    others: bool = False,
    weight: Tensor | None = None,
    weighting: Literal["torch", "sample"] = "torch",
    sample_weight: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Answer:
    """Of logits (N, K) and class indices, or class probabilities that sum to 1; ``eps`` is of a row."""
    N, K = z.shape
    soft = target.is_floating_point()
    w = [1.0] * K if weight is None else weight.tolist()
    losses, nlls = [0.0] * N, [0.0] * N
    grads = [[0.0] * K for _ in range(N)]
    total = 0.0
    for i in range(N):
        scale = 1.0 if sample_weight is None else sample_weight[i].item()
        if scale == 0 or (not soft and target[i] == ignore_index):
            continue
        t = target[i].tolist() if soft else [float(k == target[i]) for k in range(K)]
        row_weight = math.fsum(product(t, w))
        inner = w
        if weighting == "sample":
            scale *= row_weight
            total += scale
            inner = [1.0] * K
        else:
            total += scale * (1.0 if soft else row_weight)
        logits = z[i].tolist()
        of_row = prior[i] if prior is not None and prior_by_row else prior
        valid = [x > -math.inf for x in logits]
        pi, share = [0.0] * K, [0.0] * K
        for k, t_k in enumerate(t):
            if not t_k:
                continue
            own = [1.0] * K if of_row is None else (of_row[k] if of_row.dim() == 2 else of_row).tolist()
            left = any(own[c] and valid[c] and not (others and c == k) for c in range(K))
            for c, mass in enumerate(spread(k, of_row, others, valid)):
                pi[c] += t_k * mass
                share[c] += t_k * mass if left else 0.0
        row = Row(logits, t, pi, inner, share)
        value, grad = row_loss(formula, row, eps(i))
        losses[i], nlls[i] = scale * value, scale * nll(row)[0]
        grads[i] = [scale * g for g in grad]
    loss, hard, grad = (torch.tensor(x, dtype=torch.float64) for x in (losses, nlls, grads))
    if reduction == "none":
        return Answer(loss, hard, grad)
    by = total if reduction == "mean" else 1.0
    return Answer(loss.sum() / by, hard.sum() / by, grad / by)


# One in each branch of each formula, with a strength in its range.
CASES: dict[str, tuple[Formula, float]] = {
    "smoothing": (LabelSmoothing(), 0.1),
    "negative": (NegativeSmoothing(clip=math.inf), -0.4),
    "negative-clipped": (NegativeSmoothing(clip=1.5), -0.4),
    "negative-positive": (NegativeSmoothing(clip=1.5), 0.3),
    "maxsup": (MaxSup(), 0.2),
    "margin": (MarginSmoothing(margin=2), 0.2),
    "margin-squared": (MarginSmoothing(margin=2.0, squared=True), 1.5),
    "confidence": (ConfidencePenalty(), 0.1),
    "confidence-threshold": (ConfidencePenalty(threshold=0.9), 1.5),
    "relaxation": (LabelRelaxation(), 0.4),
    "focal": (Focal(), 0.0),
    "focal-smoothed": (Focal(gamma=0.5), 0.1),
    "forward": (ForwardCorrection(), 0.3),
    "backward": (BackwardCorrection(), 0.3),
}


def distribution(x: Tensor) -> Tensor:
    """Positive numbers, every third of them 0, that sum to 1."""
    x = x.abs()
    x[..., 1::3] = 0.0
    return x / x.sum(-1, keepdim=True)
