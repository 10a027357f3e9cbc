"""DTensors on meshes of one and two dimensions against one process."""

import copy
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module

from labelsmooth import LinearCrossEntropyLoss, by_class, functional, mixed
from labelsmooth._targets.mixed import Mixed
from labelsmooth.formulas import ConfidencePenalty, MarginSmoothing
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import warm_up

from .harness import (
    CASES,
    K,
    Make,
    Options,
    assert_near,
    assert_near_as_vectors,
    case,
    class_weight,
    given,
    raises,
    soft,
    vector,
)


def dtensor(
    generator: torch.Generator,
    placements: list[Placement],
    shape: tuple[int, ...],
    make: Make = lambda generator, K: {},
    target_placements: list[Placement] | None = None,
) -> None:
    """A DTensor and one process, in torch's order of dimensions."""
    world = dist.get_world_size()
    mesh_shape = (world,) if len(placements) == 1 else (2, world // 2)
    mesh = init_device_mesh("cpu", mesh_shape)
    rows = shape[:1] + shape[2:]
    z = torch.randn(*shape, dtype=torch.float64, generator=generator)
    options = {"label_smoothing": 0.1, **make(generator, shape[1])}
    target = options.pop("target", torch.randint(shape[1], rows, generator=generator))
    by_row = [name for name, x in options.items() if isinstance(x, Tensor) and x.shape == rows]
    leaf = z.clone().requires_grad_()
    expected = functional.cross_entropy(leaf, target, return_nll=True, **options)
    expected[0].sum().backward()
    assert leaf.grad is not None

    z_parts = distribute_tensor(z, mesh, placements).requires_grad_()
    local_options = dict(options)
    if target_placements is not None:
        if isinstance(target, Mixed):
            first = distribute_tensor(target.first, mesh, target_placements)
            second = distribute_tensor(target.second, mesh, target_placements)
            target = Mixed(first, second, target.lam)
        else:
            target = distribute_tensor(target, mesh, target_placements)
        for name in by_row:
            local_options[name] = distribute_tensor(options[name], mesh, target_placements)
    found = functional.cross_entropy(z_parts, target, return_nll=True, **local_options)
    assert isinstance(found, tuple)
    for name, x, e in zip(("loss", "nll"), found, expected, strict=True):
        assert isinstance(x, DTensor)
        assert_near(x.full_tensor(), e.detach(), 1e-12, name)
    found[0].sum().backward()
    assert isinstance(z_parts.grad, DTensor)
    assert tuple(z_parts.grad.placements) == tuple(placements)
    assert_near_as_vectors(z_parts.grad.full_tensor(), leaf.grad, 1e-12, "gradient")


REPLICATE: Placement = Replicate()
ROW: Placement = Shard(0)
CLASS: Placement = Shard(1)
LAST: Placement = Shard(2)


def all_by_row(generator: torch.Generator, num_classes: int) -> Options:
    eps, sample_weight = torch.rand(2, 7, dtype=torch.float64, generator=generator)
    return {"label_smoothing": eps, "sample_weight": sample_weight}


def two_labels(generator: torch.Generator, num_classes: int) -> Mixed:
    first, second = torch.randint(num_classes, (2, 7), generator=generator)
    return mixed(first, second, torch.rand(7, dtype=torch.float64, generator=generator))


def few_by_row(generator: torch.Generator, num_classes: int) -> PerSample:
    classes = torch.randint(num_classes, (7, 2), generator=generator)
    return PerSample(torch.rand(7, 2, dtype=torch.float64, generator=generator), classes)


def by_sample(generator: torch.Generator, num_classes: int) -> PerSample:
    shape = (3, num_classes, 5)
    return PerSample(torch.rand(shape, dtype=torch.float64, generator=generator).softmax(1))


for name, arguments in {
    "classes": ([CLASS], (7, 11)),
    "few classes": ([CLASS], (7, 5)),
    "rows": ([ROW], (7, 11)),
    "replicated": ([REPLICATE], (7, 11)),
    "three dimensions": ([CLASS], (3, 11, 5)),
    "mesh": ([ROW, CLASS], (7, 11)),
    "mesh, classes first": ([CLASS, ROW], (7, 11)),
    "mesh, last dimension": ([LAST, CLASS], (3, 11, 5)),
    "mesh, rows twice": ([ROW, ROW], (7, 11)),
    "mesh, rows and last": ([ROW, LAST], (3, 11, 5)),
    "mesh, replicated": ([REPLICATE, CLASS], (7, 11)),
    "mesh, by row": ([ROW, CLASS], (7, 11), all_by_row),
    "mesh, targets sharded": ([ROW, CLASS], (7, 11), all_by_row, [ROW, REPLICATE]),
    "mesh, targets replicated": ([ROW, CLASS], (7, 11), all_by_row, [REPLICATE, REPLICATE]),
    "mesh, none": ([ROW, CLASS], (7, 11), given(reduction="none")),
    "mesh, sum": ([ROW, CLASS], (7, 11), given(reduction="sum")),
    "mesh, denominator": ([ROW, CLASS], (7, 11), given(denominator=5.0)),
    "mesh, one row": ([ROW, CLASS], (1, 11)),
    "mesh, weight": (
        [ROW, CLASS],
        (7, 11),
        lambda g, n: {"weight": class_weight(g, n), "prior": vector(g, n)},
    ),
    "mesh, Prior": ([ROW, CLASS], (7, 11), lambda g, n: {"prior": Prior(vector(g, n), "by hand")}),
    "mesh, schedule": ([ROW, CLASS], (7, 11), given(label_smoothing=warm_up(0.2, steps=0))),
    "mesh, mixed labels": ([ROW, CLASS], (7, 11), lambda g, n: {"target": two_labels(g, n)}),
    "mesh, mixed labels sharded": (
        [ROW, CLASS],
        (7, 11),
        lambda g, n: {"target": two_labels(g, n), "formula": ConfidencePenalty()},
        [ROW, REPLICATE],
    ),
    "mesh, prior by sample": ([LAST, CLASS], (3, 11, 5), lambda g, n: {"prior": by_sample(g, n)}),
    "mesh, few classes by sample": ([ROW, CLASS], (7, 11), lambda g, n: {"prior": few_by_row(g, n)}),
    "mesh, hinge of whole rows": ([ROW, REPLICATE], (7, 11), given(formula=MarginSmoothing(margin=1.0))),
}.items():
    CASES[f"dtensor, {name}"] = partial(dtensor, **dict(zip(
        ("placements", "shape", "make", "target_placements"), arguments, strict=False)))  # fmt: skip
of_target: list[list[Placement]] = [[ROW, REPLICATE], [REPLICATE, REPLICATE], [ROW, CLASS]]
for placement in of_target:
    CASES[f"dtensor, class probabilities {placement}"] = partial(
        dtensor,
        placements=[ROW, CLASS],
        shape=(12, 11),
        make=lambda g, n: {"target": soft(g, n).flatten(0, 1)},
        target_placements=placement,
    )


@case
def dtensor_gradient_by_options(generator: torch.Generator) -> None:
    """Of options that are plain tensors, alike on every process."""
    N, n = 7, 11
    z = torch.randn(N, n, dtype=torch.float64, generator=generator)
    target = torch.randint(n, (N,), generator=generator)
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
    tensors = [torch.tensor(0.3, dtype=torch.float64), class_weight(generator, n), vector(generator, n)]
    for wrap in (lambda eps: eps, lambda eps: by_class_of(eps.expand(n)), lambda eps: eps.expand(N)):
        grads: list[list[Tensor | None]] = []
        for alone in (True, False):
            eps, weight, prior = leaves = [x.clone().requires_grad_() for x in tensors]
            options: Options = {"label_smoothing": wrap(eps), "prior": prior}
            if alone:
                loss = functional.cross_entropy(z, target, weight, **options)
            else:
                z_parts = distribute_tensor(z, mesh, [ROW, CLASS])
                loss = functional.cross_entropy(z_parts, target, weight, **options)
                assert isinstance(loss, Tensor)
            loss.backward()
            grads.append([x.grad for x in leaves])
        for expected, found in zip(*grads, strict=True):
            assert expected is not None
            assert found is not None
            assert_near_as_vectors(found, expected, 1e-12, "gradient")


def by_class_of(eps: Tensor) -> Any:
    return by_class(eps)


@case
def dtensor_collectives(generator: torch.Generator) -> None:
    """A mean takes one more all-reduce for each dimension of the mesh that shards rows."""
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2))
    z_parts = distribute_tensor(torch.randn(4, K, generator=generator), mesh, [ROW, CLASS]).requires_grad_()
    target = torch.randint(K, (4,), generator=generator)
    with CommDebugMode() as forward:
        loss = functional.cross_entropy(z_parts, target, label_smoothing=0.1)
    with CommDebugMode() as backward:
        assert isinstance(loss, DTensor)
        loss.backward()
    assert forward.get_total_counts() == 3, forward.get_comm_counts()
    assert backward.get_total_counts() == 0, backward.get_comm_counts()


