"""The linear head with a sharded weight against one process."""

from functools import partial

import torch
import torch.distributed as dist
from torch.distributed.tensor.debug import CommDebugMode

from labelsmooth import functional
from labelsmooth._engines import linear as engine
from labelsmooth._engines.linear import HeadEngine
from labelsmooth.formulas import ConfidencePenalty
from labelsmooth.functional import vocab_parallel_linear_cross_entropy

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
    matrix,
    own,
    padded,
    soft,
    two_labels,
    vector,
)

D = 5


def linear(
    generator: torch.Generator,
    masks: bool = False,
    sizes: Sizes = even,
    num_classes: int = K,
    make: Make = lambda generator, K: {},
    scale: float | None = None,
    softcap: float | None = None,
    by: HeadEngine | None = None,
) -> None:
    """Loss and all gradients of a head whose weight is sharded."""
    world = dist.get_world_size()
    head = [
        torch.randn(shape, dtype=torch.float64, generator=generator)
        for shape in ((*ROWS, D), (num_classes, D), (num_classes,))
    ]
    if masks:
        head[2][: num_classes // world] = -torch.inf
    options: Options = {"label_smoothing": 0.1, "reduction": "none", **make(generator, num_classes)}
    target = options.pop("target", torch.randint(num_classes // 2, num_classes, ROWS, generator=generator))
    shards = sizes(world, num_classes)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
        leaves = [x.to(dtype, copy=True).requires_grad_() for x in head]
        z = torch.nn.functional.linear(*leaves)
        z = z if scale is None else scale * z
        z = z if softcap is None else softcap * (z / softcap).tanh()
        expected = functional.cross_entropy(
            z.movedim(-1, 1), classes_second(target), return_nll=True, **classes_second(options)
        )
        expected[0].sum().backward()
        parts = (head[0], own(head[1], shards, 0)[0], own(head[2], shards)[0])
        parts = [x.to(dtype, copy=True).requires_grad_() for x in parts]
        found = vocab_parallel_linear_cross_entropy(
            parts[0],
            parts[1],
            target,
            linear_bias=parts[2],
            scale=scale,
            softcap=softcap,
            engine=by,
            group=None,
            num_classes=num_classes,
            return_nll=True,
            **options,
        )
        for name, x, e in zip(("loss", "nll"), found, expected, strict=True):
            assert_near(x, e, tolerance, f"{name} in {dtype}")
        found[0].sum().backward()
        for name, leaf, part in zip(("input", "weight", "bias"), leaves, parts, strict=True):
            assert leaf.grad is not None, name
            assert part.grad is not None, name
            grad = leaf.grad if name == "input" else own(leaf.grad, shards, 0)[0].nan_to_num(0.0)
            assert_near_as_vectors(part.grad, grad, tolerance, f"gradient by {name} in {dtype}")


for sizes, n in ((even, K), (chunked, 11), (padded, 10), (chunked, 5)):
    for masks in (False, True):
        CASES[f"linear, {sizes.__name__} {n}{', masks' * masks}"] = partial(
            linear, masks=masks, sizes=sizes, num_classes=n, make=lambda g, n: {"prior": vector(g, n)}
        )
for name, make in {
    "mean": given(reduction="mean", z_loss=0.1),
    "weight": lambda g, n: {"target": ignoring(g, n), "weight": class_weight(g, n)},
    "prior by class": lambda g, n: {"prior": matrix(g, n)},
    "class probabilities": lambda g, n: {"target": soft(g, n)},
    "mixed labels": lambda g, n: {"target": two_labels(g, n), "weight": class_weight(g, n)},
    "prior by row": lambda g, n: {"prior": by_row(g, n)},
    "few classes by row": lambda g, n: {"prior": few_by_row(g, n), "off_target": "others"},
    "confidence penalty": given(formula=ConfidencePenalty()),
    "gradient by the prior": lambda g, n: {"prior": vector(g, n).requires_grad_()},
}.items():
    CASES[f"linear, {name}"] = partial(linear, make=make)
CASES["linear, by the reference"] = partial(linear, masks=True, by="reference")
CASES["linear, by the linear engine"] = partial(linear, by="linear")
CASES["linear, confidence penalty over masks"] = partial(
    linear, masks=True, make=given(formula=ConfidencePenalty())
)
CASES["linear, softcap"] = partial(linear, softcap=2.0)
CASES["linear, scale"] = partial(linear, scale=0.3)
CASES["linear, scale and softcap"] = partial(linear, scale=0.3, softcap=2.0)
CASES["linear, softcap over masks"] = partial(linear, softcap=2.0, masks=True)


@case
def linear_in_chunks(generator: torch.Generator) -> None:
    budget, least = engine.BUDGET, engine.LEAST
    engine.BUDGET, engine.LEAST = 1, 5
    try:
        linear(generator, make=given(reduction="mean"))
    finally:
        engine.BUDGET, engine.LEAST = budget, least


@case
def linear_without_bias(generator: torch.Generator) -> None:
    h, W = (torch.randn(n, D, generator=generator) for n in (7, K))
    target = torch.randint(K, (7,), generator=generator)
    part = own(W, even(dist.get_world_size(), K), 0)[0]
    expected = functional.cross_entropy(h @ W.T, target, label_smoothing=0.1)
    found = vocab_parallel_linear_cross_entropy(h, part, target, group=None, label_smoothing=0.1)
    assert_near(found, expected, 2e-6, "loss")


@case
def linear_collectives(generator: torch.Generator) -> None:
    """Backward there is one all-reduce, of the gradient by the input, if it is asked for."""
    target = torch.randint(K, ROWS, generator=generator)
    for asked in (False, True):
        h = torch.randn(*ROWS, D, generator=generator).requires_grad_(asked)
        W = torch.randn(K // dist.get_world_size(), D, generator=generator).requires_grad_()
        with CommDebugMode() as forward:
            loss = vocab_parallel_linear_cross_entropy(h, W, target, group=None, label_smoothing=0.1)
        with CommDebugMode() as backward:
            loss.backward()
        assert forward.get_total_counts() == 2, forward.get_comm_counts()
        assert backward.get_total_counts() == asked, backward.get_comm_counts()
