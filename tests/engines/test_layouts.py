"""The dense engine reads rows where they lie, whatever the layout, and may write where it read."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.cases import kernel, random
from tests.engines.private import (
    BLOCK,
    DIFFERENTIABLE,
    DTYPES,
    KINDS,
    Kind,
    Measures,
    answers,
    compute_dtype,
    cross_entropy,
    dense,
    in_rows,
)

pytestmark = kernel

# Views whose rows the kernel reads where they lie.
VIEWS: dict[str, Callable[[], Tensor]] = {
    "contiguous": lambda: random(6, 40),
    "sliced classes": lambda: random(6, 50)[:, :-10],
    "offset": lambda: random(8, 50)[1:-1, 7:47],
    "every other row": lambda: random(12, 40)[::2],
    "expanded": lambda: random(1, 40).expand(6, 40),
    "expanded inside": lambda: random(2, 1, 40).expand(2, 3, 40),
    "expanded outside": lambda: random(3, 40).expand(2, 3, 40),
    "transposed rows": lambda: random(3, 2, 40).transpose(0, 1),
    "shifted tokens": lambda: random(2, 4, 40)[:, :-1],
    "shifted tokens, sliced classes": lambda: random(2, 4, 50)[:, 1:, 3:43],
    "every other token": lambda: random(2, 6, 41)[:, ::2, 1:],
    "channels last": lambda: random(2, 40, 3, 5).contiguous(memory_format=torch.channels_last).movedim(1, -1),
    "one row": lambda: random(5, 40, 9)[2:3].transpose(1, 2)[:, 4:5].contiguous()[..., :39],
    "one dimension": lambda: random(50)[5:45],
    "one class": lambda: random(6, 4)[:, 2:3],
    "three dimensions that merge": lambda: random(2, 3, 4, 50)[..., :40],
}
# And those that it cannot.
COPIED: dict[str, Callable[[], Tensor]] = {
    "classes first": lambda: random(40, 6).T,
    "every other class": lambda: random(6, 80)[:, ::2],
    "expanded classes": lambda: random(6, 1).expand(6, 40),
    "channels first": lambda: random(2, 40, 3, 5).movedim(1, -1),
    "three dimensions": lambda: random(3, 4, 5, 40)[:, :-1, :-1],
}


def assert_layout_does_not_matter(view: Tensor) -> None:
    K = view.size(-1)
    target = torch.arange(view[..., 0].numel()).reshape(view.shape[:-1]) % K
    # A target's layout does not matter either.
    target = torch.stack([target, target], dim=-1)[..., 0]
    counted = target != 1
    grad = random(DIFFERENTIABLE, *target.shape, 2)[..., 0]
    weight = torch.stack([random(K).abs()] * 2, dim=-1)[:, 0]
    prior = torch.stack([random(K).softmax(-1)] * 2, dim=-1)[:, 0]
    for dtype in (torch.float64, torch.float32):
        memory = view.as_strided((view.untyped_storage().nbytes() // 8,), (1,), 0).to(dtype)
        z = memory.as_strided(view.size(), view.stride(), view.storage_offset())
        measures = Measures(target, counted, prior.to(dtype), weight.to(dtype))
        ours = answers(dense, z, measures, grad.to(dtype))
        plain = answers(dense, z.contiguous(), measures, grad.to(dtype))
        assert ours[0].equal(plain[0])
        assert ours[1].equal(plain[1])


@pytest.mark.parametrize("layout", VIEWS)
def test_rows_are_read_where_they_lie(layout: str) -> None:
    z = VIEWS[layout]()
    read, *_ = in_rows(z)
    assert read.data_ptr() == z.data_ptr()
    assert_layout_does_not_matter(z)


@pytest.mark.parametrize("layout", COPIED)
def test_scattered_rows_are_copied(layout: str) -> None:
    z = COPIED[layout]()
    read, *_ = in_rows(z)
    assert read.is_contiguous()
    assert_layout_does_not_matter(z)


# (B, T, V) as a model gives it, to a loss that wants (B, V, T); images; a language model's shifted tokens.
CLASS_SECOND: dict[str, Callable[[Tensor], Tensor]] = {
    "tokens": lambda z: z.transpose(1, 2),
    "shifted": lambda z: z[:, :-1].transpose(1, 2),
    "image": lambda z: z.unflatten(1, (3, 2)).permute(0, 3, 1, 2),
    "copied": lambda z: z.transpose(1, 2).contiguous(),
    "rows": lambda z: z.flatten(0, 1),
}


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("view", CLASS_SECOND)
def test_class_dimension(view: str, reduction: str) -> None:
    z = random(4, 6, 20).requires_grad_()
    shown = CLASS_SECOND[view](z)
    target = torch.arange(shown[:, 0].numel()).reshape(shown[:, 0].shape) % 20
    options: dict[str, Any] = {"label_smoothing": 0.1, "reduction": reduction, "ignore_index": 3}
    ours = cross_entropy(shown, target, engine="dense", **options)
    theirs = F.cross_entropy(shown, target, **options)
    torch.testing.assert_close(ours, theirs)
    direction = torch.ones_like(ours).cumsum(0)
    torch.testing.assert_close(
        torch.autograd.grad(ours, z, direction), torch.autograd.grad(theirs, z, direction)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_gradient_in_place_of_the_logits(kind: Kind, dtype: torch.dtype) -> None:
    z = random(6, BLOCK + 6).to(dtype) if kind.prior != "matrix" else random(6, 20).to(dtype)
    measures = kind.measures(z)
    grad = random(DIFFERENTIABLE, 6).to(compute_dtype(z))
    statistics, expected = answers(dense, z, measures, grad)
    assert dense.backward(grad, z, measures, statistics, out=z) is z
    assert z.equal(expected)


@pytest.mark.parametrize(
    "part",
    [lambda x: x[:, :-1], lambda x: x[:, ::2], lambda x: x.T],
    ids=["fewer", "every other", "transposed"],
)
def test_gradient_in_place_of_logits_among_others(part: Callable[[Tensor], Tensor]) -> None:
    whole = random(6, 8)
    z = part(whole)
    measures = Kind(False, None, False, False).measures(z)
    grad = random(DIFFERENTIABLE, len(z))
    statistics, expected = answers(dense, z, measures, grad)
    before = whole.clone()
    part(before).copy_(expected)
    assert dense.backward(grad, z, measures, statistics, out=z) is z
    assert whole.equal(before)
