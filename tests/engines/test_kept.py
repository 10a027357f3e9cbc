"""The memory of a gradient is used again after the gradient has died, and nobody can see it."""

import copy
import ctypes
import gc
import io
import pickle
import queue
import weakref
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from labelsmooth import priors
from labelsmooth._engines import kept
from labelsmooth.engines import empty_cache, memory_reserved
from tests.engines.large import (
    LARGE,
    NBYTES,
    K,
    N,
    Y,
    cross_entropy,
    gradient,
    is_reused,
    logits,
)
from tests.test_memory import allocations

pytestmark = LARGE


FEW = priors.per_sample(torch.ones(N, 2), torch.arange(2 * N).view(N, 2))


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        ({"reduction": "none"}, torch.float32),
        ({"weight": torch.ones(K)}, torch.float32),
        ({"prior": FEW}, torch.float32),
        ({"prior": FEW}, torch.float64),
    ],
    ids=["at once", "none", "weight", "few", "double"],
)
def test_a_dead_gradient_is_reused(options: dict[str, Any], dtype: torch.dtype) -> None:
    z = logits(1.0, dtype)
    expected = gradient(z=z, **options).clone()
    empty_cache()
    assert is_reused(lambda: gradient(z=z, **options))
    assert memory_reserved() == z.nbytes
    assert gradient(z=z, **options).equal(expected)


def test_half_precision_is_reused() -> None:
    z = torch.zeros(2 * N, K, dtype=torch.bfloat16, requires_grad=True)
    prior = priors.per_sample(torch.ones(2 * N, 2), torch.arange(4 * N).view(2 * N, 2))
    y = torch.arange(2 * N)
    assert is_reused(lambda: torch.autograd.grad(cross_entropy(z, y, prior=prior, label_smoothing=0.1), z)[0])


@pytest.mark.parametrize("weight", [None, torch.ones(32)], ids=["at once", "operator"])
def test_maps_are_reused_in_their_layout(weight: Tensor | None) -> None:
    z, y = torch.zeros(1, 32, 512, 512, requires_grad=True), torch.zeros(1, 512, 512, dtype=torch.long)

    def make() -> Tensor:
        return torch.autograd.grad(cross_entropy(z, y, weight, label_smoothing=0.1), z)[0]

    assert is_reused(make)
    assert make().stride() == z.stride()


class Saved:
    """An autograd graph that holds the gradient."""

    def __init__(self, x: Tensor) -> None:
        self.product = x * torch.ones((), requires_grad=True)


class Cycle:
    def __init__(self, x: Tensor) -> None:
        self.x, self.cycle = x, self


HOLDERS: dict[str, Callable[[Tensor], Any]] = {
    "itself": lambda x: x,
    "detached": lambda x: x.detach(),
    "view": lambda x: x[1:, 3],
    "storage": lambda x: x.untyped_storage(),
    "typed storage": lambda x: x.storage(),
    "numpy": lambda x: x.numpy(),
    "numpy view": lambda x: x.numpy()[::2],
    "memoryview": lambda x: np.asarray(x.numpy()).data,
    "from numpy": lambda x: torch.from_numpy(x.numpy()),
    "DLPack": lambda x: x.__dlpack__(),
    "closure": lambda x: lambda: x,
    "graph": Saved,
    "parameter": nn.Parameter,
    "cycle": Cycle,
    "set_": lambda x: torch.empty(0).set_(x.untyped_storage()),
    "weak reference": lambda x: weakref.ref(x.untyped_storage()),
    "lazy clone": lambda x: x._lazy_clone(),  # shares the memory until either is written
}


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("of", HOLDERS)
def test_what_somebody_holds_is_not_reused(of: str) -> None:
    for _ in range(2):  # in new memory, and in kept memory
        found = gradient(1.0)
        expected, at = found.clone(), found.data_ptr()
        if of == "lazy clone":
            held = HOLDERS[of](found)
            assert_close(held, expected)
            del found
            gradient(2.0)
            assert held.equal(expected)
            continue
        held = HOLDERS[of](found)
        del found
        second = gradient(2.0)
        if of == "weak reference":
            dead = held() is None  # pytest would print each byte of a storage
            assert dead
        else:
            there = (ctypes.c_char * NBYTES).from_address(at)
            assert torch.frombuffer(there, dtype=torch.float32).view(N, K).equal(expected)
        assert not second.equal(expected)
        assert is_reused(gradient)
        del held
        gc.collect()
        assert memory_reserved() == NBYTES


