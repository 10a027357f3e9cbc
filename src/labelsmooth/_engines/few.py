"""Several labels, and priors over a few classes per row, around a kernel with one label and full priors.

Their terms are linear in the logits of these classes, which are gathered in the forward pass. The backward
pass adds to the gradient at these classes, so no other tensor is as wide as the logits.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import (
    ABSENT,
    STATISTICS,
    Gradient,
    Measures,
    RowStatistics,
    sizeable,
    times,
)
from labelsmooth._engines import kept

if TYPE_CHECKING:
    from labelsmooth._engines.operator import Backward, Forward


PIECE = 2**20
"""The number of half-precision logits that are converted to float32 at once."""


def with_few(forward: "Forward", backward: "Backward") -> "tuple[Forward, Backward]":
    """Extend a kernel's forward and backward by several labels and by priors over a few classes per row."""

    def forward_with_few(z: Tensor, measures: Measures) -> Tensor:
        measures = _as_wide(measures)
        plain = _without_few(measures)
        if plain is measures:
            return forward(z, measures)
        found = RowStatistics(*forward(z, plain).unbind())
        target_z, target_mass = found.target_z, found.target_mass
        if measures.shares is not None:
            labels, shares = _labels(measures, found.lse)
            at = _at(z, labels, measures, found.z_max)
            target_z, target_mass = times(shares, at).sum(-1), shares.sum(-1)
        prior_z, prior_mass, valid_mass = found.prior_z, found.prior_mass, found.valid_mass
        if measures.classes is not None:
            at = _at(z, measures.classes, measures, found.z_max)
            valid = _prior(at, measures)
            valid_mass = sizeable(valid.sum(-1))
            # As in the backward pass, the quotient is exactly 1 for a single class, before it is weighted.
            rows = valid / valid_mass.masked_fill(valid_mass == 0, 1.0).unsqueeze(-1)
            rows = _weighted(rows, measures.classes, measures)
            prior_z, prior_mass = times(rows, at).sum(-1), rows.sum(-1)
        empty = valid_mass == 0
        prior_z = torch.where(empty, target_z, prior_z)
        prior_mass = torch.where(empty, target_mass, prior_mass)
        found = found._replace(
            target_z=target_z,
            prior_z=prior_z,
            target_mass=target_mass,
            prior_mass=prior_mass,
            valid_mass=valid_mass,
        )
        return torch.stack(found[:STATISTICS])

    def backward_with_few(
        grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
    ) -> Tensor:
        measures = _as_wide(measures)
        plain = _without_few(measures)
        if plain is measures:
            return backward(grad, z, measures, statistics, out)
        if z.dtype != compute_dtype(z):
            return in_pieces(grad, z, measures, statistics, out)
        found = RowStatistics(*statistics.unbind())
        by = Gradient(*grad.unbind())
        empty = found.valid_mass == 0
        by_target = torch.where(empty, by.target_z + by.prior_z, by.target_z)
        by_prior = torch.where(empty, 0.0, by.prior_z)
        nothing = torch.zeros_like(by.lse)
        more: list[tuple[Tensor, Tensor]] = []  # classes, and what is added to their gradients
        few, valid, mass = measures.classes, nothing, nothing
        if few is not None:
            # The logits are read before the kernel writes ``out``, which may be z.
            valid = _prior(_at(z, few, measures, found.z_max), measures)
            mass = found.valid_mass.masked_fill(empty, 1.0).unsqueeze(-1)
        labels, shares = _labels(measures, by.lse)
        of_labels = by_target.unsqueeze(-1) * shares
        # A label's two terms are summed before the partition's is added: where one class is left, they
        # cancel it exactly.
        if few is None:
            assert measures.shares is not None
            most = measures.shares.argmax(-1, keepdim=True)
            share, label = (x.gather(-1, most) for x in (measures.shares, labels))
            by_target = by_target * share.squeeze(-1)
            found = found._replace(target_mass=_weighted(torch.ones_like(share), label, measures).squeeze(-1))
            of_labels = of_labels.scatter(-1, most, 0.0)
        else:
            same = labels.unsqueeze(-1) == few.unsqueeze(-2)
            same &= same.cumsum(-2) == 1
            part = (valid.unsqueeze(-2) * same).sum(-1) / mass
            of_labels = of_labels + by_prior.unsqueeze(-1) * _weighted(part, labels, measures)
            valid = valid.masked_fill(same.any(-2), 0.0)
            more.append((few, by_prior.unsqueeze(-1) * _weighted(valid / mass, few, measures)))
            by_target = by_prior = nothing
            # The kernel has no prior here, so it must not divide by the prior's mass.
            found = found._replace(valid_mass=torch.ones_like(by.lse))
        more.append((labels, of_labels))
        grad = torch.stack(by._replace(target_z=by_target, prior_z=by_prior))
        by_z = backward(grad, z, plain, torch.stack(found[:STATISTICS]), out)
        for classes, values in more:
            values = values.masked_fill(~measures.counted.unsqueeze(-1), 0.0)
            by_z.scatter_add_(-1, classes, values.to(by_z.dtype))
        return by_z

    def in_pieces(
        grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None
    ) -> Tensor:
        """Compute the gradient of half precision in float32, so that it is rounded after terms cancel."""
        written = kept.new_empty(z, z.shape) if out is None or not out.is_contiguous() else out
        rows, into = z.reshape(-1, z.size(-1)), written.view(-1, z.size(-1))
        grad, statistics, measures = grad.flatten(1), statistics.flatten(1), measures.flat()
        size = max(1, PIECE // z.size(-1))
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            piece = rows[part].to(compute_dtype(z))
            into[part] = backward_with_few(
                grad[:, part], piece, measures.rows(part), statistics[:, part], piece
            )
        return written if out is None or out is written else out.copy_(written)

    return forward_with_few, backward_with_few


def _as_wide(measures: Measures) -> Measures:
    """Widen priors over a few classes to all classes if the target holds class probabilities."""
    prior, classes = measures.prior, measures.classes
    if prior is None or classes is None or not measures.soft or measures.margin is not None:
        return measures
    prior = torch.zeros_like(measures.target).scatter_add(-1, classes, prior)
    return measures._replace(prior=prior, classes=None, per_row=True)


def _without_few(measures: Measures) -> Measures:
    """The measures for the kernel: only the label of the largest share, and no prior over a few classes."""
    if measures.shares is not None:
        target = measures.target.gather(-1, measures.shares.argmax(-1, keepdim=True))
        measures = measures._replace(target=target.squeeze(-1), shares=None)
    if measures.classes is not None and measures.margin is None:  # the kernel refuses a hinge
        measures = measures._replace(prior=None, classes=None, per_row=False, exclude_target=False)
    return measures


def _at(z: Tensor, classes: Tensor, measures: Measures, z_max: Tensor) -> Tensor:
    """The logits of some classes minus the row's largest; 0 in ignored rows."""
    at = z.gather(-1, classes).to(compute_dtype(z)) - z_max.unsqueeze(-1)
    return at.masked_fill(~measures.counted.unsqueeze(-1), 0.0)


def _labels(measures: Measures, like: Tensor) -> tuple[Tensor, Tensor]:
    """The labels, and their weighted shares; the share of a label in another shard is 0."""
    target, shares = measures.target, measures.shares
    if shares is None:
        target = target.unsqueeze(-1)
        shares = like.new_ones(target.shape)
    absent = target == ABSENT
    labels = target.masked_fill(absent, 0)
    return labels, _weighted(shares.masked_fill(absent, 0.0), labels, measures)


def _weighted(share: Tensor, classes: Tensor, measures: Measures) -> Tensor:
    return share if measures.weight is None else share * measures.weight[classes]


def _prior(at: Tensor, measures: Measures) -> Tensor:
    """The prior at its classes, 0 where these are masked or excluded."""
    assert measures.prior is not None
    assert measures.classes is not None
    masked = at == -torch.inf
    if measures.exclude_target:
        masked = masked | (measures.classes == measures.target.unsqueeze(-1))
    return measures.prior.masked_fill(masked, 0.0)
