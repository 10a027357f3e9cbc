"""Memory of large tensors that is kept when they die, for the next ones of their shape.

The C library takes large blocks from the operating system and returns them when they are freed. On a CPU,
clearing and mapping the pages of a new gradient takes longer than computing it.
"""

import math
import os
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from labelsmooth._core.modes import recorded

LEAST: Final = 32 * 2**20
"""The smallest size in bytes that is kept. glibc itself reuses smaller blocks."""

SHARE: Final = 1 / 16
"""The largest part of the machine's memory that is kept."""

MOST_BLOCKS: Final = 8
"""The largest number of shapes whose memory is kept."""

LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

COUNTS: Final = all(hasattr(torch._C, name) for name in ("_storage_address", "_storage_Use_Count"))


class Block:
    """A second tensor in the memory of a first, which holds the memory when the first has died."""

    def __init__(self, first: Tensor) -> None:
        self.place = _alias(first)
        self.nbytes = first.nbytes
        self.address = first.data_ptr()

    def free(self) -> bool:
        """Whether nobody else holds the memory, and it has not been moved.

        Views, arrays and graphs hold a tensor's storage. Its Python object counts, too, and lives as long:
        whatever is done to the storage itself needs one.
        """
        c: Any = torch._C
        alone = c._storage_Use_Count(c._storage_address(self.place)) == 1
        return alone and self.place.data_ptr() == self.address


def _alias(x: Tensor) -> Tensor:
    """Another tensor in the memory of x, unknown to autograd."""
    same: Any = x
    return torch.empty(0, dtype=x.dtype, device=x.device).set_(same)


# The least recently used block first. To look at a block is to take it out, in one operation of the dict:
# it cannot go to two threads, and there is no lock that a fork or a signal could leave locked.
_blocks: dict[Hashable, Block] = {}


def new_empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """``like.new_empty(shape, dtype=dtype)``, in kept memory if there is any."""
    dtype = dtype or like.dtype
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes < LEAST:
        return like.new_empty(shape, dtype=dtype)
    return _reused((*shape, dtype), like, nbytes, partial(like.new_empty, shape, dtype=dtype))


def empty_like(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``torch.empty_like(like, dtype=dtype)``, in kept memory if there is any."""
    dtype = dtype or like.dtype
    nbytes = like.numel() * dtype.itemsize
    if nbytes < LEAST:
        return torch.empty_like(like, dtype=dtype)
    return _reused(_key(like, dtype), like, nbytes, partial(torch.empty_like, like, dtype=dtype))


def prefer(x: Tensor) -> None:
    """Keep the memory of x rather than that of another tensor of its shape that is in use.

    It is for the last of several gradients that autograd adds: in place, if nobody else holds the others.
    """
    if x.nbytes < LEAST:
        return
    block = _blocks.pop(key := _key(x, x.dtype), None)
    if block is not None:
        mine = block.address == x.data_ptr()
        _blocks[key] = block if mine or block.free() else Block(x)


def _key(x: Tensor, dtype: torch.dtype) -> Hashable:
    return (*x.shape, dtype) if x.is_contiguous() else (*x.shape, *x.stride(), dtype)


def _reused(key: Hashable, like: Tensor, nbytes: int, allocate: Callable[[], Tensor]) -> Tensor:
    if nbytes > most() or not like.is_cpu or recorded():
        return allocate()
    block = _blocks.pop(key, None)
    if block is not None and block.free():
        found = _alias(block.place)
        _blocks[key] = block  # not before, as another thread would find it free
        return found
    # A block in use is given up: autograd adds two gradients in place only if nobody else holds the first.
    for oldest in list(_blocks):
        if len(_blocks) < MOST_BLOCKS and memory_reserved() + nbytes <= most():
            break
        _blocks.pop(oldest, None)
    found = allocate()
    _blocks[key] = Block(found)
    return found


@cache
def most() -> int:
    """The largest number of bytes that are kept."""
    if os.environ.get("LABELSMOOTH_KEEP_MEMORY") == "0" or not COUNTS or not hasattr(os, "sysconf"):
        return 0
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, LIMITS):
        limit = file.read_text().strip() if file.exists() else ""
        sizes += [int(limit)] if limit.isdecimal() else []
    return int(SHARE * min(sizes))


def memory_reserved() -> int:
    """Return the bytes of memory that are kept on a CPU, whether a gradient occupies it at present or not.

    The environment variable ``LABELSMOOTH_KEEP_MEMORY=0`` keeps none.

    Example:
        >>> empty_cache()
        >>> memory_reserved()
        0
    """
    return sum(block.nbytes for block in list(_blocks.values()))


def empty_cache() -> None:
    """Free the memory that is kept on a CPU. What a gradient occupies is freed when the gradient dies.

    The environment variable ``LABELSMOOTH_KEEP_MEMORY=0`` keeps none.

    Example:
        >>> empty_cache()
        >>> memory_reserved()
        0
    """
    _blocks.clear()
