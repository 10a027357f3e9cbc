"""Who counts operations counts the products of a head as they are done, with the kernel and without."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from labelsmooth import functional

linear_cross_entropy: Any = functional.linear_cross_entropy
N, D, K = 300, 16, 50
COMMON = {"sum": 3, "mean": 3, "none": 4}  # "none" makes the logits again in the backward pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "options",
    [{}, {"softcap": 5.0}, {"scale": 0.5}, {"linear_bias": True}],
    ids=["plain", "cap", "scale", "bias"],
)
@pytest.mark.parametrize("asked", ["both", "input", "weight", "neither"])
@pytest.mark.parametrize("reduction", COMMON)
@pytest.mark.parametrize("chunk", [N, 70])
def test_flops(chunk: int, reduction: str, asked: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    h = torch.randn(N, D, dtype=dtype, requires_grad=asked in ("both", "input"))
    W = torch.randn(K, D, dtype=dtype, requires_grad=asked in ("both", "weight"))
    y = torch.arange(N) % K
    if "linear_bias" in options:
        options = {"linear_bias": torch.zeros(K, dtype=dtype)}
    options = options | {"options": torch.nn.LinearCrossEntropyOptions(batch_chunk_size=chunk)}
    with FlopCounterMode(display=False) as counter:
        loss = linear_cross_entropy(h, W, y, label_smoothing=0.1, reduction=reduction, **options)
        if asked != "neither":
            loss.sum().backward()
    expected = {"both": COMMON[reduction], "neither": 1}.get(asked, COMMON[reduction] - 1)
    assert counter.get_total_flops() == expected * 2 * N * D * K


@pytest.mark.parametrize("reduction", COMMON)
def test_gradients_under_a_mode(reduction: str) -> None:
    """Of somebody who only watches: the same as without."""

    def gradients() -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        h, W = torch.randn(N, D, requires_grad=True), torch.randn(K, D, requires_grad=True)
        loss = linear_cross_entropy(h, W, torch.arange(N) % K, label_smoothing=0.1, reduction=reduction)
        return torch.autograd.grad(loss.sum(), (h, W))

    expected = gradients()
    with FlopCounterMode(display=False):
        found = gradients()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("reduction", COMMON)
def test_a_graph_holds_the_head(reduction: str) -> None:
    """What is recorded serves other logits: nothing that the kernel does is left out of it."""

    def step(h: torch.Tensor, W: torch.Tensor) -> tuple[torch.Tensor, ...]:
        h, W = h.detach().requires_grad_(), W.detach().requires_grad_()
        loss = linear_cross_entropy(h, W, torch.arange(N) % K, label_smoothing=0.1, reduction=reduction)
        return loss.detach(), *torch.autograd.grad(loss.sum(), (h, W))

    first, second = ((torch.randn(N, D), torch.randn(K, D)) for _ in range(2))
    torch.testing.assert_close(make_fx(step)(*first)(*second), step(*second))


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("LABELSMOOTH_NATIVE") == "0", reason="is without the kernel already")
def test_without_the_kernel() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", __file__]
    environment = os.environ | {"LABELSMOOTH_NATIVE": "0", "PYTEST_ADDOPTS": ""}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
