"""A counter of operations sees the products of a head that are made, in every reduction."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from labelsmooth import functional
from labelsmooth.engines import available

linear_cross_entropy: Any = functional.linear_cross_entropy  # which takes options from a dictionary here
N, D, K = 64, 32, 100
PRODUCT = 2 * N * D * K


@pytest.mark.skipif(not available()["dense"].present, reason=str(available()["dense"]))
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("reduction", "grad", "products"),
    [
        ("mean", True, 3),  # the logits, and the gradients by input and weight
        ("sum", True, 3),
        ("none", True, 4),  # the logits twice
        ("mean", False, 1),
        ("none", False, 1),
    ],
)
def test_products(reduction: str, grad: bool, products: int, bias: bool) -> None:
    h, W, b = (torch.randn(shape, requires_grad=True) for shape in ((N, D), (K, D), (K,)))
    y = torch.randint(K, (N,))
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(grad):
        loss = linear_cross_entropy(
            h, W, y, linear_bias=b if bias else None, label_smoothing=0.1, reduction=reduction
        )
        if grad:
            loss.sum().backward()
    assert counter.get_total_flops() == products * PRODUCT


def test_whole_logits() -> None:
    h, W = torch.randn(N, D, requires_grad=True), torch.randn(K, D, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        linear_cross_entropy(h, W, torch.randint(K, (N,)), engine="reference").backward()
    assert counter.get_total_flops() == 3 * PRODUCT
