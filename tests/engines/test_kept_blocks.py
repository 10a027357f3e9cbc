"""How much memory is kept, in which processes and modes, and of which heads."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from labelsmooth._engines import kept
from labelsmooth.engines import empty_cache, memory_reserved
from tests.cases import needs_chunks
from tests.engines.large import (
    LARGE,
    NBYTES,
    K,
    N,
    Y,
    cross_entropy,
    gradient,
    is_reused,
    linear_cross_entropy,
    logits,
)

pytestmark = LARGE


def run(code: str, **environment: str) -> str:
    code = f"""
import os, torch
from labelsmooth.engines import empty_cache, memory_reserved
from labelsmooth.functional import cross_entropy

def gradient(value=0.0):
    z = torch.full(({N}, {K}), value)
    z[:, 3:9] = 2.0
    z.requires_grad_()
    return torch.autograd.grad(cross_entropy(z, torch.arange({N}), label_smoothing=0.1), z)[0]
{code}"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


FORK = """
held, expected = gradient(1.0), gradient(3.0).clone()
for _ in range(3):
    if not (child := os.fork()):
        torch.set_num_threads(1)
        fine = all(gradient(3.0).equal(expected) for _ in range(3)) and memory_reserved()
        os._exit(not fine)
    fine = gradient(3.0).equal(expected)
    assert os.waitpid(child, 0)[1] == 0
    assert fine
empty_cache()
assert held.equal(gradient(1.0))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_fork() -> None:
    run(FORK)


def test_the_interpreter_exits() -> None:
    assert run("held, _ = gradient(), gradient(); print(memory_reserved())") == str(NBYTES)


def test_is_switched_off() -> None:
    assert run("gradient(); print(memory_reserved())", LABELSMOOTH_KEEP_MEMORY="0") == "0"


def test_emptied_while_a_gradient_is_there() -> None:
    found = gradient(1.0)
    expected, at = found.clone(), found.data_ptr()
    empty_cache()
    assert memory_reserved() == 0
    second = gradient(2.0)
    assert second.data_ptr() != at
    assert found.equal(expected)


def test_small_gradients_are_not_kept() -> None:
    z = torch.zeros(N, K - 1, requires_grad=True)
    cross_entropy(z, Y, label_smoothing=0.1).backward()
    assert memory_reserved() == 0


def test_least_recently_used_memory_is_freed_first() -> None:
    like = torch.empty(0, dtype=torch.uint8)
    third = kept.most() // 3 - 9  # is never written to, so it takes no memory
    addresses = [kept.new_empty(like, (third + i,)).data_ptr() for i in range(3)]
    assert memory_reserved() <= kept.most()
    assert kept.new_empty(like, (third,)).data_ptr() == addresses[0]
    kept.new_empty(like, (third + 3,))  # takes the place of the second
    assert memory_reserved() == 3 * third + 5
    assert kept.new_empty(like, (third,)).data_ptr() == addresses[0]
    assert kept.new_empty(like, (third + 2,)).data_ptr() == addresses[2]
    empty_cache()
    kept.new_empty(like, (kept.most() + 1,))
    assert memory_reserved() == 0


def test_few_shapes_are_kept() -> None:
    like = torch.empty(0, dtype=torch.uint8)
    for i in range(kept.MOST_BLOCKS + 3):
        kept.new_empty(like, (NBYTES + i,))
    assert memory_reserved() <= kept.MOST_BLOCKS * (NBYTES + kept.MOST_BLOCKS + 3)


def test_share_of_the_machine() -> None:
    assert kept.most() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 16


def head() -> tuple[Tensor, Tensor]:
    """Input and weight; a chunk of 32 MiB, and a gradient of the weight of 64 MiB in a layout of its own."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(N, 128, generator=generator), torch.randn(128, K, generator=generator).T
    return hidden.requires_grad_(), weight.requires_grad_()


