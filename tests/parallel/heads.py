"""The linear head with a sharded weight against one process."""

from functools import partial

import torch
import torch.distributed as dist

from labelsmooth import functional
from labelsmooth.parallel import vocab_parallel_linear_cross_entropy

from .harness import (
    CASES,
    ROWS,
    K,
    Options,
    Sizes,
    assert_near,
    assert_near_as_vectors,
    chunked,
    even,
    own,
    padded,
    vector,
)


def linear(generator: torch.Generator, masks: bool, sizes: Sizes, n: int, dtype: torch.dtype) -> None:
    """Loss and all gradients of a head whose weight is sharded."""
    D = 5
    h = torch.randn(*ROWS, D, dtype=torch.float64, generator=generator).to(dtype)
    W = torch.randn(n, D, dtype=torch.float64, generator=generator).to(dtype)
    bias = torch.randn(n, dtype=torch.float64, generator=generator).to(dtype)
    target = torch.randint(n // 2, n, ROWS, generator=generator)
    if masks:
        bias[: n // dist.get_world_size()] = -torch.inf
    options: Options = {"label_smoothing": 0.1, "prior": vector(generator, n), "z_loss": 0.01}
    shards = sizes(dist.get_world_size(), n)
    leaves = [x.clone().requires_grad_() for x in (h, W, bias)]
    whole = torch.nn.functional.linear(*leaves)
    expected = functional.cross_entropy(whole.movedim(-1, 1), target, return_nll=True, **options)
    expected[0].backward()
    parts = [h.clone(), own(W, shards, 0)[0], own(bias, shards)[0]]
    parts = [x.requires_grad_() for x in parts]
    found = vocab_parallel_linear_cross_entropy(
        parts[0],
        parts[1],
        target,
        linear_bias=parts[2],
        group=None,
        num_classes=n,
        return_nll=True,
        **options,
    )
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    assert_near(found[0], expected[0], tolerance, "loss")
    assert_near(found[1], expected[1], tolerance, "nll")
    found[0].backward()
    for name, leaf, part in zip(("input", "weight", "bias"), leaves, parts, strict=True):
        assert leaf.grad is not None, name
        assert part.grad is not None, name
        grad = leaf.grad if name == "input" else own(leaf.grad, shards, 0)[0].nan_to_num(0.0)
        assert_near_as_vectors(part.grad, grad, tolerance, f"gradient by {name}")


for dtype in (torch.float64, torch.float32):
    for sizes, n in ((even, K), (chunked, 11), (padded, 10), (chunked, 5)):
        for masks in (False, True):
            name = f"linear, {dtype}, {sizes.__name__} {n}{', masks' * masks}".replace("torch.", "")
            CASES[name] = partial(linear, masks=masks, sizes=sizes, n=n, dtype=dtype)
