"""Errors: the same on every process where that is asked for."""

from functools import partial

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

from labelsmooth import BCEWithLogitsLoss, LabelSmoothingLoss, OnlineLabelSmoothing, functional, mixed
from labelsmooth.formulas import Focal, MarginSmoothing
from labelsmooth.functional import vocab_parallel_cross_entropy, vocab_parallel_linear_cross_entropy
from labelsmooth.priors import PerSample
from labelsmooth.schedules import linear

from .harness import K, case, raises


@case
def refusals(generator: torch.Generator) -> None:
    world = dist.get_world_size()
    z, target = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    call = partial(vocab_parallel_cross_entropy, group=None)
    with raises("target must have shape (2,) (class indices) or (2, " + str(3 * world)):
        call(z, torch.zeros(3, dtype=torch.long))
    with raises(f"target must hold class indices in [0, {3 * world})"):
        call(z, target + 3 * world)
    with raises("logits_shard must be floating point, with at least one dimension, got torch.int64"):
        call(target, target)
    with raises("start goes with num_classes only, got start=0"):
        call(z, target, start=0)
    with raises("start must be at least 0, got -1"):
        call(z, target, start=-1, num_classes=K)
    with raises("num_classes must be at least 1, got 0"):
        call(z, target, num_classes=0)
    with raises(f"start must be given: shard {dist.get_rank()} of {world} of num_classes=400 would have"):
        call(z, target, num_classes=400)
    with raises('off_target="others" or a prior of shape (K, K) is given, got class probabilities'):
        call(z, torch.full((2, 3 * world), 1 / (3 * world)), off_target="others")
    with raises('off_target="others" or a prior of shape (K, K) is given, got mixed labels'):
        call(z, mixed(target, target, 0.5), off_target="others")
    with raises("a formula with a hinge needs whole rows, got margin=10.0"):
        call(z, target, formula=MarginSmoothing())
    head = partial(vocab_parallel_linear_cross_entropy, group=None)
    with raises("a formula with a hinge needs whole rows, got margin=2.0"):
        head(z, torch.zeros(4, 3), target, formula=MarginSmoothing(margin=2.0))
    with raises("input must have shape (..., D) with D=4 as linear_weight, got (2, 3)"):
        head(z, torch.zeros(3, 4), target)
    with raises("linear_bias must have shape (4,), got (5,)"):
        head(z, torch.zeros(4, 3), target, linear_bias=torch.zeros(5))
    with raises("linear_weight must have shape (K_local, D), got (4,)"):
        head(z, torch.zeros(4), target)
    with raises("softcap must be"):
        head(z, torch.zeros(4, 3), target, softcap=0.0)
    with raises(
        "engine='linear' cannot serve: a gradient is asked for by the target, the prior or the class"
    ):
        weight = torch.ones(4 * world, requires_grad=True)
        head(z, torch.zeros(4, 3), target, weight=weight, engine="linear")
    mesh = init_device_mesh("cpu", (world,))
    with raises("input must be placed by Shard and Replicate, got (Partial(sum),): redistribute it first"):
        functional.cross_entropy(DTensor.from_local(z, mesh, [Partial()]), target)
    mesh = init_device_mesh("cpu", (2, world // 2))
    with raises("input must have its classes, dimension 1, sharded over one dimension of the mesh"):
        functional.cross_entropy(DTensor.from_local(z, mesh, [Shard(1), Shard(1)]), target)
    parts = DTensor.from_local(z, mesh, [Shard(0), Shard(1)])
    with raises("target must have shape (4,) (class indices)"):
        functional.cross_entropy(parts, target)
    with raises("target must have shape (4,) (class indices)"):
        functional.cross_entropy(parts, mixed(target, target, 0.5))
    target = torch.zeros(4, dtype=torch.long)
    with raises("a formula with a hinge needs whole rows"):
        functional.cross_entropy(parts, target, formula=MarginSmoothing())
    with raises(f"prior of each sample must have the input's shape {tuple(parts.shape)}, got (4, 2)"):
        functional.cross_entropy(parts, target, prior=PerSample(torch.full((4, 2), 0.5)))
    with raises(
        "prior of each sample must have its classes, and as many probabilities, in shape (4, k), got"
    ):
        sparse = PerSample(torch.full((2, 2), 0.5), torch.zeros(2, 2, dtype=torch.long))
        functional.cross_entropy(parts, target, prior=sparse)


@case
def refused_dtensors(generator: torch.Generator) -> None:
    """By name and on every process, none of which then waits for another."""
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    target, labels = torch.zeros(4, dtype=torch.long), torch.zeros(4, K)

    def placed(*shape: int, by: Placement) -> DTensor:
        return distribute_tensor(torch.zeros(shape), mesh, [by])

    z = placed(4, K, by=Shard(1))
    calls = {
        "input": [
            lambda: functional.binary_cross_entropy_with_logits(z, labels),
            lambda: functional.label_smoothing_loss(z, target),
            lambda: LabelSmoothingLoss()(z, target),
            lambda: BCEWithLogitsLoss()(z, labels),
            lambda: OnlineLabelSmoothing(K)(z, target),
            lambda: functional.smoothing_term(placed(4, 5, by=Replicate()), torch.zeros(K, 5), target),
            lambda: vocab_parallel_linear_cross_entropy(z, torch.zeros(3, K), target, group=None),
        ],
        "logits_shard": [lambda: vocab_parallel_cross_entropy(z, target, group=None)],
        "linear_weight": [
            lambda: functional.smoothing_term(torch.zeros(4, 5), placed(K, 5, by=Shard(0)), target),
            lambda: vocab_parallel_linear_cross_entropy(
                torch.zeros(4, 5), placed(K, 5, by=Shard(0)), target, group=None
            ),
        ],
        "linear_bias": [
            lambda: vocab_parallel_linear_cross_entropy(
                torch.zeros(4, 5), torch.zeros(3, 5), target, linear_bias=placed(3, by=Shard(0)), group=None
            ),
        ],
        "target": [
            lambda: functional.cross_entropy(torch.zeros(4, K), distribute_tensor(target, mesh, [Shard(0)])),
            lambda: functional.binary_cross_entropy_with_logits(torch.zeros(4, K), z),
        ],
        "weight": [lambda: functional.cross_entropy(torch.zeros(4, K), target, placed(K, by=Shard(0)))],
        "prior": [lambda: functional.cross_entropy(labels, target, prior=placed(K, by=Shard(0)))],
    }  # fmt: skip
    for name, several in calls.items():
        for call in several:
            with raises(f"{name} must be a plain tensor here, got a DTensor placed by ("):
                call()
    head = functional.linear_cross_entropy
    h, bias = torch.zeros(4, 5), torch.zeros(K)
    W = placed(K, 5, by=Shard(0))
    for by in (Shard(1), Replicate(), Partial()):
        with raises("linear_weight must have shape (K, D) and its classes sharded over one dimension of the"):
            head(h, DTensor.from_local(torch.zeros(K, 5), mesh, [by]), target)
    with raises(
        "linear_weight must have shape (K, D) and its classes sharded over one dimension of the mesh"
    ):
        head(h, placed(K, 2, 5, by=Shard(0)), target)
    square = init_device_mesh("cpu", (2, world // 2))
    with raises(
        "linear_weight must have shape (K, D) and its classes sharded over one dimension of the mesh"
    ):
        head(h, distribute_tensor(torch.zeros(K, 5), square, [Shard(0), Shard(0)]), target)
    with raises("linear_weight must be a DTensor where input is one, got a plain tensor and input placed by"):
        head(placed(4, 5, by=Replicate()), torch.zeros(K, 5), target)
    with raises("linear_weight must be a DTensor where linear_bias is one, got a plain tensor and linear_b"):
        head(h, torch.zeros(K, 5), target, linear_bias=placed(K, by=Shard(0)))
    for by in (Shard(0), Shard(1)):
        with raises(
            "input must be replicated over linear_weight's mesh, as a plain tensor or by Replicate()"
        ):
            head(placed(4, 5, by=by), W, target)
    for other in (bias, placed(K, by=Replicate()), placed(K + 1, by=Shard(0))):
        with raises(f"linear_bias must have shape ({K},) and be placed as linear_weight by (Shard(dim=0),)"):
            head(h, W, target, linear_bias=other)


@case
def check_ranks(generator: torch.Generator) -> None:
    """What is not the same on every process is the same error on every one."""
    world = dist.get_world_size()
    last = dist.get_rank() == world - 1
    z, target = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
    call = partial(vocab_parallel_cross_entropy, group=None, check_ranks=True)
    call(z, target, num_classes=3 * world, label_smoothing=0.1)
    same = "must be the same on every rank of the group, got"
    with raises(f"the rows' shape {same} (4,) on rank 0 and (3,) on rank {world - 1}"):
        call(z[last:], target[last:])
    with raises(f"the type {same} torch.float32 on rank 0 and torch.float64"):
        call(z.double() if last else z, target)
    with raises(f"label_smoothing {same} 0.0 on rank 0 and 1.0 on rank {world - 1}"):
        call(z, target, label_smoothing=float(last))
    with raises(f"target {same} torch.int64 of shape (4,), checksum 0.0 on rank 0 and torch.int64 of shape"):
        call(z, target + last)
    call(z, mixed(target, target, 0.5), label_smoothing=linear(0.2, 0.1, steps=2))
    with raises(f"target {same} mixed(torch.int64 of shape (4,), checksum 0.0; torch.int64 of shape"):
        call(z, mixed(target, target + last, 0.5))
    with raises(
        f"label_smoothing {same} linear(start=0.2, end=0.1, steps=2) at time 0 on rank 0 and linear("
    ):
        schedule = linear(0.2, 0.1, steps=2)
        for _ in range(last):
            schedule.step()
        call(z, target, label_smoothing=schedule)
    with raises(f"formula {same} Focal(gamma=3.0) on rank 0 and Focal(gamma=2.0) on rank"):
        call(z, target, formula=Focal(gamma=3.0 - last))
    with raises(f"weight {same} None on rank 0 and torch.float32 of shape"):
        call(z, target, torch.ones(3 * world) if last else None)
    with raises("the shards' classes must follow one another and be num_classes in all, got by rank [0, 3)"):
        call(z[:, last:], target)
    with raises("the shards' classes must follow one another"):
        call(z, target, num_classes=3 * world - last)
    with raises(f"target must have shape (4,) (class indices) or (4, {3 * world})"):
        call(z, target[1:] if last else target)
    with raises(f"(on rank {world - 1} of the group)"):
        call(z, target[1:] if last else target)
    with raises("logits_shard must be floating point, with at least one dimension, got torch.int64"):
        call(z.long() if last else z, target)
    with raises(f"the type {same}"):
        W = torch.zeros(3, 5, dtype=torch.double if last else torch.float)
        head = torch.zeros(4, 5, dtype=W.dtype)
        vocab_parallel_linear_cross_entropy(head, W, target, group=None, check_ranks=True)
    with raises(f"scale {same} 1.0 on rank 0 and 2.0 on rank"):
        vocab_parallel_linear_cross_entropy(
            z, torch.zeros(2, 3), target, group=None, check_ranks=True, scale=1.0 + last
        )
    with raises(f"softcap {same} 1.0 on rank 0 and 2.0 on rank"):
        vocab_parallel_linear_cross_entropy(
            z, torch.zeros(2, 3), target, group=None, check_ranks=True, softcap=1.0 + last
        )
