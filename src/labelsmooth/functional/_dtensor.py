"""The cross entropy of a DTensor, whose rows, classes or both are sharded over a device mesh."""

from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import torch
import torch.distributed as dist
from torch import Tensor

from labelsmooth._core.checks import check_broadcasts, check_devices, check_tensor
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.reduction import reduce
from labelsmooth._core.statistics import class_dim_of, times
from labelsmooth._engines import route
from labelsmooth._engines.route import Engine
from labelsmooth._engines.sharded import (
    LogitsShard,
    check_servable,
    replicated,
    row_statistics,
    span_of,
    summed,
)
from labelsmooth._targets.criterion import criterion
from labelsmooth._targets.mixed import Mixed, by_sample
from labelsmooth._targets.options import CrossEntropyOptions
from labelsmooth._targets.rows import check_class_dim
from labelsmooth.formulas import nll
from labelsmooth.functional._parallel import vocab_parallel_linear_cross_entropy
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import ByClass

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor, Placement


def dtensor_cross_entropy(
    input: "DTensor",
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    dim: int | None = None,
    engine: Engine | None = None,
    return_nll: bool = False,
    **options: Unpack[CrossEntropyOptions],
) -> "tuple[DTensor, DTensor]":
    """:func:`labelsmooth.functional.cross_entropy` of a DTensor; every process of its mesh has to call it.

    One dimension of the mesh may shard the classes, the others may shard rows. A mean and its gradient are
    those of a single process with all rows: sums and counts are all-reduced over the mesh dimensions that
    shard rows.

    Args:
        input: Logits, placed by ``Shard`` and ``Replicate`` only.
        target: Class indices, class probabilities or mixup labels of the whole input. Plain tensors, here and
            among the options, must be the same on every process. DTensors may be sharded.
        weight: A weight for each class, ``(K,)``.
        dim: The class dimension. None is torch's.
        engine: As in :func:`labelsmooth.functional.cross_entropy`, for each process's own part.
        return_nll: Whether to return the loss without smoothing as well.
        **options: As in :func:`labelsmooth.functional.cross_entropy`. A formula with a hinge is refused if
            the classes are sharded.

    Returns:
        Two DTensors on the same mesh, the loss and the loss without smoothing if ``return_nll``. Both are
        replicated scalars or, for "none", one loss per row, sharded as the rows.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.
    """
    from torch.distributed.tensor import DTensor, Replicate

    layout = layout_of(input, dim)
    mesh, num_classes = input.device_mesh, input.size(layout.class_dim)
    check_devices(input.device, target=target, weight=weight, **options)
    target, weight, options = _local_call(layout, input, target, weight, options)
    z = input.to_local()
    shape = torch.Size(num_classes if d == layout.class_dim else size for d, size in enumerate(z.shape))
    wanted = criterion(
        shape, compute_dtype(z), z.device, target, weight, class_dim=layout.class_dim, **options
    )
    z = z.movedim(layout.class_dim, -1)
    if layout.class_mesh_dim is None:
        statistics = route.row_statistics(z, wanted.measures, engine)
    else:
        check_servable(wanted.measures)
        group = mesh.get_group(layout.class_mesh_dim)
        span = span_of(z.size(-1), num_classes, None, group)
        statistics = row_statistics(LogitsShard(z, engine), wanted.measures, span, group)

    found = [wanted.losses(statistics)]
    if return_nll:
        found.append(times(wanted.scale, nll(statistics)).detach())
    if wanted.reduction == "none":
        stride = torch.empty(layout.rows, device="meta").stride()
        results = [
            DTensor.from_local(x, mesh, layout.placements, run_check=False, shape=layout.rows, stride=stride)
            for x in found
        ]
    else:
        sums = torch.stack([x.sum() for x in (*found, wanted.counts)])
        for group in layout.row_groups:
            sums = summed(sums, group)
        *totals, count = sums.unbind()
        reduced = [reduce(x, count, wanted.reduction, wanted.denominator) for x in totals]
        everywhere = [Replicate()] * mesh.ndim
        results = [DTensor.from_local(x, mesh, everywhere, run_check=False) for x in reduced]
    return results[0], results[-1]


