"""What is recorded of logits that are not made, and what makes them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

from labelsmooth.integrations.transformers._lazy import LazyLogits

generator = torch.Generator().manual_seed(3)
H, W, B, C = (
    torch.randn(*s, generator=generator, dtype=torch.float64) for s in [(2, 3, 4), (5, 4), (5,), (1, 5)]
)
Change = Callable[[Tensor], Tensor]
RECORDED: dict[str, Change] = {
    "a factor": lambda z: z * 0.25,
    "a factor from the left": lambda z: 3 * z,
    "a divisor": lambda z: z / 7.0,
    "a soft cap": lambda z: (z / 3.0).tanh() * 3.0,
    "another soft cap": lambda z: 3.0 * torch.tanh(z / 3.0),
    "a scaled soft cap": lambda z: torch.tanh(z * 0.5 / 3.0) * 6.0,
    "a bias": lambda z: z + C,
    "a bias after a factor": lambda z: z * 0.5 + C,
    "a bias and a cap": lambda z: torch.tanh((z + C) / 2.0) * 2.0,
    "another type": lambda z: z.to(torch.float64).contiguous(),
    "two factors": lambda z: z.mul(2.0).div(5.0),
}
MADE: dict[str, Change] = {
    "a slice": lambda z: z[:, :-1],
    "a factor below 0": lambda z: -0.5 * z,
    "a factor of 0": lambda z: z * 0.0,
    "a view": lambda z: z.view(-1, 5),
    "a factor for each class": lambda z: z * C,
    "a bias after a soft cap": lambda z: z.tanh() + C,
    "a bias for each row": lambda z: z + torch.ones(2, 3, 1),
    "two soft caps": lambda z: z.tanh().tanh(),
    "a softmax": lambda z: z.softmax(-1),
    "a concatenation": lambda z: torch.cat([z, z]),
    "a transpose": lambda z: z.mT,
    "a keyword": lambda z: torch.argmax(z, dim=-1),
    "its numbers": lambda z: torch.tensor(z.tolist(), dtype=torch.float64),
    "a copy": lambda z: z.clone(),
    "a longer type": lambda z: z.double(),
    "a detached one": lambda z: z.detach(),
    "its place on the right": lambda z: C - z,
}


@pytest.mark.parametrize("bias", [None, B], ids=["no bias", "bias"])
@pytest.mark.parametrize("name", RECORDED)
def test_recorded(name: str, bias: Tensor | None) -> None:
    change = RECORDED[name]
    lazy, whole = change(LazyLogits(H, W, bias)), change(F.linear(H, W, bias))
    assert isinstance(lazy, LazyLogits)
    assert (lazy.shape, lazy.dtype, lazy.device) == (whole.shape, whole.dtype, whole.device)
    torch.testing.assert_close(lazy.made(), whole)
    head = lazy.head()
    assert head.hidden is H
    z, cap = F.linear(head.hidden, head.weight, head.bias), head.softcap
    z = z if head.scale is None else head.scale * z
    torch.testing.assert_close(z if cap is None else cap * (z / cap).tanh(), whole)


@pytest.mark.parametrize("name", MADE)
def test_made(name: str) -> None:
    change = MADE[name]
    found = change(LazyLogits(H, W, B))
    assert type(found) is Tensor
    torch.testing.assert_close(found, change(F.linear(H, W, B)))


def test_a_soft_cap_is_no_factor() -> None:
    assert RECORDED["a soft cap"](LazyLogits(H, W, None)).head().scale is None  # pyright: ignore


def test_types() -> None:
    lazy = LazyLogits(H.bfloat16(), W.bfloat16(), None)
    assert lazy.dtype == torch.bfloat16
    assert lazy.float().dtype == lazy.float().made().dtype == torch.float32  # pyright: ignore
    with torch.autocast("cpu", torch.bfloat16):
        assert LazyLogits(H.float(), W.float(), None).dtype == torch.bfloat16
    assert (lazy.size(-1), lazy.dim(), lazy.numel(), len(lazy), lazy.is_floating_point()) == (
        5,
        3,
        30,
        2,
        True,
    )


def test_logits_that_are_looked_at_have_a_gradient() -> None:
    h, w = H.clone().requires_grad_(), W.clone().requires_grad_()
    (LazyLogits(h, w, None) * 2.0)[:, 1].sum().backward()
    assert w.grad is not None
    torch.testing.assert_close(w.grad, 2 * H[:, 1].sum(0).expand(5, 4))
