"""Row statistics in plain torch, written as the maths reads: the specification of all other engines.

The reference runs on any device and in any transform (double backward, ``torch.func``, ``torch.compile``).
It allocates tensors as wide as the logits.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from labelsmooth._core.precision import as_given, compute_dtype
from labelsmooth._core.statistics import (
    ABSENT,
    DIFFERENTIABLE,
    STATISTICS,
    Linear,
    Measures,
    RowStatistics,
    blanked,
    model_entropy,
    nll,
    prior_nll,
    sizeable,
    squared_lse,
    taken,
    times,
)


def row_statistics(z: Tensor, measures: Measures) -> RowStatistics:
    """The statistics of each row of ``z``.

    Args:
        z: Logits, ``(..., K)``, of any floating-point type. A class whose logit is -inf is masked, not valid.
        measures: The target, prior and weights of each row.
    """
    z = blanked(z.to(compute_dtype(z)), measures.counted)
    if measures.per_row and measures.prior is not None:
        measures = measures._replace(prior=blanked(measures.prior, measures.counted))
    top = z.detach().argmax(-1, keepdim=True)
    z_max = z.detach().gather(-1, top)
    z, z_max = z - z_max, z_max.squeeze(-1)
    # Autograd adds the term of the first use of z to its gradient last. The terms of target and prior are
    # summed before, and cancel it exactly where one class is left.
    exp = z.exp()
    # The largest term is 1 and is added last, as the others would be rounded when added to it.
    largest = torch.arange(z.size(-1), device=z.device) == top
    lse = (1 + (exp - largest.to(z.dtype)).sum(-1)).log()
    if measures.mixed and not measures.soft:
        measures = _whole(measures, z)
    target_z, target_mass = _target(z, measures)
    # The logits of the prior's classes, and their shares of the prior.
    at = z if measures.classes is None else z.gather(-1, measures.classes)
    rows, kept, valid_mass = (_mixture if measures.mixed else _prior)(at, measures)
    empty = valid_mass == 0
    hinge = slope = model_z = torch.zeros_like(target_z)
    if measures.margin is not None:
        # The largest logit is 0 here, but the hinge has a gradient with respect to it.
        beyond = (z.gather(-1, top) - torch.where(at == -torch.inf, 0.0, at) - measures.margin).relu()
        hinge = (rows * (beyond.square() if measures.squared else beyond)).sum(-1)
        slope = (rows * (2 * beyond if measures.squared else beyond > 0)).sum(-1).detach()
    if kept is not None:
        rows = rows + kept
    if measures.spread:
        model_z = (exp * torch.where(z == -torch.inf, 0.0, z)).sum(-1) / exp.sum(-1)
    return RowStatistics(
        lse,
        target_z,
        torch.where(empty, target_z, times(rows, at).sum(-1)),
        hinge,
        model_z,
        target_mass,
        torch.where(empty, target_mass, rows.sum(-1)),
        valid_mass,
        z_max,
        slope,
    )


def forward(z: Tensor, measures: Measures) -> Tensor:
    """The forward of :class:`Kernels`: the statistics stacked, without an autograd graph."""
    return torch.stack(row_statistics(z.detach(), measures)[:STATISTICS])


def backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    """The backward of :class:`Kernels`."""
    # A dispatch mode calls operators with autograd excluded, but the gradient is computed by autograd.
    autograd = torch._C.DispatchKey.AutogradFunctionality  # pyright: ignore[reportAttributeAccessIssue]
    with torch.no_grad(), torch._C._SetExcludeDispatchKeyGuard(autograd, False):
        found = gradient(grad, z, measures)
    return found if out is None else out.copy_(found)


def evaluate(statistics: Tensor, linear: Linear) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Losses that are linear in the statistics, and a function for their gradient; see :class:`Kernels`."""
    s = RowStatistics(*statistics.unbind())
    mass = s.target_mass if linear.z_by_target else torch.ones_like(s.target_mass)
    factors = [x if isinstance(x, Tensor) else mass.new_tensor(x) for x in (*linear.factors, linear.z_loss)]
    terms = (nll(s), prior_nll(s), s.hinge, model_entropy(s), times(mass, squared_lse(s)))
    losses = sum((times(x, term) for x, term in zip(factors, terms, strict=True)), torch.zeros_like(mass))

    def gradient(grad: Tensor) -> Tensor:
        target, prior, hinge, entropy, z_loss = (linear.scale * grad * factor for factor in factors)
        by_lse = target * s.target_mass + prior * s.prior_mass + entropy
        by_lse = by_lse + times(z_loss * mass, 2 * (s.lse + s.z_max))
        return torch.stack(torch.broadcast_tensors(by_lse, -target, -prior, hinge, -entropy))

    return times(linear.scale, losses), gradient


