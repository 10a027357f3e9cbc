"""The textbook: every loss as its paper has it, of whole targets, in plain torch for autograd.

In float64 it is what the library is tested against; in a shorter type it is the naive code, whose error is
the measure of ours. It takes the arguments of ``functional.cross_entropy`` and shares no code with it.
"""

from typing import Any

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
from labelsmooth.priors import PerSample
from labelsmooth.schedules import ByClass, Schedule

PLAIN = LabelSmoothing()


def dot(a: Tensor, x: Tensor) -> Tensor:
    """sum_k a_k x_k, where 0 times infinity is 0."""
    return torch.where(a != 0, a * x, 0.0).sum(-1)


def spread(t: Tensor, prior: Tensor, others: bool, valid: Tensor) -> tuple[Tensor, Tensor]:
    """What the smoothing of each row's classes goes to: of class k, its prior over the classes that may have
    any, or class k itself where that is nothing. And the same without what returns to the label so.

    Rows of ``t`` and ``valid`` are (R, K); the prior is (K,), (R, 1, K), or (K, K) by class.
    """
    whole, share = torch.zeros_like(t), torch.zeros_like(t)
    for k in t.sum(0).nonzero().flatten().tolist():
        label = torch.arange(t.size(1)) == k
        row = (prior[k] if prior.dim() == 2 else prior.squeeze(-2) if prior.dim() == 3 else prior) * valid
        if others:
            row = row * ~label
        total = row.sum(-1, keepdim=True)
        row = torch.where(total > 0, row / total.masked_fill(total == 0, 1.0), 0.0)
        share = share + t[:, k : k + 1] * row
        row = torch.where(total > 0, row, label.to(t.dtype))
        whole = whole + t[:, k : k + 1] * row
    return whole, share


def likelihood(t: Tensor, w: Tensor, log_q: Tensor) -> tuple[Tensor, Tensor]:
    """log q_y and 1 - q_y; of several labels, <t, log q> by their mass in place of log q_y."""
    single = (t != 0).sum(-1, keepdim=True) == 1
    a = torch.where(single, t, t * w)
    log = dot(a, log_q) / a.sum(-1)
    return log, -torch.expm1(log)


def row_losses(
    formula: Formula, z: Tensor, t: Tensor, pi: Tensor, share: Tensor, w: Tensor, eps: Tensor
) -> Tensor:
    """Of rows of logits, targets t, priors pi and strengths, and class weights w."""
    log_q = z.log_softmax(-1)
    mass = dot(t, w)
    nll = -dot(w * t, log_q)

    def smoothed(eps: Tensor) -> Tensor:
        e = eps.unsqueeze(-1)
        return -dot(w * ((1 - e) * t + e * pi), log_q)

    def excess(m: float, squared: bool) -> Tensor:
        """Of the first of the largest logits over each of the others."""
        top = z.gather(-1, z.argmax(-1, keepdim=True))
        beyond = torch.where(share * w > 0, top - z - m, 0.0).relu()
        return (share * w * (beyond.square() if squared else beyond)).sum(-1)

    match formula:
        case LabelSmoothing():
            return smoothed(eps)
        case NegativeSmoothing(clip):
            above = -dot(w * pi, log_q) - nll
            return nll + eps * torch.where(eps < 0, above.clamp(max=clip), above)
        case MaxSup():
            return nll + eps * excess(0.0, False)
        case MarginSmoothing(margin, squared):
            return nll + eps * excess(margin, squared)
        case ConfidencePenalty(threshold):
            entropy = -(log_q.exp() * torch.where(z > -torch.inf, log_q, 0.0)).sum(-1)
            return nll + eps * (-entropy if threshold is None else (threshold - entropy).relu())
        case LabelRelaxation():
            log, wrong = likelihood(t, w, log_q)
            relaxed = log.exp() >= 1 - eps
            log, wrong = log.masked_fill(relaxed, -1.0), wrong.masked_fill(relaxed, 0.5)
            eps = torch.where(relaxed, 0.5, eps)
            to_label = (1 - eps) * ((1 - eps).log() - log)
            to_others = torch.where(eps == 0, 0.0, eps * (eps.log() - wrong.log()))
            return mass * torch.where(relaxed, 0.0, to_label + to_others)
        case Focal(gamma):
            _, wrong = likelihood(t, w, log_q)
            sure = wrong == 0
            factor = torch.where(sure, 0.0**gamma, wrong.masked_fill(sure, 1.0) ** gamma)
            return factor * smoothed(eps)
        case ForwardCorrection():
            log, _ = likelihood(t, w, log_q)
            return -mass * ((1 - eps) * log.exp() + eps * dot(t, pi)).log()
        case BackwardCorrection():
            return smoothed(-eps / (1 - eps))
    raise AssertionError(formula)


