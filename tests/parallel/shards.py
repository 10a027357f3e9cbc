"""The sharded loss against one process: every option over every way of spreading the classes."""

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor.debug import CommDebugMode

from labelsmooth import by_class, functional, mixed
from labelsmooth._engines import sharded
from labelsmooth._targets.mixed import Mixed
from labelsmooth.formulas import ConfidencePenalty, Focal, ForwardCorrection
from labelsmooth.functional import vocab_parallel_cross_entropy
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import warm_up
from tests.test_one_class import OPTIONS, one_hot, only

from .harness import (
    CASES,
    ROWS,
    K,
    Make,
    Options,
    Sizes,
    assert_near,
    assert_near_as_vectors,
    by_row,
    case,
    chunked,
    class_weight,
    classes_second,
    even,
    few_by_row,
    given,
    ignoring,
    lopsided,
    matrix,
    one_process,
    own,
    padded,
    per_row,
    raises,
    soft,
    two_labels,
    vector,
)

Edit = Callable[[Tensor], Tensor]


def compare(
    generator: torch.Generator,
    sizes: Sizes = even,
    num_classes: int = K,
    edit: Edit = lambda z: z,
    make: Make = lambda generator, K: {},
    dtypes: tuple[torch.dtype, ...] = (torch.float64, torch.float32),
    tells_start: bool = False,
) -> None:
    """Loss, plain loss and gradient of a shard, and of one process with all classes."""
    world = dist.get_world_size()
    shards = sizes(world, num_classes)
    double = edit(3 * torch.randn(*ROWS, num_classes, dtype=torch.float64, generator=generator))
    options = {"label_smoothing": 0.1, **make(generator, num_classes)}
    target = options.pop("target", torch.randint(num_classes, ROWS, generator=generator))
    for dtype in dtypes:
        tolerance = 1e-12 if dtype == torch.float64 else 2e-6
        z = double.to(dtype)
        losses, grad = one_process(z, target, options)
        part, start = own(z, shards)
        part.requires_grad_()
        found = vocab_parallel_cross_entropy(
            part,
            target,
            group=None,
            num_classes=None if sizes is even else num_classes,
            start=start if tells_start else None,
            return_nll=True,
            **options,
        )
        for name, x, expected in zip(("loss", "nll"), found, losses, strict=True):
            assert_near(x, expected, tolerance, f"{name} in {dtype}")
        found[0].sum().backward()
        assert part.grad is not None
        expected = own(grad, shards)[0]
        # Neither padding has a gradient, nor a shard of which everything is masked, its target included.
        nothing = part.isneginf().logical_or(part.isnan()).all(-1, keepdim=True)
        beyond = torch.arange(part.size(-1)) >= num_classes - start
        expected = expected.masked_fill(nothing | beyond, 0.0)
        rounding = torch.finfo(dtype).eps if dtype.itemsize == 2 else 0.0
        assert_near_as_vectors(part.grad, expected, tolerance + rounding, f"gradient in {dtype}")


def masked_first(z: Tensor) -> Tensor:
    """All classes of the first process are masked, and some of the second's."""
    first = z.size(-1) // dist.get_world_size()
    z = z.clone()
    z[..., :first] = -torch.inf
    z[..., 1, first] = -torch.inf
    return z


def masked_here_and_there(z: Tensor) -> Tensor:
    return z.masked_fill(torch.arange(z.numel()).reshape(z.shape) % 5 == 2, -torch.inf)


def a_row_of_nan(z: Tensor) -> Tensor:
    z = z.clone()
    z[1, 2] = torch.nan
    return z


for eps in (0, 0.1, 1):
    CASES[f"eps {eps}"] = partial(compare, make=given(label_smoothing=eps))
