"""Memory of large tensors that is kept when they die, for the next ones of their shape.

The C library takes large blocks from the operating system and returns them when they are freed. On a CPU,
clearing and mapping the pages of a new gradient takes longer than computing it.
"""

import math
import os
import sys
import weakref
from collections.abc import Callable, Hashable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from labelsmooth._core.modes import recorded

LEAST: Final = 32 * 2**20
"""The smallest size in bytes that is kept. glibc itself reuses smaller blocks."""

SHARE: Final = 1 / 16
"""The largest part of the machine's memory that is kept."""

LIMITS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")

_use_count: Callable[[int], int] | None = getattr(torch._C, "_storage_Use_Count", None)


class Block(NamedTuple):
    """A storage that is kept, and the tensor that it was kept of."""

    storage: torch.UntypedStorage
    address: int
    nbytes: int
    shape: torch.Size
    stride: tuple[int, ...]

    @classmethod
    def of(cls, x: Tensor) -> "Block":
        storage = x.untyped_storage()
        return cls(storage, storage.data_ptr(), storage.nbytes(), x.shape, x.stride())

    def references(self) -> int:
        """The Python references to the storage, some of which are made to count them."""
        return sys.getrefcount(self.storage)

    def dead(self) -> bool:
        """Whether nobody else holds the storage, and it still is what it was."""
        return (
            _use_count is not None
            and _use_count(self.storage._cdata) == 1
            and self.references() == ALONE
            and not weakref.getweakrefcount(self.storage)
            and not self.storage.is_shared()
            and self.storage.nbytes() == self.nbytes
            and self.storage.data_ptr() == self.address
        )


ALONE: Final = Block.of(torch.empty(0)).references()

# The least recently used block first. To look at a block is to take it out, in one operation of the dict:
# it cannot go to two threads, and there is no lock that a fork or a signal could leave locked.
_blocks: dict[Hashable, Block] = {}


def new_empty(like: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """``like.new_empty(shape, dtype=dtype)``, in kept memory if there is any."""
    dtype = dtype or like.dtype
    nbytes = math.prod(shape) * dtype.itemsize
    return _reused((*shape, dtype), like, dtype, nbytes, partial(like.new_empty, shape, dtype=dtype))


def empty_like(like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """``torch.empty_like(like, dtype=dtype)``, in kept memory if there is any."""
    dtype = dtype or like.dtype
    nbytes = like.numel() * dtype.itemsize
    key = (*like.shape, *like.stride(), dtype)
    return _reused(key, like, dtype, nbytes, partial(torch.empty_like, like, dtype=dtype))


def _reused(
    key: Hashable, like: Tensor, dtype: torch.dtype, nbytes: int, allocate: Callable[[], Tensor]
) -> Tensor:
    own = type(like) in (Tensor, torch.nn.Parameter)
    if not (LEAST <= nbytes <= most() and like.is_cpu and own) or recorded():
        return allocate()
    block = _blocks.pop(key, None)
    if block is not None and block.dead():
        found = torch.empty(0, dtype=dtype, device="cpu").set_(block.storage, 0, block.shape, block.stride)
    else:
        del block  # before others are freed to make room
        for oldest in list(_blocks):
            if memory_reserved() + nbytes <= most():
                break
            _blocks.pop(oldest, None)
        found = allocate()
        block = Block.of(found)
    _blocks[key] = block
    return found


@cache
def most() -> int:
    """The largest number of bytes that are kept."""
    if os.environ.get("LABELSMOOTH_KEEP_MEMORY") == "0" or _use_count is None or not hasattr(os, "sysconf"):
        return 0
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, LIMITS):
        limit = file.read_text().strip() if file.exists() else ""
        sizes += [int(limit)] if limit.isdecimal() else []
    return int(SHARE * min(sizes))


def memory_reserved() -> int:
    """Return the bytes of memory that are kept on a CPU, whether a gradient occupies it at present or not.

    Example:
        >>> empty_cache()
        >>> memory_reserved()
        0
    """
    return sum(block.nbytes for block in list(_blocks.values()))


def empty_cache() -> None:
    """Free the memory that is kept on a CPU. What a gradient occupies is freed when the gradient dies.

    Example:
        >>> empty_cache()
        >>> memory_reserved()
        0
    """
    _blocks.clear()
