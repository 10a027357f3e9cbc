"""Row statistics of logits whose classes are sharded across processes: two all-reduces, none in backward.

Each process computes the statistics of its own classes with another engine. The first all-reduce finds the
largest logit of each row; the second sums the statistics, shifted to that logit, over the processes.
"""

from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from labelsmooth._core.modes import readable
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import (
    ABSENT,
    STATISTICS,
    Measures,
    RowStatistics,
    renormalised,
    sizeable,
    taken,
    times,
)
from labelsmooth._engines import linear, route
from labelsmooth._engines.linear import Head
from labelsmooth._engines.route import Engine


class Span(NamedTuple):
    """The classes of a process: from ``start`` up to ``stop``, of ``num_classes`` in all."""

    start: int
    stop: int
    num_classes: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def span_of(
    local_size: int, num_classes: int | None, start: int | None, group: "dist.ProcessGroup | None"
) -> Span:
    """The classes of a shard with ``local_size`` classes."""
    rank, world = dist.get_rank(group), dist.get_world_size(group)
    if rank < 0:
        raise ValueError("group must be one that this process is in")
    if num_classes is None:
        if start is not None:
            raise ValueError(f"start goes with num_classes only, got start={start}")
        num_classes = world * local_size
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, got {num_classes}")
    if start is None:
        chunk = -(-num_classes // world)
        start = rank * max(chunk, local_size)
        expected = min(chunk, max(num_classes - start, 0))
        if local_size < chunk and local_size != expected:
            raise ValueError(
                f"start must be given: shard {rank} of {world} of num_classes={num_classes} would have "
                f"{expected} classes, or with padding at least {chunk}, got {local_size}"
            )
    if start < 0:
        raise ValueError(f"start must be at least 0, got {start}")
    start = min(start, num_classes)
    return Span(start, min(start + local_size, num_classes), num_classes)


def check_servable(measures: Measures) -> None:
    """Refuse what needs whole rows.

    A mixture of priors depends on the masks of other processes. A hinge depends on the largest logit of the
    row before its mean over the prior is taken.
    """
    if measures.mixed:
        given = "class probabilities" if measures.soft else "mixed labels"
        raise ValueError(
            "target must hold class indices where the classes are sharded and "
            f'off_target="others" or a prior of shape (K, K) is given, got {given}'
        )
    if measures.margin is not None:
        raise ValueError(
            "formula must be one without a hinge where the classes are sharded: a formula with a hinge "
            f"needs whole rows, got margin={measures.margin}"
        )


class LocalLogits(Protocol):
    """The logits of a process's classes, given or computed by a linear head."""

    def nothing(self) -> Tensor:
        """A zero for each row that depends on the logits, with gradient 0."""
        ...

    def statistics(self, measures: Measures) -> RowStatistics:
        """The statistics of the local classes.

        If all local classes are masked, z_max is -inf, the others are finite, and the gradient is 0.
        """
        ...


class LogitsShard(NamedTuple):
    """Logits without their padding, ``(..., K_local)``."""

    z: Tensor
    engine: Engine | None = None

    def nothing(self) -> Tensor:
        return self.z[..., :0].sum(-1, dtype=compute_dtype(self.z))

    def statistics(self, measures: Measures) -> RowStatistics:
        if readable(self.z):
            # The second pass over the logits is run only if it is known to be needed.
            found = route.row_statistics(self.z, measures, self.engine)
            empty = found.z_max == -torch.inf
            if not bool(empty.any()):
                return found
        else:
            empty = self.z.detach().amax(-1) == -torch.inf
        found = route.row_statistics(self.z, _uncounted(empty, measures), self.engine)
        return _without(empty, found, measures)


class LinearShard(NamedTuple):
    """The head of a process's classes, without their padding, and the shape of its input's rows."""

    head: Head
    rows: torch.Size

    def nothing(self) -> Tensor:
        bias = None if self.head.bias is None else self.head.bias[:0]
        head = self.head._replace(weight=self.head.weight[:0], bias=bias)
        return LogitsShard(head.logits()).nothing().reshape(self.rows)

    def masked(self) -> Tensor:
        """Which local classes are masked by a bias of -inf; with a softcap none are, as it is finite."""
        weight, bias = self.head.weight, self.head.bias
        if bias is None or self.head.softcap is not None:
            return torch.zeros(weight.size(0), dtype=torch.bool, device=weight.device)
        return bias == -torch.inf

    def statistics(self, measures: Measures) -> RowStatistics:
        flat = measures.flat()
        if linear.makes_logits(self.head, flat):
            z = self.head.blanked(flat.counted).logits()
            found = LogitsShard(z, self.head.engine and "reference").statistics(flat)
        else:
            empty = self.masked().all()
            found = linear.row_statistics(self.head, _uncounted(empty, flat))
            found = _without(empty, found, flat)
        return RowStatistics(*(x.reshape(self.rows) for x in found[:STATISTICS]))


def row_statistics(
    shard: LocalLogits, measures: Measures, span: Span, group: "dist.ProcessGroup | None"
) -> RowStatistics:
    """The statistics of whole rows, the same on every process of the group.

    Args:
        shard: The logits of this process's classes, without padding; classes may be masked.
        measures: The measures of each row over all classes; see :func:`check_servable`.
        span: The classes of this process, perhaps none.
        group: The process group across which the classes are sharded.
    """
    local = local_measures(measures, span, group)
    if span.size <= 0:
        found = _nothing(shard.nothing(), local)
    else:
        found = shard.statistics(local)
        # The engine took a uniform prior over the local classes, so its mass is scaled to all classes.
        share = span.size / span.num_classes if local.prior is None else 1.0
        found = found._replace(valid_mass=found.valid_mass * share)
    return combine(found, measures.spread, group)


def local_measures(measures: Measures, span: Span, group: "dist.ProcessGroup | None") -> Measures:
    """The measures over the local classes; priors per class become priors per row."""

    def cut(x: Tensor) -> Tensor:
        return replicated(x, group)[..., span.start : span.stop]

    def own(classes: Tensor, elsewhere: int) -> tuple[Tensor, Tensor]:
        classes = classes - span.start
        outside = (classes < 0) | (classes >= span.size)
        return classes.masked_fill(outside, elsewhere), outside

    prior, classes, shares = measures.prior, measures.classes, measures.shares
    target = cut(measures.target) if measures.soft else own(measures.target, ABSENT)[0]
    if prior is not None and classes is not None:
        classes, outside = own(classes, 0)
        prior = replicated(prior, group).masked_fill(outside, 0.0)
    elif prior is not None:
        prior = cut(prior)
        if measures.by_class:  # targets in other shards have a prior over the local classes too
            prior = taken(prior, measures.target)
    return measures._replace(
        target=target,
        prior=prior,
        per_row=measures.per_row or measures.by_class,
        weight=None if measures.weight is None else cut(measures.weight),
        shares=None if shares is None else replicated(shares, group),
        classes=classes,
    )


def combine(local: RowStatistics, spread: bool, group: "dist.ProcessGroup | None") -> RowStatistics:
    """The statistics of whole rows, from those of each process with its prior renormalised locally."""
    largest = torch.stack([local.z_max, local.valid_mass.to(local.z_max.dtype)]).detach()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    z_max, most = largest.unbind()
    shift = local.z_max - z_max  # -inf on a process whose classes are all masked
    # Relative to the largest mass, a process that has the whole prior has exactly 1, so nothing is rounded.
    share = local.valid_mass / most.masked_fill(most == 0, 1.0)
    # If one class has nearly all probability, the digits of lse are in the sum of exp minus 1.
    has_top = shift == 0
    total = (local.lse + shift).exp()
    parts = [
        torch.where(has_top, local.lse.expm1(), total),
        has_top,
        local.target_z + times(local.target_mass, shift),
        times(share, local.prior_z) + times(share * local.prior_mass, shift),
        local.target_mass,
        share * local.prior_mass,
        share,
    ]
    if spread:
        parts.append(times(total, local.model_z + shift))
    stacked = torch.stack([part.to(z_max.dtype) for part in parts])
    sums = summed(stacked, group).unbind()
    total, tops, target_z, prior_z, target_mass, prior_mass, whole, *model = sums
    prior_z, prior_mass = renormalised(target_z, prior_z, target_mass, prior_mass, whole)
    lse = (total + (tops - 1)).log1p()
    nothing = torch.zeros_like(z_max)
    return RowStatistics(
        lse,
        target_z,
        prior_z,
        hinge=nothing,
        model_z=model[0] / (total + tops) if spread else nothing,
        target_mass=target_mass,
        prior_mass=prior_mass,
        valid_mass=sizeable(whole * most),
        z_max=z_max,
        slope=nothing,
    )


def summed(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """The sum over the group, for computations that are the same on every process afterwards."""
    return _Sum.apply(x, group)


def replicated(x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
    """x, the same on every process of the group, for computations that differ between processes."""
    return _Replicated.apply(x, group) if x.requires_grad else x


class _Sum(torch.autograd.Function):
    """An all-reduce without one in backward: every process computes the same loss from the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        x = x.clone()
        dist.all_reduce(x, dist.ReduceOp.SUM, group=group)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _refuse_graph()
        return grad, None


class _Replicated(torch.autograd.Function):
    """The identity, whose gradient is summed over the processes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: "dist.ProcessGroup | None") -> Tensor:
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        _refuse_graph()
        grad = grad.contiguous().clone()
        dist.all_reduce(grad, dist.ReduceOp.SUM, group=ctx.group)
        return grad, None


def _refuse_graph() -> None:
    """Refuse a graph of the gradient: a loss of the gradient would differ between processes."""
    if torch.is_grad_enabled():
        raise RuntimeError("a loss of sharded classes can be differentiated once: create_graph must be False")


def _nothing(zero: Tensor, local: Measures) -> RowStatistics:
    """The statistics of a process without classes."""
    none = zero.detach()
    # Gradients of replicated tensors are summed in backward, in which every process has to take part.
    for x in local.tensors:
        if x is not None and x.requires_grad:
            zero = zero + x[..., :0].sum()
    return RowStatistics(zero, zero, zero, zero, zero, none, none, none, none - torch.inf, none)


def _uncounted(empty: Tensor, measures: Measures) -> Measures:
    """Ignore rows in which all local classes are masked, as -inf minus -inf is NaN."""
    return measures._replace(counted=measures.counted & ~empty)


def _without(empty: Tensor, found: RowStatistics, measures: Measures) -> RowStatistics:
    """Set the statistics of rows in which all local classes are masked, which were ignored before."""
    return found._replace(
        target_z=found.target_z.masked_fill(empty, 0.0),
        prior_z=found.prior_z.masked_fill(empty, 0.0),
        model_z=found.model_z.masked_fill(empty, 0.0),
        target_mass=torch.where(empty, _target_mass(measures).to(found.lse.dtype), found.target_mass),
        prior_mass=found.prior_mass.masked_fill(empty, 0.0),
        valid_mass=found.valid_mass.masked_fill(empty, 0.0),
        z_max=found.z_max.masked_fill(empty, -torch.inf),
    )


def _target_mass(measures: Measures) -> Tensor:
    target, weight = measures.target, measures.weight
    if measures.soft:
        return (target if weight is None else target * weight).sum(-1)
    absent = target == ABSENT
    mass = torch.ones_like(target) if weight is None else weight[target.masked_fill(absent, 0)]
    mass = mass.masked_fill(absent, 0)
    return mass if measures.shares is None else (mass * measures.shares).sum(-1)