for name, make in {
    "eps by row": lambda g, n: {"label_smoothing": per_row(g)},
    "eps by class": lambda g, n: {"label_smoothing": by_class(vector(g, n))},
    "ignore_index": lambda g, n: {"target": ignoring(g, n)},
    "sample_weight": lambda g, n: {"sample_weight": per_row(g).masked_fill(per_row(g) < 0.3, 0.0)},
    "weight": lambda g, n: {"target": ignoring(g, n), "weight": class_weight(g, n)},
    "weighting sample": lambda g, n: {"weight": class_weight(g, n), "weighting": "sample"},
    "prior": lambda g, n: {"prior": vector(g, n), "weight": class_weight(g, n)},
    "prior by class": lambda g, n: {"prior": matrix(g, n), "weight": class_weight(g, n)},
    "others": given(off_target="others"),
    "others of a prior": lambda g, n: {"off_target": "others", "prior": vector(g, n)},
    "others of a prior by class": lambda g, n: {"off_target": "others", "prior": matrix(g, n)},
    "class probabilities": lambda g, n: {"target": soft(g, n), "weight": class_weight(g, n)},
    "class probabilities and prior": lambda g, n: {"target": soft(g, n), "prior": vector(g, n)},
    "mixed labels": lambda g, n: {"target": two_labels(g, n), "weight": class_weight(g, n)},
    "mixed labels, one ignored": lambda g, n: {"target": mixed(ignoring(g, n), ignoring(g, n), 0.3)},
    "prior by row": lambda g, n: {"prior": by_row(g, n), "weight": class_weight(g, n)},
    "others of a prior by row": lambda g, n: {"prior": by_row(g, n), "off_target": "others"},
    "few classes by row": lambda g, n: {"prior": few_by_row(g, n), "weight": class_weight(g, n)},
    "others of few classes": lambda g, n: {"prior": few_by_row(g, n), "off_target": "others"},
    "mixed labels, few classes": lambda g, n: {"target": two_labels(g, n), "prior": few_by_row(g, n)},
    "confidence penalty": given(formula=ConfidencePenalty(threshold=1.0)),
    "confidence penalty and all": lambda g, n: {
        "formula": ConfidencePenalty(),
        "target": ignoring(g, n),
        "prior": matrix(g, n),
        "weight": class_weight(g, n),
        "off_target": "others",
    },
    "focal": lambda g, n: {"formula": Focal(), "target": two_labels(g, n), "prior": by_row(g, n)},
    "z_loss": given(z_loss=0.1),
    "none": given(reduction="none"),
    "sum": given(reduction="sum"),
    "denominator": given(denominator=7),
    "nothing counts": given(target=torch.full(ROWS, -100), denominator=7),
    "nothing counts in a mean": given(target=torch.full(ROWS, -100)),
}.items():
    CASES[name] = partial(compare, make=make)
    # Every option over every way of spreading the classes and of masking them.
    CASES[f"{name}, uneven"] = partial(compare, make=make, sizes=chunked, num_classes=11)
    CASES[f"{name}, padded"] = partial(compare, make=make, sizes=padded, num_classes=10)
    for mask in (masked_first, masked_here_and_there):
        masks = partial(compare, make=make, edit=mask)
        CASES[f"{name}, {mask.__name__.replace('_', ' ')}"] = masks

