"""Every loss compiles, whole and in parts, to its own number and gradient: what the claim of a version of
torch rests on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import labelsmooth
from labelsmooth import functional, mixed, priors
from labelsmooth.formulas import MaxSup

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy
generator = torch.Generator().manual_seed(0)
Z, H, W = (torch.randn(shape, generator=generator) for shape in ((8, 10), (8, 4), (10, 4)))
Y = torch.randint(10, (8,), generator=generator)
WEIGHT = torch.linspace(0.3, 1.7, 10)
CRITERION = labelsmooth.CrossEntropyLoss(WEIGHT, label_smoothing=0.1)
LOSSES: dict[str, Callable[..., Tensor]] = {
    "a number": lambda z, h, W, y: cross_entropy(z, y, label_smoothing=0.1),
    "a tensor": lambda z, h, W, y: cross_entropy(z, y, label_smoothing=torch.full((8,), 0.1)),
    "weight": lambda z, h, W, y: cross_entropy(z, y, WEIGHT, label_smoothing=0.1, z_loss=0.01),
    "prior": lambda z, h, W, y: cross_entropy(z, y, label_smoothing=0.1, prior=WEIGHT / WEIGHT.sum()),
    "teacher": lambda z, h, W, y: cross_entropy(z, y, label_smoothing=0.1, prior=priors.teacher(z, k=3)),
    "mixed": lambda z, h, W, y: cross_entropy(z, mixed(y, y.flip(0), 0.3), label_smoothing=0.1),
    "MaxSup": lambda z, h, W, y: cross_entropy(z, y, label_smoothing=0.1, formula=MaxSup()),
    "label_smoothing_loss": lambda z, h, W, y: functional.label_smoothing_loss(z, y, 0.1),
    "module": lambda z, h, W, y: CRITERION(z, y),
    "linear": lambda z, h, W, y: linear_cross_entropy(h, W, y, label_smoothing=0.1),
    "smoothing_term": lambda z, h, W, y: functional.smoothing_term(h, W, y),
    "binary": lambda z, h, W, y: functional.binary_cross_entropy_with_logits(
        z, (z > 0).float(), label_smoothing=0.1
    ),
}


@pytest.mark.parametrize("fullgraph", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_compiles(name: str, fullgraph: bool) -> None:
    torch.compiler.reset()
    loss = LOSSES[name]
    leaves = [x.clone().requires_grad_() for x in (Z, H, W)]
    compiled = torch.compile(loss, fullgraph=fullgraph, backend="aot_eager")
    found, expected = compiled(*leaves, Y), loss(*leaves, Y)
    assert_close(found, expected)
    both = [torch.autograd.grad(x.sum(), leaves, allow_unused=True) for x in (found, expected)]
    assert_close(both[0], both[1])
