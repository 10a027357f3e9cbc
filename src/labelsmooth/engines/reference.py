"""Row statistics in plain torch, as the maths reads: the specification of every other engine.

It runs on any device and in any transform (double backward, ``torch.func``, ``torch.compile``), and
does materialise rows as wide as the logits.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from labelsmooth.checks import as_given, blanked, compute_dtype
from labelsmooth.engines.statistics import (
    ABSENT,
    DIFFERENTIABLE,
    Measures,
    RowStatistics,
    renormalised,
    times,
)


def row_statistics(z: Tensor, measures: Measures) -> RowStatistics:
    """The statistics of each row of ``z``.

    Args:
        z: Logits, ``(..., K)``, of any floating-point type. A class whose logit is -inf is masked: not valid.
        measures: What each row is held to.
    """
    target, counted, prior, weight, exclude_target = measures
    z = blanked(z.to(compute_dtype(z)), counted)
    z_max = z.detach().amax(-1)
    z = z - z_max.unsqueeze(-1)
    if prior is None:
        prior = z.new_full((z.size(-1),), 1 / z.size(-1))
    find = _soft_measures if measures.soft else _hard_measures
    return RowStatistics(z.exp().sum(-1).log(), *find(z, target, prior, weight, exclude_target), z_max)


def forward(z: Tensor, measures: Measures) -> Tensor:
    """As an operator's: the statistics stacked, without a graph."""
    return torch.stack(row_statistics(z.detach(), measures))


def backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    """As an operator's."""
    with torch.no_grad():
        found = gradient(grad, z, measures)
    return found if out is None else out.copy_(found)


def gradient(grad: Tensor, z: Tensor, measures: Measures) -> Tensor:
    """The gradient by z, given that by the differentiable statistics, (3, ...); itself differentiable."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = z if again and z.requires_grad else z.detach().requires_grad_()
        found = torch.stack(row_statistics(leaf, measures)[:DIFFERENTIABLE])
    return torch.autograd.grad(found, leaf, grad, create_graph=again)[0]


def _hard_measures(
    z: Tensor, target: Tensor, prior: Tensor, weight: Tensor | None, exclude_target: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    absent = target == ABSENT
    index = target.masked_fill(absent, 0)
    target_z = z.gather(-1, index.unsqueeze(-1)).squeeze(-1)
    target_mass = torch.ones_like(target_z) if weight is None else weight[index]
    target_mass = target_mass.masked_fill(absent, 0.0)
    target_z = times(target_mass, target_z)

    masked = z == -torch.inf
    if exclude_target:
        masked = masked | (torch.arange(z.size(-1), device=z.device) == target.unsqueeze(-1))
    rows = torch.where(masked, 0.0, prior[index] if prior.dim() == 2 else prior)
    valid_mass = mass = rows.sum(-1)
    if weight is not None:
        rows = rows * weight
        mass = rows.sum(-1)
    prior_z = (rows * torch.where(masked, 0.0, z)).sum(-1)
    prior_z, prior_mass = renormalised(target_z, prior_z, target_mass, mass, valid_mass)
    return target_z, prior_z, target_mass, prior_mass, valid_mass


def _soft_measures(
    z: Tensor, target: Tensor, prior: Tensor, weight: Tensor | None, exclude_target: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As for class indices, in expectation over the class probabilities t.

    A class j shares t_j out over its prior's allowed classes. A prior common to all classes stays as it
    is even if t does not sum to 1, as in torch.
    """
    allowed = (z > -torch.inf).to(z.dtype)
    per_class = prior.dim() == 2
    if per_class:
        if exclude_target:
            prior = prior.masked_fill(torch.eye(z.size(-1), dtype=torch.bool, device=z.device), 0.0)
        mass = _matmul(allowed, prior.T)
    else:
        prior = allowed * prior
        mass = _others(prior) if exclude_target else prior.sum(-1, keepdim=True)
    empty = mass == 0
    divisor = mass.masked_fill(empty, 1.0)
    share = torch.where(empty, 0.0, target / divisor)
    if per_class:
        rows = allowed * _matmul(share, prior)
    elif exclude_target:
        rows = prior * _others(share)
    else:
        rows = prior / divisor
    rows = torch.where(empty, rows + target, rows)

    valid_mass = (target * mass).sum(-1) if per_class or exclude_target else mass.squeeze(-1)
    if weight is not None:
        target, rows = target * weight, rows * weight
    target_z, prior_z = times(target, z).sum(-1), times(rows, z).sum(-1)
    return target_z, prior_z, target.sum(-1), rows.sum(-1), valid_mass


def _others(x: Tensor) -> Tensor:
    """For each class the sum over all others; the total less x would cancel where x has nearly all of it."""
    before = pad(x.cumsum(-1), (1, -1))
    after = pad(x.flip(-1).cumsum(-1), (1, -1)).flip(-1)
    return before + after


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in their own type, which autocast would shorten."""
    with as_given(a.device):
        return a @ b