@needs_chunks
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_head(reduction: str) -> None:
    hidden, weight = head()

    def step() -> tuple[Tensor, Tensor]:
        loss = linear_cross_entropy(hidden, weight, Y, label_smoothing=0.1, reduction=reduction).mean()
        by_input, by_weight = torch.autograd.grad(loss, [hidden, weight])
        return by_input, by_weight

    expected = [x.clone() for x in step()]
    for _ in range(3):
        found = step()
        assert all(x.equal(y) for x, y in zip(found, expected, strict=True))
        assert found[1].stride() == weight.stride()
    assert memory_reserved() == NBYTES + weight.nbytes
    assert is_reused(lambda: step()[1])
    rows = weight.detach().contiguous().requires_grad_()
    loss = linear_cross_entropy(hidden, rows, Y, label_smoothing=0.1, reduction=reduction).mean()
    assert torch.autograd.grad(loss, rows)[0].stride() == rows.stride()
    (linear_cross_entropy(hidden, weight, Y) + linear_cross_entropy(hidden, weight, Y)).backward()
    assert weight.grad is not None
    first = weight.grad.clone()
    linear_cross_entropy(hidden, weight, Y).backward()
    assert_close(weight.grad, 1.5 * first)


@needs_chunks
def test_inference_mode() -> None:
    hidden, weight = head()
    with torch.inference_mode():
        loss = linear_cross_entropy(hidden, weight, Y)
    assert memory_reserved() == NBYTES
    linear_cross_entropy(hidden, weight, Y).backward()
    assert weight.grad is not None
    assert not weight.grad.is_inference()
    with torch.inference_mode():
        found = kept.new_empty(hidden, (N, K))
        assert found.is_inference()
        at = found.data_ptr()
        del found
    found = gradient()
    assert found.data_ptr() == at
    assert not found.is_inference()
    assert (found * torch.ones((), requires_grad=True)).requires_grad
    assert_close(loss, linear_cross_entropy(hidden, weight, Y).detach())


@needs_chunks
def test_nothing_is_kept_of_fake_tensors() -> None:
    with FakeTensorMode():
        y = torch.zeros(N, dtype=torch.long)
        hidden, weight, z = (torch.zeros(*s, requires_grad=True) for s in ((N, 3), (K, 3), (N, K)))
        for loss in (linear_cross_entropy(hidden, weight, y), cross_entropy(z, y)):
            loss.backward()
    assert memory_reserved() == 0


class Passing(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@needs_chunks
def test_nothing_is_kept_of_what_a_mode_may_replace() -> None:
    hidden, weight = head()
    with Passing():
        linear_cross_entropy(hidden, weight, Y).backward()
    assert memory_reserved() == 0
    found = gradient(1.0)
    with Passing():
        assert gradient(1.0).equal(found)


def test_compiled() -> None:
    compiled = torch.compile(
        lambda z: cross_entropy(z, Y, label_smoothing=0.1), fullgraph=True, backend="aot_eager"
    )

    def make(value: float = 1.0) -> Tensor:
        z = logits(value)
        return torch.autograd.grad(compiled(z), z)[0]

    expected = gradient(1.0).clone()
    held = make()
    other = make(2.0)
    assert held.data_ptr() != other.data_ptr()
    assert_close(held, expected)
    del held, other
    assert is_reused(make)
    assert_close(make(), expected)


def test_transformed() -> None:
    gradient()
    found = torch.func.grad(lambda z: cross_entropy(z, Y, label_smoothing=0.1))(logits(1.0).detach())
    assert_close(found, gradient(1.0))


def test_deterministic_fill() -> None:
    expected = gradient(1.0).clone()
    torch.use_deterministic_algorithms(True)
    try:
        assert gradient(1.0).equal(expected)
    finally:
        torch.use_deterministic_algorithms(False)


class Named(Tensor):
    pass


@needs_chunks
def test_gradients_of_a_subclass_are_of_one_type() -> None:
    z = logits().as_subclass(Named)
    hidden, weight = (x.detach().as_subclass(Named).requires_grad_() for x in head())
    assert len({type(gradient(z=z)) for _ in range(3)}) == 1
    for reduction in ("mean", "none"):
        loss = linear_cross_entropy(hidden, weight, Y, reduction=reduction).sum()
        kinds = {type(torch.autograd.grad(loss, weight, retain_graph=True)[0]) for _ in range(3)}
        assert len(kinds) == 1