def whole_target(target: Any, K: int, ignore_index: int) -> tuple[Tensor, Tensor]:
    """The class probabilities of each row, (R, K), and whether a row counts. Class indices are (R,)."""
    if isinstance(target, Tensor) and target.is_floating_point():
        return target, torch.ones(len(target), dtype=torch.bool)
    if isinstance(target, Tensor):
        target = (target, target, 1.0)
    first, second, lam = target
    t, counted = torch.zeros(len(first), K, dtype=torch.float64), torch.ones(len(first), dtype=torch.bool)
    lam = torch.as_tensor(lam, dtype=torch.float64).expand(first.shape)
    for label, share in ((first.long(), lam), (second.long(), 1 - lam)):
        counted &= (label != ignore_index) | (share == 0)
        label, share = label.clamp(min=0).unsqueeze(-1), share.masked_fill(label < 0, 0.0).unsqueeze(-1)
        t = t.scatter_add(1, label, share)
    return t, counted


def strengths(eps: Any, target: Any, rows: torch.Size) -> Tensor:
    if isinstance(eps, Schedule):
        eps = eps.eps
    if isinstance(eps, ByClass):
        eps = eps.eps[target.clamp(min=0)]
    return torch.as_tensor(eps, dtype=torch.float64).expand(rows).flatten()


def prior_of_rows(prior: Any, K: int) -> Tensor:
    """(K,), (K, K) by class, or (R, 1, K), for a prior of each row whose classes are last."""
    if prior is None:
        return torch.full((K,), 1 / K, dtype=torch.float64)
    if not isinstance(prior, PerSample):
        return prior if isinstance(prior, Tensor) else prior.probabilities
    shares = prior.probabilities.double().reshape(-1, prior.probabilities.size(-1))
    if prior.classes is not None:
        empty = torch.zeros(len(shares), K, dtype=torch.float64)
        shares = empty.scatter_add(1, prior.classes.reshape(shares.shape), shares)
    return shares.unsqueeze(1)


def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Tensor | None = None,
    *,
    formula: Formula = PLAIN,
    label_smoothing: Any = 0.0,
    prior: Any = None,
    off_target: str = "all",
    weighting: str = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
    z_loss: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """The loss and the loss without smoothing. Class probabilities, and whole priors of rows, sum to 1."""
    class_dim = min(1, input.dim() - 1)
    z = input.movedim(class_dim, -1)
    shape, K, dtype = z.shape[:-1], z.size(-1), z.dtype
    z = z.reshape(-1, K)
    soft = isinstance(target, Tensor) and target.is_floating_point()
    eps = strengths(label_smoothing, target, shape).to(dtype)
    if isinstance(prior, PerSample) and prior.classes is None:
        prior = PerSample(prior.probabilities.movedim(class_dim, -1))
    if isinstance(target, Tensor):
        target = target.movedim(class_dim, -1).reshape(-1, K) if soft else target.reshape(-1)
    else:
        first, second, lam = target
        lam = torch.as_tensor(lam).expand(shape) if isinstance(lam, Tensor) else lam
        target = (first.reshape(-1), second.reshape(-1), lam.reshape(-1) if isinstance(lam, Tensor) else lam)
    t, counted = whole_target(target, K, ignore_index)
    scale = torch.ones(shape) if sample_weight is None else sample_weight.expand(shape)
    scale = scale.to(dtype).flatten() * counted
    counted = scale != 0
    z, t = (x.masked_fill(~counted.unsqueeze(-1), 0.0).to(dtype) for x in (z, t))
    valid = z > -torch.inf
    rows = prior_of_rows(prior, K).to(dtype)
    if rows.dim() == 3:
        rows = rows.masked_fill(~counted[:, None, None], 0.0)
    pi, share = spread(t, rows, off_target == "others", valid)
    w = torch.ones(K, dtype=dtype) if weight is None else weight.to(dtype)
    counts = scale
    if weighting == "sample":
        scale = counts = scale * (t @ w)
        w = torch.ones_like(w)
    elif isinstance(target, Tensor) and not soft:
        counts = scale * (t @ w)
    found = []
    for each in (row_losses(formula, z, t, pi, share, w, eps), -dot(w * t, z.log_softmax(-1))):
        if z_loss and not found:
            each = each + z_loss * (t @ w) * z.logsumexp(-1).square()
        each = torch.where(scale != 0, scale * each, 0.0).reshape(shape)
        if reduction == "none":
            found.append(each)
        else:
            by = 1.0 if reduction == "sum" else counts.sum() if denominator is None else float(denominator)
            found.append(each.sum() / (by if counted.any() or denominator is None else 1.0))
    loss, nll = found
    return loss, nll.detach()


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    pos_weight: Tensor | None = None,
    label_smoothing: Any = 0.0,
    prior: Any = None,
    off_target: str = "all",
) -> Tensor:
    """The loss of each label: of two classes, of which the second is meant, with probability ``target``."""
    eps = label_smoothing.eps if isinstance(label_smoothing, Schedule) else label_smoothing
    eps = torch.as_tensor(eps, dtype=input.dtype)
    toward = 1 - target if off_target == "others" else 0.5 if prior is None else prior
    p = (1 - eps) * target + eps * toward
    on, off = input.sigmoid().log(), (-input).sigmoid().log()
    loss = -((1.0 if pos_weight is None else pos_weight) * p * on + (1 - p) * off)
    return loss if weight is None else weight * loss
