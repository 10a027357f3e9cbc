"""Row statistics in plain torch, as the maths reads: the specification of every other engine.

It runs on any device and in any transform (double backward, ``torch.func``, ``torch.compile``), and
does materialise rows as wide as the logits.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class RowStatistics(NamedTuple):
    """What a loss has to know of a row of logits z: one number each per row.

    A non-negative measure a over the classes enters by its mass, sum_k a_k, and by <a, z>; its cross
    entropy to the model is then mass * lse - <a, z>. Logits are measured from the row's largest, on
    which no cross entropy depends, so that a common offset costs no precision.
    """

    lse: Tensor  # log sum_k exp z_k
    target_mass: Tensor  # the target: e_y, or the class probabilities, times the class weights
    target_z: Tensor
    prior_mass: Tensor  # the prior, renormalised over the valid classes, times the class weights
    prior_z: Tensor
    valid_mass: Tensor  # the prior's mass over the valid classes, before it is renormalised


def times(a: Tensor, x: Tensor) -> Tensor:
    """``a * x``, and 0 where a is 0 and x infinite."""
    return a * torch.where((a == 0) & x.isinf(), 0.0, x)


def row_statistics(
    z: Tensor,
    target: Tensor,
    prior: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    exclude_target: bool = False,
) -> RowStatistics:
    """The statistics of each row of ``z``.

    Args:
        z: Logits, ``(..., K)``, float32 or float64. A class whose logit is -inf is masked: not valid.
        target: Class indices, ``(...)``, or class probabilities, ``(..., K)``.
        prior: ``(K,)``, or ``(K, K)`` whose row k serves the rows of class k. None is uniform.
        weight: Class weights, ``(K,)``.
        exclude_target: Whether the prior leaves the target class out.
    """
    z = z - z.detach().amax(-1, keepdim=True)
    if prior is None:
        prior = z.new_full((z.size(-1),), 1 / z.size(-1))
    measures = _soft_measures if target.is_floating_point() else _hard_measures
    return RowStatistics(z.exp().sum(-1).log(), *measures(z, target, prior, weight, exclude_target))


def _hard_measures(
    z: Tensor, target: Tensor, prior: Tensor, weight: Tensor | None, exclude_target: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    target_z = z.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    target_mass = torch.ones_like(target_z) if weight is None else weight[target]
    target_z = times(target_mass, target_z)

    masked = z == -torch.inf
    if exclude_target:
        masked = masked | (torch.arange(z.size(-1), device=z.device) == target.unsqueeze(-1))
    rows = torch.where(masked, 0.0, prior[target] if prior.dim() == 2 else prior)
    valid_mass = mass = rows.sum(-1)
    if weight is not None:
        rows = rows * weight
        mass = rows.sum(-1)
    # A prior without mass on the allowed classes leaves everything on the target.
    empty = valid_mass == 0
    divisor = valid_mass.masked_fill(empty, 1.0)
    prior_mass = torch.where(empty, target_mass, mass / divisor)
    prior_z = torch.where(empty, target_z, (rows * torch.where(masked, 0.0, z)).sum(-1) / divisor)
    return target_mass, target_z, prior_mass, prior_z, valid_mass


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

    valid_mass = (target * mass).sum(-1)
    if weight is not None:
        target, rows = target * weight, rows * weight
    return (
        target.sum(-1),
        times(target, z).sum(-1),
        rows.sum(-1),
        times(rows, z).sum(-1),
        valid_mass,
    )


def _others(x: Tensor) -> Tensor:
    """For each class the sum over all others; the total less x would cancel where x has nearly all of it."""
    before = pad(x.cumsum(-1), (1, -1))
    after = pad(x.flip(-1).cumsum(-1), (1, -1)).flip(-1)
    return before + after


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in their own type, which autocast would shorten."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b