def gradient(grad: Tensor, z: Tensor, measures: Measures) -> Tensor:
    """The gradient with respect to z, differentiable in turn.

    ``grad`` is the gradient with respect to the differentiable statistics, (5, ...).
    """
    return differentiable(z, lambda x: torch.stack(row_statistics(x, measures)[:DIFFERENTIABLE]), grad)


def differentiable(z: Tensor, of: Callable[[Tensor], Tensor], grad: Tensor) -> Tensor:
    """The gradient of a function of z, differentiable and open to torch.func transforms in turn."""
    again = torch.is_grad_enabled()
    with torch.enable_grad():
        leaf = z if again and z.requires_grad else z.detach().requires_grad_()
        value = of(leaf)
    return torch.autograd.grad(value, leaf, grad, create_graph=again)[0]


def _target(z: Tensor, measures: Measures) -> tuple[Tensor, Tensor]:
    """<target, z> and the target's mass."""
    target, weight = measures.target, measures.weight
    if measures.soft:
        share = target
    else:
        share = measures.shares
        if share is None:
            target = target.unsqueeze(-1)
            share = z.new_ones(target.shape)
        absent = target == ABSENT
        target = target.masked_fill(absent, 0)
        share = share.masked_fill(absent, 0.0)
        z = z.gather(-1, target)
    if weight is not None:
        share = share * (weight if measures.soft else taken(weight, target))
    return times(share, z).sum(-1), share.sum(-1)


def _prior(z: Tensor, measures: Measures) -> tuple[Tensor, None, Tensor]:
    """The prior at its classes, renormalised and weighted, and its mass over the valid classes.

    Where that mass is 0, so are all shares.
    """
    target, _, prior, weight, exclude_target, _, _, classes, *_ = measures
    if prior is None:
        prior = z.new_full((z.size(-1),), 1 / z.size(-1))
    elif measures.by_class:
        prior = taken(prior, target.masked_fill(target == ABSENT, 0))
    masked = z == -torch.inf
    if exclude_target:
        every = torch.arange(z.size(-1), device=z.device) if classes is None else classes
        masked = masked | (every == target.unsqueeze(-1))
    rows = torch.where(masked, 0.0, prior)
    valid_mass = sizeable(rows.sum(-1))
    rows = rows.masked_fill((valid_mass == 0).unsqueeze(-1), 0.0)
    rows = rows / valid_mass.masked_fill(valid_mass == 0, 1.0).unsqueeze(-1)
    if weight is not None:
        rows = rows * (weight if classes is None else weight[classes])
    return rows, None, valid_mass


def _mixture(z: Tensor, measures: Measures) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`_prior`, in expectation over class probabilities t.

    A class j distributes t_j over the allowed classes of its prior. If there are none, it keeps t_j; the
    second result has what the classes keep.
    """
    target, _, prior, weight, exclude_target, *_ = measures
    if prior is None:
        prior = z.new_full((z.size(-1),), 1 / z.size(-1))
    allowed = (z > -torch.inf).to(z.dtype)
    if measures.by_class:
        if exclude_target:
            prior = prior.masked_fill(torch.eye(z.size(-1), dtype=torch.bool, device=z.device), 0.0)
        mass = sizeable(_matmul(allowed, prior.T))
    else:
        prior = allowed * prior
        mass = sizeable(_others(prior))
    empty = mass == 0
    share = torch.where(empty, 0.0, target / mass.masked_fill(empty, 1.0))
    rows = allowed * _matmul(share, prior) if measures.by_class else prior * _others(share)
    kept = torch.where(empty, target, 0.0)
    valid_mass = (target * mass).sum(-1)
    return (rows, kept, valid_mass) if weight is None else (rows * weight, kept * weight, valid_mass)


def _whole(measures: Measures, z: Tensor) -> Measures:
    """Convert the shares of several labels to class probabilities."""
    assert measures.shares is not None
    absent = measures.target == ABSENT
    shares = measures.shares.masked_fill(absent, 0.0)
    target = torch.zeros_like(z).scatter_add(-1, measures.target.masked_fill(absent, 0), shares)
    return measures._replace(target=target, shares=None)


def _others(x: Tensor) -> Tensor:
    """For each class the sum over all others, without the cancellation of subtracting x from the total."""
    before = pad(x.cumsum(-1), (1, -1))
    after = pad(x.flip(-1).cumsum(-1), (1, -1)).flip(-1)
    return before + after


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b`` in the operands' own dtype, which autocast would lower."""
    with as_given(a.device):
        return a @ b
