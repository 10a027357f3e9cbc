"""What the cases share: a table of them, the parts of a process, options, and what counts as equal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from labelsmooth import functional, mixed
from labelsmooth._targets.mixed import Mixed
from labelsmooth.priors import PerSample

ROWS, K = (3, 4), 12
Case = Callable[[torch.Generator], None]
CASES: dict[str, Case] = {}
Options = dict[str, Any]
Make = Callable[[torch.Generator, int], Options]


def case(test: Case) -> Case:
    CASES[test.__name__.replace("_", " ")] = test
    return test


# How the classes are spread: the sizes of the shards, with padding, by the number of processes.
Sizes = Callable[[int, int], list[int]]


def even(world: int, num_classes: int) -> list[int]:
    return [num_classes // world] * world


def chunked(world: int, num_classes: int) -> list[int]:
    sizes = [x.numel() for x in torch.arange(num_classes).chunk(world)]
    return sizes + [0] * (world - len(sizes))


def padded(world: int, num_classes: int) -> list[int]:
    """As much padding as makes the last of four have nothing else."""
    return [4] * world if world == 4 else [8] * world


def lopsided(world: int, num_classes: int) -> list[int]:
    return [1] * (world - 1) + [num_classes - world + 1]


def own(x: Tensor, sizes: list[int], dim: int = -1) -> tuple[Tensor, int]:
    """This process's part of all classes, its padding NaN, and where it starts."""
    rank = dist.get_rank()
    start = min(sum(sizes[:rank]), x.size(dim))
    part = x.narrow(dim, start, min(sizes[rank], x.size(dim) - start))
    shape = list(x.shape)
    shape[dim] = sizes[rank] - part.size(dim)
    return torch.cat([part, x.new_full(shape, torch.nan)], dim), start


def one_process(z: Tensor, target: Tensor | Mixed, options: Options) -> tuple[list[Tensor], Tensor]:
    """Losses and gradient of logits whose classes are last."""
    z = z.clone().requires_grad_()
    losses = functional.cross_entropy(
        z.movedim(-1, 1), classes_second(target), return_nll=True, **classes_second(options)
    )
    losses[0].sum().backward()
    assert z.grad is not None
    return list(losses), z.grad


def classes_second(x: Any) -> Any:
    """Class probabilities, and priors of each row, in torch's order of dimensions."""
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.movedim(-1, 1)
    if isinstance(x, dict) and isinstance(prior := x.get("prior"), PerSample) and prior.classes is None:
        return {**x, "prior": PerSample(prior.probabilities.movedim(-1, 1))}
    return x


def assert_near(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert found.dtype == expected.dtype, f"{what} is {found.dtype}"
    assert found.shape == expected.shape, f"{what} has shape {tuple(found.shape)}"
    same = (found == expected) | (found.isnan() & expected.isnan())
    error = torch.where(same, 0.0, (found - expected).abs())
    # Where one class has nearly everything, so has one process: lse is the log of 1 and little.
    lost = 2 * torch.finfo(expected.dtype).eps
    limit = torch.where(same, 0.0, tolerance * expected.abs() + lost)
    assert bool((error <= limit).all()), f"{what}: {found} instead of {expected}"


def assert_near_as_vectors(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert found.dtype == expected.dtype, f"{what} is {found.dtype}"
    same = (found == expected) | (found.isnan() & expected.isnan())
    size = expected[expected.isfinite()].abs().max() if bool(expected.isfinite().any()) else 0.0
    error = torch.where(same, 0.0, (found - expected).abs())
    assert bool((error <= tolerance * size).all()), f"{what}: {found} instead of {expected}"


def given(**options: Any) -> Make:
    return lambda generator, num_classes: options


def vector(generator: torch.Generator, num_classes: int) -> Tensor:
    return torch.rand(num_classes, dtype=torch.float64, generator=generator).softmax(-1)


def matrix(generator: torch.Generator, num_classes: int) -> Tensor:
    return torch.randn(num_classes, num_classes, dtype=torch.float64, generator=generator).softmax(-1)


def soft(generator: torch.Generator, num_classes: int) -> Tensor:
    return torch.randn(*ROWS, num_classes, dtype=torch.float64, generator=generator).softmax(-1)


def per_row(generator: torch.Generator) -> Tensor:
    return torch.rand(ROWS, dtype=torch.float64, generator=generator)


def class_weight(generator: torch.Generator, num_classes: int) -> Tensor:
    return torch.rand(num_classes, dtype=torch.float64, generator=generator) + 0.5


def ignoring(generator: torch.Generator, num_classes: int) -> Tensor:
    target = torch.randint(num_classes, ROWS, generator=generator)
    return target.masked_fill(torch.rand(ROWS, generator=generator) < 0.4, -100)


def two_labels(generator: torch.Generator, num_classes: int) -> Mixed:
    first, second = torch.randint(num_classes, (2, *ROWS), generator=generator)
    # Some labels have no share.
    return mixed(first, second, (2 * per_row(generator) - 0.5).clamp(0, 1))


def by_row(generator: torch.Generator, num_classes: int) -> PerSample:
    return PerSample(soft(generator, num_classes))


def few_by_row(generator: torch.Generator, num_classes: int) -> PerSample:
    """Two classes of each row, and one of them again."""
    classes = torch.randint(num_classes, (*ROWS, 2), generator=generator)
    return PerSample(soft(generator, 3), torch.cat([classes, classes[..., :1]], -1))


@contextmanager
def raises(words: str, kind: type[Exception] = ValueError) -> Iterator[None]:
    try:
        yield
    except kind as error:
        said = str(error)
    else:
        said = "nothing was raised"
    assert words in said, said