def dtensor_linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    linear_bias: Tensor | None = None,
    **options: Any,
) -> tuple[Tensor, Tensor]:
    """:func:`labelsmooth.functional.linear_cross_entropy` of a head whose weight is a DTensor.

    Every process of its mesh has to call it. One dimension of the mesh shards the classes; over the others
    all arguments are replicated.

    Args:
        input: The same on every process: a plain tensor, or a DTensor on the same mesh, all ``Replicate``.
        linear_weight: W, ``(K, D)``, placed by one ``Shard(0)`` and otherwise by ``Replicate``.
        target: A plain tensor, the same on every process, as are all tensors among the options.
        linear_bias: b, ``(K,)``, placed as ``linear_weight``.
        **options: As in :func:`labelsmooth.functional.vocab_parallel_linear_cross_entropy`.

    Returns:
        The loss and the loss without smoothing, the same on every process; DTensors if the input is one.

    Raises:
        ValueError: if an argument is invalid; on every process, before any of them waits for another.
    """
    from torch.distributed.tensor import DTensor, Replicate, Shard

    if not isinstance(linear_weight, DTensor):
        given = {"input": input, "linear_bias": linear_bias}
        name, x = next((name, x) for name, x in given.items() if isinstance(x, DTensor))
        raise ValueError(
            f"linear_weight must be a DTensor where {name} is one, got a plain tensor and {name} placed by "
            f"{x.placements}"
        )
    mesh, placements = linear_weight.device_mesh, linear_weight.placements
    sharding = [d for d, p in enumerate(placements) if type(p) is Shard and p.dim == 0]
    rest = [p for d, p in enumerate(placements) if d not in sharding]
    if linear_weight.dim() != 2 or len(sharding) != 1 or any(type(p) is not Replicate for p in rest):
        raise ValueError(
            "linear_weight must have shape (K, D) and its classes sharded over one dimension of the mesh, "
            f"Shard(0) there and Replicate() elsewhere, got shape {tuple(linear_weight.shape)} placed by "
            f"{placements}"
        )
    if isinstance(input, DTensor) and (
        input.device_mesh != mesh or any(type(p) is not Replicate for p in input.placements)
    ):
        raise ValueError(
            "input must be replicated over linear_weight's mesh, as a plain tensor or by Replicate(), "
            f"got {input.placements} on {input.device_mesh}"
        )
    if linear_bias is not None and not (
        isinstance(linear_bias, DTensor)
        and linear_bias.device_mesh == mesh
        and linear_bias.placements == placements
        and linear_bias.shape == linear_weight.shape[:1]
    ):
        got = linear_bias.placements if isinstance(linear_bias, DTensor) else "a plain tensor"
        raise ValueError(
            f"linear_bias must have shape {tuple(linear_weight.shape[:1])} and be placed as linear_weight by "
            f"{placements}, got {got} of shape {tuple(linear_bias.shape)}"
        )
    loss, nll = vocab_parallel_linear_cross_entropy(
        input.to_local() if isinstance(input, DTensor) else input,
        linear_weight.to_local(),
        target,
        linear_bias=None if linear_bias is None else linear_bias.to_local(),
        group=mesh.get_group(sharding[0]),
        num_classes=linear_weight.size(0),
        return_nll=True,
        **options,
    )
    if isinstance(input, DTensor):
        everywhere = [Replicate()] * mesh.ndim
        loss, nll = (DTensor.from_local(x, mesh, everywhere, run_check=False) for x in (loss, nll))
    return loss, nll


class Layout(NamedTuple):
    """The placement of a DTensor's rows and classes on its mesh."""

    class_dim: int
    class_mesh_dim: int | None  # the dimension of the mesh that shards the classes
    rows: torch.Size
    placements: list["Placement"]  # of the rows
    row_groups: list["dist.ProcessGroup"]  # the groups that shard the rows


def layout_of(input: "DTensor", dim: int | None) -> Layout:
    from torch.distributed.tensor import Replicate, Shard

    placements: list[Placement] = []
    class_mesh_dims: list[int] = []
    class_dim = class_dim_of(input.dim(), dim)
    check_class_dim(input, class_dim)
    class_dim %= input.dim()
    for mesh_dim, placement in enumerate(input.placements):
        if type(placement) is Shard and placement.dim == class_dim:
            class_mesh_dims.append(mesh_dim)
            placements.append(Replicate())
        elif type(placement) is Shard:
            placements.append(Shard(placement.dim - (placement.dim > class_dim)))
        elif type(placement) is Replicate:
            placements.append(placement)
        else:
            raise ValueError(
                f"input must be placed by Shard and Replicate, got {input.placements}: redistribute it first"
            )
    if len(class_mesh_dims) > 1:
        raise ValueError(
            f"input must have its classes, dimension {class_dim}, sharded over one dimension of the mesh, "
            f"got {input.placements}"
        )
    return Layout(
        class_dim,
        class_mesh_dims[0] if class_mesh_dims else None,
        input.shape[:class_dim] + input.shape[class_dim + 1 :],
        placements,
        [input.device_mesh.get_group(d) for d, p in enumerate(placements) if p.is_shard()],
    )