def head_of_dtensors(generator: torch.Generator, num_classes: int, wrapped: bool, **options: Any) -> None:
    """Loss and gradients of a head whose classes are sharded over one dimension of a mesh."""
    world = dist.get_world_size()
    for mesh, placements in (
        (init_device_mesh("cpu", (world,)), [ROW]),
        (init_device_mesh("cpu", (2, world // 2)), [ROW, REPLICATE]),
    ):
        shapes = ((3, 4, 5), (num_classes, 5), (num_classes,))
        given = [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in shapes]
        target = torch.randint(num_classes, (3, 4), generator=generator)
        leaves = [x.clone().requires_grad_() for x in given]
        expected = functional.linear_cross_entropy(
            leaves[0], leaves[1], target, linear_bias=leaves[2], return_nll=True, **options
        )
        expected[0].sum().backward()
        everywhere = [REPLICATE] * mesh.ndim
        h = distribute_tensor(given[0], mesh, everywhere) if wrapped else given[0].clone()
        parts = [h, *(distribute_tensor(x, mesh, placements) for x in given[1:])]
        parts = [x.requires_grad_() for x in parts]
        found = functional.linear_cross_entropy(
            parts[0], parts[1], target, linear_bias=parts[2], return_nll=True, **options
        )
        for name, x, e in zip(("loss", "nll"), found, expected, strict=True):
            assert isinstance(x, DTensor) == wrapped
            assert_near(whole(x), e.detach(), 1e-12, name)
        found[0].sum().backward()
        for name, part, leaf in zip(("input", "weight", "bias"), parts, leaves, strict=True):
            assert part.grad is not None
            assert leaf.grad is not None
            assert_near_as_vectors(whole(part.grad), leaf.grad, 1e-12, f"gradient by {name}")


def whole(x: Tensor) -> Tensor:
    return x.full_tensor() if isinstance(x, DTensor) else x


for wrapped in (False, True):
    for n in (12, 11, 3):
        CASES[f"head of dtensors, {n} classes{', input too' * wrapped}"] = partial(
            head_of_dtensors, num_classes=n, wrapped=wrapped, label_smoothing=0.1
        )
    CASES[f"head of dtensors, options{', input too' * wrapped}"] = partial(
        head_of_dtensors, num_classes=11, wrapped=wrapped, reduction="none", softcap=2.0, z_loss=0.1
    )


@case
def head_of_a_parallel_layer(generator: torch.Generator) -> None:
    """The module's layer sharded by torch, in each way that it may hand on the logits."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    h = torch.randn(3, 4, 5, generator=generator)
    target = torch.randint(K, (3, 4), generator=generator)
    torch.manual_seed(0)
    head = LinearCrossEntropyLoss(5, K, bias=True, label_smoothing=0.1)
    expected = head(h, target)
    expected.backward()
    truth = [x.grad for x in head.parameters()]
    keeps = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    gathers = ColwiseParallel(output_layouts=Replicate())
    for plan in (keeps, gathers, None):
        part = copy.deepcopy(head)
        part.zero_grad()
        if plan is None:  # its weight alone, as where it is tied to a sharded embedding
            for name, x in list(part.linear.named_parameters()):
                setattr(part.linear, name, nn.Parameter(distribute_tensor(x.detach(), mesh, [ROW])))
        else:
            parallelize_module(part, mesh, {"linear": plan})
        loss = part(h, target)
        assert_near(whole(loss), expected.detach(), 2e-6, "loss")
        loss.backward()
        for x, e in zip(part.parameters(), truth, strict=True):
            assert isinstance(x.grad, DTensor)
            assert e is not None
            assert_near_as_vectors(x.grad.full_tensor(), e, 2e-6, "gradient")
    parallelize_module(part := copy.deepcopy(head), mesh, {"linear": ColwiseParallel()})
    with raises(f"linear must return logits of shape (3, 4, {K}) for input of shape (3, 4, 5), got (3, 4,"):
        part(h, target)


@case
def head_of_fully_sharded_data(generator: torch.Generator) -> None:
    """FSDP gives each process the whole weight in forward, and each has rows of its own."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    rank = dist.get_rank()
    torch.manual_seed(0)
    for shard in (lambda m: fully_shard(m, mesh=mesh), lambda m: fully_shard(m.linear, mesh=mesh)):
        head = LinearCrossEntropyLoss(5, K, label_smoothing=0.1)
        h = torch.randn(4, 5, generator=torch.Generator().manual_seed(rank))
        target = torch.full((4,), rank)
        expected = functional.linear_cross_entropy(h, head.linear.weight, target, label_smoothing=0.1)
        shard(head)
        loss = head(h, target)
        assert_near(loss, expected.detach(), 2e-6, "loss")
        loss.backward()
