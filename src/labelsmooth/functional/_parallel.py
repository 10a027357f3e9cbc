r"""Tensor-parallel cross entropies, of logits whose classes are sharded across processes.

Every process of a group makes the same call, with its own shard of the classes and the same targets and
options, and gets the same loss.
"""

from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, Literal, NamedTuple, Unpack, overload

import torch
import torch.distributed as dist
from torch import Tensor

from labelsmooth._core.checks import check_choice, check_head, check_local, check_tensor
from labelsmooth._core.keywords import takes
from labelsmooth._core.precision import accurate, compute_dtype
from labelsmooth._engines.linear import Head, HeadEngine, check_bend
from labelsmooth._engines.sharded import (
    LinearShard,
    LocalLogits,
    LogitsShard,
    check_servable,
    replicated,
    row_statistics,
    span_of,
)
from labelsmooth._targets.criterion import DEFAULTS, Criterion, criterion
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import CrossEntropyOptions, HeadShardOptions, LogitsShardOptions
from labelsmooth.functional._ranks import check_same, described, told


@overload
def vocab_parallel_cross_entropy(
    logits_shard: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[False] = False,
    **options: Unpack[LogitsShardOptions],
) -> Tensor: ...


@overload
def vocab_parallel_cross_entropy(
    logits_shard: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[True],
    **options: Unpack[LogitsShardOptions],
) -> tuple[Tensor, Tensor]: ...