def _local_call(
    layout: Layout,
    input: "DTensor",
    target: Tensor | Mixed,
    weight: Tensor | None,
    options: CrossEntropyOptions,
) -> tuple[Tensor | Mixed, Tensor | None, CrossEntropyOptions]:
    """The target, weight and options for this process's rows."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = input.device_mesh
    by_class = [
        Replicate() if d == layout.class_mesh_dim else placement
        for d, placement in enumerate(input.placements)
    ]

    def whole(x: Tensor) -> Tensor:
        return x.full_tensor() if isinstance(x, DTensor) else x

    def place(x: Tensor, placements: list["Placement"]) -> Tensor:
        if not isinstance(x, DTensor) or x.device_mesh != mesh:
            x = DTensor.from_local(whole(x), mesh, [Replicate()] * mesh.ndim, run_check=False)
        return x.redistribute(placements=placements).to_local()

    def by_row(name: str, x: Tensor) -> Tensor:
        check_broadcasts(name, x, layout.rows, "the rows'")
        return place(x.expand(layout.rows), layout.placements)

    def everywhere(x: Tensor) -> Tensor:
        x = whole(x)
        for group in layout.row_groups:
            x = replicated(x, group)
        return x

    local = options.copy()
    match options.get("label_smoothing"):
        case Tensor() as eps:
            local["label_smoothing"] = by_row("label_smoothing", eps)
        case ByClass() as strength if strength.eps.requires_grad:
            local["label_smoothing"] = ByClass(everywhere(strength.eps))
    if (sample_weight := options.get("sample_weight")) is not None:
        check_tensor("sample_weight", sample_weight)
        local["sample_weight"] = by_row("sample_weight", sample_weight)
    match options.get("prior"):
        case None:
            pass
        case PerSample(probabilities, classes) as prior:
            _check_prior_shape(prior, layout.rows, input.shape)
            placements = by_class if classes is None else layout.placements
            local["prior"] = PerSample(
                place(probabilities, placements), None if classes is None else place(classes, placements)
            )
        case Prior() as prior:
            local["prior"] = everywhere(prior.probabilities)
        case prior:
            check_tensor("prior", prior)
            local["prior"] = everywhere(prior)
    if isinstance(denominator := options.get("denominator"), Tensor):
        local["denominator"] = whole(denominator)
    if weight is not None:
        check_tensor("weight", weight)
        weight = everywhere(weight)
    if isinstance(target, Mixed):
        _check_target_shape(target.first, layout.rows, input.shape)
        first, second = (place(x, layout.placements) for x in (target.first, target.second))
        lam = by_sample(target.lam, target.first.shape)
        lam = by_row("lam", lam) if isinstance(lam, Tensor) else lam
        return Mixed(first, second, lam), weight, local
    check_tensor("target", target)
    _check_target_shape(target, layout.rows, input.shape)
    return place(target, by_class if target.shape == input.shape else layout.placements), weight, local


def _check_prior_shape(prior: PerSample, rows: tuple[int, ...], whole: tuple[int, ...]) -> None:
    got = tuple(prior.probabilities.shape)
    if prior.classes is None and got != whole:
        raise ValueError(f"prior of each sample must have the input's shape {tuple(whole)}, got {got}")
    if prior.classes is not None and (got[:-1] != rows or prior.classes.shape != got):
        raise ValueError(
            f"prior of each sample must have its classes, and as many probabilities, in shape "
            f"({', '.join(map(str, rows))}, k), got {tuple(prior.classes.shape)} and {got}"
        )


def _check_target_shape(target: Tensor, rows: tuple[int, ...], whole: tuple[int, ...]) -> None:
    if target.shape not in (rows, whole):
        raise ValueError(
            f"target must have shape {tuple(rows)} (class indices) or {tuple(whole)} (class probabilities), "
            f"where the classes of all processes are counted, got {tuple(target.shape)}"
        )