def test_what_another_thread_holds_is_not_reused() -> None:
    into: queue.Queue[Tensor] = queue.Queue()
    out: queue.Queue[Tensor] = queue.Queue()

    def hold() -> None:
        held = into.get()
        out.put(held.sum())
        into.get()
        out.put(held.sum())

    thread = Thread(target=hold)
    thread.start()
    into.put(gradient(1.0))
    before = out.get()
    second = gradient(2.0)
    into.put(second)
    assert out.get().equal(before)
    thread.join()
    assert second.equal(gradient(2.0))


def test_a_gradient_that_dies_in_another_thread_is_reused() -> None:
    holder = [gradient(1.0)]
    at = holder[0].data_ptr()
    thread = Thread(target=holder.clear)
    thread.start()
    thread.join()
    in_between = torch.empty(N, K)
    assert gradient(2.0).data_ptr() == at != in_between.data_ptr()


def test_autograd_takes_the_gradient_as_it_is() -> None:
    z, seen = logits(1.0), list[int]()
    z.register_hook(lambda grad: seen.append(grad.data_ptr()))
    expected = gradient(1.0).clone()
    for total in (1, 2, 3):
        cross_entropy(z, Y, label_smoothing=0.1).backward()
        assert z.grad is not None
        assert z.grad.data_ptr() == seen[0]
        assert_close(z.grad, total * expected)
    assert seen[0] not in seen[1:]
    z.grad = None
    cross_entropy(z, Y, label_smoothing=0.1).backward()
    assert_close(z.grad, expected)


def test_logits_that_are_used_twice() -> None:
    leaf = logits(1.0)
    z = leaf * 1.0
    loss = cross_entropy(z, Y, label_smoothing=0.1) + 2 * cross_entropy(z, Y, label_smoothing=0.1)
    found = torch.autograd.grad(loss, [leaf, z], retain_graph=True)
    assert_close(found, [3 * gradient(1.0)] * 2)
    assert_close(torch.autograd.grad(loss, leaf)[0], found[0])
    sizes, _ = allocations(
        lambda: torch.autograd.grad(cross_entropy(leaf, Y) + cross_entropy(leaf, Y), leaf)[0]
    )
    assert [size for size in sizes if size >= NBYTES] == [NBYTES]  # of the second; the sum is made in place


def test_what_is_held_for_long_makes_way() -> None:
    held = [gradient() for _ in range(3)]
    assert is_reused(gradient)
    assert len({x.data_ptr() for x in held}) == 3


def test_a_second_backward_pass() -> None:
    z = logits(1.0)
    loss = cross_entropy(z, Y, label_smoothing=0.1)
    first, second = (torch.autograd.grad(loss, z, retain_graph=True)[0] for _ in range(2))
    assert first.data_ptr() != second.data_ptr()
    assert first.equal(second)


def test_a_changed_gradient_is_not_seen_by_the_second_backward_pass() -> None:
    z = logits(1.0)
    loss = cross_entropy(z, Y, label_smoothing=0.1)
    for _ in range(3):
        found = torch.autograd.grad(loss, z, retain_graph=True)[0]
        assert found.equal(gradient(1.0))
        found.zero_()
        del found


def test_gradients_that_wait_for_their_backward_pass() -> None:
    """The forward pass has computed them, and nobody has seen them yet."""
    values = (1.0, 2.0, 3.0)
    expected = [gradient(value).clone() for value in values]
    leaves = [logits(value) for value in values]
    losses = [cross_entropy(z, Y, label_smoothing=0.1) for z in leaves]
    found = [torch.autograd.grad(loss, z)[0] for loss, z in zip(losses, leaves, strict=True)]
    assert all(x.equal(y) for x, y in zip(found, expected, strict=True))
    assert len({x.data_ptr() for x in found}) == len(values)