@takes(LogitsShardOptions, DEFAULTS)
def vocab_parallel_cross_entropy(
    logits_shard: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    return_nll: bool = False,
    **options: Unpack[LogitsShardOptions],
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Tensor-parallel cross entropy to a smoothed target: each process has the logits of some classes.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad
        \mathrm{lse}(z) = m + \log \sum_r \sum_{k \in r} e^{z_k - m}, \qquad
        \langle p, z \rangle = \sum_r \sum_{k \in r} p_k z_k

    Two all-reduces of a few numbers per row compute the largest logit m and the sums over the processes r,
    whatever the smoothing. The backward pass needs no communication: each process computes the gradient by
    its own logits. Every process of the group has to make the same call. All arguments except the first and
    ``start`` are the same on every process and refer to all K classes. The loss can be differentiated once.

    Args:
        logits_shard: The logits of this process's classes, ``(..., K_local)``, of any floating-point type.
            Classes beyond ``num_classes`` are padding: their probability and gradient are 0.
        target: Class indices in ``[0, K)`` of any integer type, ``(...)``; class probabilities, ``(..., K)``;
            or mixup labels. The last two take neither ``off_target="others"`` nor a prior of shape ``(K,
            K)``.
        weight: A weight for each class, ``(K,)``.
        group: The process group across which the classes are sharded, in the order of its ranks. None is the
            default group.
        num_classes: K, without padding. None: all shards have the same size, without padding.
        start: This process's first class. None: all shards have the size of the first, and the last ones may
            have fewer classes, none, or padding (as :func:`torch.chunk` and DTensor split a dimension).
        check_ranks: Whether to compare the arguments across the group first, including option values and a
            checksum of the target. A mismatch, or an error on any process, then raises the same error on
            every process; without the check the others may hang. It costs a synchronisation.
        engine: As in :func:`labelsmooth.functional.cross_entropy`, for each process's own part.
        return_nll: Whether to return the loss without smoothing as well.
        **options: As in :func:`labelsmooth.functional.cross_entropy`, with rows of shape ``(...)``. A prior
            of shape ``(K, K)`` takes a second pass over the logits and as much memory as they do. A formula
            with a hinge needs whole rows and is refused.

    Returns:
        The loss in float32 (float64 for float64 logits), the same on every process; a scalar, or one value
        per row for "none". With ``return_nll``, a pair (loss, nll), where nll has eps = 0, the same weights
        and reduction, and no gradient.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> target = torch.tensor([0, 1])
        >>> vocab_parallel_cross_entropy(logits, target, group=None, label_smoothing=0.1)
        tensor(0.3157)
        >>> dist.destroy_process_group()

    Reference:
        Shoeybi et al., *Megatron-LM: Training Multi-Billion Parameter Language Models Using Model
        Parallelism*, 2019.
    """
    place, engine = _place_of(options), options.pop("engine", None)

    def prepare() -> "_Prepared":
        _check_floating("logits_shard", logits_shard)
        rows, local_size, dtype = logits_shard.shape[:-1], logits_shard.size(-1), compute_dtype(logits_shard)

        def shard(size: int) -> LogitsShard:
            return LogitsShard(_first_classes(logits_shard, -1, size), engine)

        device = logits_shard.device
        return _Call(rows, local_size, dtype, device, target, weight, options, {}), shard

    return _vocab_parallel(prepare, place, return_nll)


@overload
def vocab_parallel_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    return_nll: Literal[False] = False,
    **options: Unpack[HeadShardOptions],
) -> Tensor: ...


@overload
def vocab_parallel_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    return_nll: Literal[True],
    **options: Unpack[HeadShardOptions],
) -> tuple[Tensor, Tensor]: ...


@takes(HeadShardOptions, DEFAULTS)
def vocab_parallel_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    return_nll: bool = False,
    **options: Unpack[HeadShardOptions],
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Tensor-parallel cross entropy of a linear head: each process has the weights of some classes.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad z = s\, (W h + b)

    The same as :func:`vocab_parallel_cross_entropy` of :math:`s\, (W_r h + b_r)`. The gradient by the input,
    :math:`W^T \partial\ell / \partial z`, is a sum over all classes, so the backward pass has one all-reduce,
    as in every linear layer with sharded outputs.

    Args:
        input: h, ``(..., D)``, the same on every process.
        linear_weight: The rows of W of this process's classes, ``(K_local, D)``. Rows beyond ``num_classes``
            are padding.
        target: Class indices in ``[0, K)`` of any integer type, ``(...)``; class probabilities, ``(..., K)``;
            or mixup labels. The last two take neither ``off_target="others"`` nor a prior of shape ``(K,
            K)``.
        linear_bias: b of this process's classes, ``(K_local,)``. A class of bias -inf is masked.
        weight: A weight for each class in the loss, ``(K,)``.
        scale: s, more than 0, a factor of the logits, applied before the softcap. None is 1.
        softcap: Bends the logits to ``softcap * tanh(z / softcap)``; more than 0.
        group: The process group across which the classes are sharded, in the order of its ranks. None is the
            default group.
        num_classes: K, without padding; see :func:`vocab_parallel_cross_entropy`.
        start: This process's first class; see there.
        check_ranks: Whether to compare the arguments over the group first; see there.
        engine: As in :func:`labelsmooth.functional.linear_cross_entropy`, for each process's own part.
        return_nll: Whether to return the loss without smoothing as well.
        **options: As in :func:`labelsmooth.functional.cross_entropy`, with rows of shape ``(...)``. A formula
            with a hinge needs whole rows and is refused.

    Returns:
        The loss in float32 (float64 for a float64 input), the same on every process; see there.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> input, weight = torch.ones(2, 4), torch.zeros(3, 4)
        >>> vocab_parallel_linear_cross_entropy(input, weight, torch.tensor([0, 1]), group=None)
        tensor(1.0986)
        >>> dist.destroy_process_group()

    Reference:
        Shoeybi et al., *Megatron-LM: Training Multi-Billion Parameter Language Models Using Model
        Parallelism*, 2019.
    """
    place = _place_of(options)
    linear_bias, weight = options.pop("linear_bias", None), options.pop("weight", None)
    scale, softcap = options.pop("scale", None), options.pop("softcap", None)
    engine = options.pop("engine", None)

    def prepare() -> "_Prepared":
        check_tensor("input", input)
        check_tensor("linear_weight", linear_weight)
        check_local(input=input, linear_weight=linear_weight, linear_bias=linear_bias)
        if linear_weight.dim() != 2:
            raise ValueError(f"linear_weight must have shape (K_local, D), got {tuple(linear_weight.shape)}")
        check_bend(scale, softcap)
        if engine is not None:
            check_choice("engine", engine, HeadEngine)
        rows, local_size = input.shape[:-1], linear_weight.size(0)
        # A process may have no class, and then no products.
        dtype = check_head(input, linear_weight, linear_bias) if local_size else input.dtype

        def shard(size: int) -> LinearShard:
            flat = replicated(input, place.group).reshape(-1, input.size(-1))
            bias = None if linear_bias is None else _first_classes(linear_bias, 0, size)
            return LinearShard(
                Head(
                    flat, _first_classes(linear_weight, 0, size), bias, scale, softcap, dtype, engine=engine
                ),
                rows,
            )

        loss_dtype, device = accurate(dtype), input.device
        bend = {"scale": scale, "softcap": softcap}
        return _Call(rows, local_size, loss_dtype, device, target, weight, options, bend), shard

    return _vocab_parallel(prepare, place, return_nll)


class _Call(NamedTuple):
    """What a process is asked for, but for its logits."""

    rows: torch.Size
    local_size: int  # of its classes, with padding
    dtype: torch.dtype  # of the loss
    device: torch.device
    target: Tensor | Mixed
    weight: Tensor | None
    options: CrossEntropyOptions
    bend: Mapping[str, float | None]  # of the logits

    def criterion(self, num_classes: int) -> Criterion:
        shape = torch.Size((*self.rows, num_classes))
        wanted = criterion(
            shape, self.dtype, self.device, self.target, self.weight, class_dim=-1, **self.options
        )
        check_servable(wanted.measures)
        return wanted

    def summary(self) -> dict[str, str]:
        """What has to be the same on every process."""
        given = {"weight": self.weight, **self.bend, **self.options}
        return {
            "the rows' shape": str(tuple(self.rows)),
            "the type": str(self.dtype),
            "target": told(self.target),
            **{name: described(x) for name, x in given.items()},
        }


_Prepared = tuple[_Call, Callable[[int], LocalLogits]]
"""A call, once its arguments are checked, and its logits, once it is known how many are no padding."""


class _Place(NamedTuple):
    """Where a process's classes are among all."""

    group: "dist.ProcessGroup | None"
    num_classes: int | None = None
    start: int | None = None
    check_ranks: bool = False


def _place_of(options: Any) -> _Place:
    """Take it out of the options of a call."""
    return _Place(**{name: options.pop(name) for name in _Place._fields if name in options})


def _vocab_parallel(
    prepare: Callable[[], _Prepared], place: _Place, return_nll: bool
) -> Tensor | tuple[Tensor, Tensor]:
    group, num_classes, start, check_ranks = place
    try:
        for name, value in {"num_classes": num_classes, "start": start}.items():
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, Integral | torch.SymInt)
            ):
                raise ValueError(f"{name} must be an integer, got {value!r}")
        call, shard = prepare()
        span = span_of(call.local_size, num_classes, start, group)
        wanted = call.criterion(span.num_classes)
    except ValueError as error:
        if check_ranks:
            check_same(str(error), {}, group)
        raise
    if check_ranks:
        check_same(span, call.summary(), group)
    statistics = row_statistics(shard(span.size), wanted.measures, span, group)
    loss = wanted.loss(statistics)
    return (loss, wanted.nll(statistics)) if return_nll else loss


def _first_classes(x: Tensor, dim: int, size: int) -> Tensor:
    """x without padding."""
    return x if x.size(dim) == size else x.narrow(dim, 0, size)


def _check_floating(name: str, value: Tensor) -> None:
    check_tensor(name, value, typed=True)
    check_local(**{name: value})
    if not value.is_floating_point() or value.dim() == 0:
        raise ValueError(
            f"{name} must be floating point, with at least one dimension, "
            f"got {value.dtype} of shape {tuple(value.shape)}"
        )