CASES["forward correction"] = partial(
    compare, make=lambda g, n: {"formula": ForwardCorrection(), "prior": Prior(vector(g, n), "noise")}
)
CASES["schedule"] = partial(compare, make=given(label_smoothing=warm_up(0.1, steps=0)))
CASES["empty shard"] = partial(compare, sizes=chunked, num_classes=5)
CASES["start is told"] = partial(compare, sizes=lopsided, tells_start=True)
CASES["one valid prior class"] = partial(
    compare, edit=masked_first, make=given(prior=torch.eye(K, dtype=torch.float64)[0])
)
CASES["target masked"] = partial(
    compare, edit=masked_first, make=given(target=torch.zeros(ROWS, dtype=torch.long), reduction="none")
)
CASES["everything masked"] = partial(compare, edit=lambda z: z - torch.inf)
CASES["bfloat16"] = partial(compare, dtypes=(torch.bfloat16, torch.float16))
CASES["offset 1e4"] = partial(compare, edit=lambda z: z + 1e4)
CASES["a shard far below"] = partial(
    compare,
    edit=lambda z: z - 1e4 * (torch.arange(K) < K // dist.get_world_size()),
    make=given(reduction="none"),
)
CASES["a shard far above"] = partial(
    compare,
    edit=lambda z: z + 1e4 * (torch.arange(K) < K // dist.get_world_size()),
    make=given(reduction="none"),
)
CASES["NaN where nothing counts"] = partial(
    compare, edit=a_row_of_nan, make=given(sample_weight=(torch.arange(12).reshape(ROWS) != 6).double())
)


@case
def nan_in_one_shard(generator: torch.Generator) -> None:
    z = torch.randn(*ROWS, 3, generator=generator)
    for bad in (torch.nan, torch.inf):
        if dist.get_rank() == 1:
            z[1, 2, 0] = bad
        z.requires_grad_()
        target = torch.zeros(ROWS, dtype=torch.long)
        loss = vocab_parallel_cross_entropy(z, target, group=None, reduction="none")
        assert loss.isnan().nonzero().tolist() == [[1, 2]]
        (grad,) = torch.autograd.grad(loss.sum(), z)
        assert grad.isnan().any(-1).nonzero().tolist() == [[1, 2]]
        z = z.detach()


@case
def unbatched(generator: torch.Generator) -> None:
    z = torch.randn(K, generator=generator)
    for target in (torch.tensor(5), z.softmax(-1)):
        expected = functional.cross_entropy(z, target, label_smoothing=0.3)
        part = own(z, even(dist.get_world_size(), K))[0]
        found = vocab_parallel_cross_entropy(part, target, group=None, label_smoothing=0.3)
        assert_near(found, expected, 2e-6, "loss")


@case
def gradient_by_everything(generator: torch.Generator) -> None:
    for sizes, n in ((even, K), (chunked, 5)):
        z = torch.randn(*ROWS, n, dtype=torch.float64, generator=generator)
        hard = torch.randint(n, ROWS, generator=generator)
        for target in (hard, soft(generator, n)):
            tensors = [target, class_weight(generator, n), per_row(generator), vector(generator, n)]
            grads: list[list[Tensor]] = []
            for alone in (True, False):
                leaves = [x.clone().requires_grad_(x.is_floating_point()) for x in tensors]
                t, weight, eps, prior = leaves
                if alone:
                    t = t.movedim(-1, 1) if t.is_floating_point() else t
                    loss = functional.cross_entropy(
                        z.movedim(-1, 1), t, weight, label_smoothing=eps, prior=prior
                    )
                else:
                    part = own(z, sizes(dist.get_world_size(), n))[0]
                    loss = vocab_parallel_cross_entropy(
                        part, t, weight, group=None, num_classes=n, label_smoothing=eps, prior=prior
                    )
                loss.backward()
                grads.append([x.grad for x in leaves if x.grad is not None])
            assert len(grads[0]) == len(grads[1]) == 3 + target.is_floating_point()
            for expected, found in zip(*grads, strict=True):
                assert_near_as_vectors(found, expected, 1e-12, "gradient")


@case
def gradient_by_what_is_given_for_each_row(generator: torch.Generator) -> None:
    for sizes, n in ((even, K), (chunked, 5)):
        z = torch.randn(*ROWS, n, dtype=torch.float64, generator=generator)
        labels, few, whole = two_labels(generator, n), few_by_row(generator, n), by_row(generator, n)
        assert isinstance(labels.lam, Tensor)
        for prior in (few, whole):
            grads: list[list[Tensor | None]] = []
            for alone in (True, False):
                leaves = [x.clone().requires_grad_() for x in (labels.lam, prior.probabilities)]
                lam, probabilities = leaves
                target = Mixed(labels.first, labels.second, lam)
                options: Options = {
                    "prior": PerSample(probabilities, prior.classes),
                    "label_smoothing": 0.3,
                    "formula": Focal(gamma=1.0),
                }
                if alone:
                    loss = functional.cross_entropy(z.movedim(-1, 1), target, **classes_second(options))
                else:
                    part = own(z, sizes(dist.get_world_size(), n))[0]
                    loss = vocab_parallel_cross_entropy(part, target, group=None, num_classes=n, **options)
                loss.backward()
                grads.append([x.grad for x in leaves])
            for expected, found in zip(*grads, strict=True):
                assert expected is not None
                assert found is not None
                assert_near_as_vectors(found, expected, 1e-12, "gradient")


@case
def collectives(generator: torch.Generator) -> None:
    """Two all-reduces forward and nothing backward, for every eps."""
    target = torch.randint(K, ROWS, generator=generator)
    of: list[Options] = [{"label_smoothing": eps} for eps in (0.0, 0.1, 1.0)]
    of += [{"z_loss": 0.1}, {"prior": matrix(generator, K).float()}, {"prior": few_by_row(generator, K)}]
    of += [{"formula": ConfidencePenalty()}]
    for options in of:
        z = torch.randn(*ROWS, K // dist.get_world_size(), generator=generator).requires_grad_()
        with CommDebugMode() as forward:
            loss, _ = vocab_parallel_cross_entropy(z, target, group=None, return_nll=True, **options)
        with CommDebugMode() as backward:
            loss.backward()
        assert forward.get_total_counts() == 2, forward.get_comm_counts()
        assert backward.get_total_counts() == 0, backward.get_comm_counts()


@case
def not_twice_differentiable(generator: torch.Generator) -> None:
    z = torch.randn(*ROWS, 3, generator=generator).requires_grad_()
    loss = vocab_parallel_cross_entropy(z, torch.zeros(ROWS, dtype=torch.long), group=None)
    with raises("create_graph must be False", RuntimeError):
        torch.autograd.grad(loss, z, create_graph=True)


@case
def compiled(generator: torch.Generator) -> None:
    """One graph, collectives and all."""
    z = masked_first(torch.randn(*ROWS, K, generator=generator))
    target = torch.randint(K, ROWS, generator=generator)

    def loss(part: Tensor, eps: Tensor) -> Tensor:
        return vocab_parallel_cross_entropy(part, target, group=None, label_smoothing=eps, reduction="none")

    expected, grad = one_process(z, target, {"label_smoothing": 0.1, "reduction": "none"})
    part = own(z, even(dist.get_world_size(), K))[0].requires_grad_()
    found = torch.compile(loss, backend="eager", fullgraph=True)(part, torch.tensor(0.1))
    assert_near(found, expected[0], 2e-6, "loss")
    found.sum().backward()
    assert part.grad is not None
    rest = slice(0, 0) if dist.get_rank() == 0 else slice(None)
    expected = own(grad, even(dist.get_world_size(), K))[0]
    assert_near_as_vectors(part.grad[..., rest], expected[..., rest], 2e-6, "gradient")


@case
def never_readable(generator: torch.Generator) -> None:
    """What runs where values cannot be looked at, on a GPU."""
    readable = sharded.readable
    sharded.readable = lambda *tensors: False
    try:
        compare(generator)
        compare(generator, edit=masked_first)
        compare(generator, edit=masked_first, make=given(target=torch.zeros(ROWS, dtype=torch.long)))
        compare(generator, edit=masked_first, make=given(formula=ConfidencePenalty()))
        compare(generator, edit=masked_first, make=lambda g, n: {"target": two_labels(g, n)})
    finally:
        sharded.readable = readable


@case
def a_group_within_the_group(generator: torch.Generator) -> None:
    """Two data-parallel groups, each over its own rows."""
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (2, world // 2))
    z = torch.randn(2, *ROWS, K, dtype=torch.float64, generator=generator)[mesh.get_local_rank(0)]
    target = torch.randint(K, ROWS, generator=generator)
    part = z.chunk(world // 2, -1)[mesh.get_local_rank(1)].clone().requires_grad_()
    (expected, _), grad = one_process(z, target, {"label_smoothing": 0.1})
    loss = vocab_parallel_cross_entropy(part, target, group=mesh.get_group(1), label_smoothing=0.1)
    assert_near(loss, expected, 1e-12, "loss")
    loss.backward()
    assert part.grad is not None
    expected = grad.chunk(world // 2, -1)[mesh.get_local_rank(1)]
    assert_near_as_vectors(part.grad, expected, 1e-12, "gradient")


@case
def one_class_is_left(generator: torch.Generator) -> None:
    """Nothing can change then: loss and gradient are exactly 0."""
    for name, options in OPTIONS.items():
        for dtype, num_classes in product((torch.float32, torch.float64, torch.bfloat16), (1, K)):
            whole, y = only(num_classes, dtype)
            z, start = own(whole.detach(), chunked(dist.get_world_size(), num_classes))
            z.requires_grad_()
            targets: list[Tensor | Mixed] = [y]
            if name != "matrix":
                targets += [mixed(y, y, 0.3), one_hot(y, num_classes, dtype)]
            for target, eps in product(targets, (0.1, 0.7, 0.999)):
                loss = functional.vocab_parallel_cross_entropy(
                    z,
                    target,
                    group=None,
                    num_classes=num_classes,
                    start=start,
                    label_smoothing=eps,
                    **options(num_classes),
                )
                (grad,) = torch.autograd.grad(loss, z)
                assert loss == 0, (name, dtype, eps, loss)
                assert grad.count_nonzero() == 0, (name, dtype, eps, target, grad)