def test_hooks_that_write_and_keep() -> None:
    z, kept_by_hook = logits(1.0), list[Tensor]()
    expected = gradient(1.0).clone()
    handles = [z.register_hook(lambda grad: grad.mul_(2)), z.register_hook(kept_by_hook.append)]
    found = gradient(z=z)
    assert_close(found, 2 * expected)
    for handle in handles:
        handle.remove()
    del found
    assert gradient(z=z).equal(expected)
    assert_close(kept_by_hook[0], 2 * expected)


CHANGES: dict[str, Callable[[Tensor], Any]] = {
    "larger": lambda x: x.resize_(2 * N, K),
    "smaller": lambda x: x.resize_(2),
    "empty": lambda x: x.untyped_storage().resize_(0),
    "and back": lambda x: (x.untyped_storage().resize_(0), x.untyped_storage().resize_(NBYTES)),
    "other storage": lambda x: x.set_(torch.zeros(3).untyped_storage()),
    "data": lambda x: setattr(x, "data", torch.zeros(3)),
    "in place": lambda x: x.fill_(torch.nan),
    "transposed": lambda x: x.t_(),
    "requires_grad": lambda x: x.requires_grad_(),
    "shared": lambda x: x.share_memory_(),
    "pickled": lambda x: pickle.loads(pickle.dumps(x)).zero_(),
    "saved": lambda x: torch.save(x, io.BytesIO()),
    "swapped": lambda x: torch.utils.swap_tensors(x, torch.zeros(3)),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_is_done_to_a_gradient_is_not_seen_in_the_next(how: str) -> None:
    expected = gradient(1.0).clone()
    for _ in range(2):
        found = gradient(2.0)
        CHANGES[how](found)
        del found
        for _ in range(2):
            found = gradient(1.0)
            assert found.equal(expected)
            assert found.stride() == (K, 1)
            nbytes = found.untyped_storage().nbytes()  # pytest would print each byte of a storage
            assert nbytes == NBYTES
            assert not found.requires_grad
            assert not found.is_shared()


@pytest.mark.parametrize(
    "copied",
    [lambda x: pickle.loads(pickle.dumps(x)), copy.deepcopy, lambda x: x.numpy().copy()],
    ids=["pickled", "deep copy", "array"],
)
def test_a_copy_has_memory_of_its_own(copied: Callable[[Tensor], Any]) -> None:
    found = gradient(1.0)
    expected, there = found.clone(), copied(found)
    del found
    assert is_reused(lambda: gradient(2.0))
    assert torch.as_tensor(there).equal(expected)


def test_what_another_process_sees_is_not_reused() -> None:
    found = gradient(1.0)
    expected = found.clone()
    parcel = ForkingPickler.dumps(found)  # as a queue between processes does
    del found
    gradient(2.0)
    assert pickle.loads(parcel).equal(expected)


def test_threads_at_once() -> None:
    barrier, wrong = Barrier(4), list[float]()
    expected = {float(i): gradient(i).clone() for i in range(4)}

    def work(value: float) -> None:
        for _ in range(5):
            barrier.wait()
            found = gradient(value)
            barrier.wait()
            if not found.equal(expected[value]):
                wrong.append(value)
            del found

    threads = [Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory_reserved() == NBYTES


def test_a_block_that_is_looked_at_goes_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    like, others, alias = torch.empty(0), list[Tensor](), kept._alias

    def interrupted(x: Tensor) -> Tensor:
        if not others:
            others.append(like)
            others[0] = kept.new_empty(like, (N, K))  # as another thread or a signal does
        return alias(x)

    at = kept.new_empty(like, (N, K)).data_ptr()
    monkeypatch.setattr(kept, "_alias", interrupted)
    assert kept.new_empty(like, (N, K)).data_ptr() == at != others[0].data_ptr()
