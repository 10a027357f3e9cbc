"""Time, memory and load."""

import math
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.cases import Case, Entrant, Size
from benchmarks.exact import Exact, answer, disagreement, entropy
from benchmarks.providers import Loss
from benchmarks.results import Measurement
from labelsmooth.engines import empty_cache

Step = Callable[[], None]
SPIN = "import os, sys\nwhile os.getppid() == int(sys.argv[1]): sum(range(100_000))"


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a case is measured: rounds until the seconds are over, within limits.

    If ``min_rounds`` take more than three times the seconds, ``few_rounds`` are enough.
    """

    seconds: float = 20.0
    few_rounds: int = 3
    min_rounds: int = 5
    max_rounds: int = 200
    sample_ms: float = 5.0  # faster steps are repeated for this long and averaged

    def enough(self, rounds: int, seconds: float) -> bool:
        over = self.seconds if rounds >= self.min_rounds else 3 * self.seconds
        return rounds >= self.max_rounds or (rounds >= self.few_rounds and seconds >= over)


QUICK = Effort(seconds=0.2, few_rounds=2, min_rounds=2, max_rounds=10, sample_ms=1.0)


def measure(case: Case, device: str, effort: Effort, say: Callable[[str], None]) -> list[Measurement]:
    """Measure all entrants of a case in turns. An entrant that fails or is wrong is not timed."""
    entrants = [e for e in case.entrants if device == "cuda" or not e.provider.cuda_only]
    torch.compiler.reset()  # new graphs for each case, without dynamic shapes
    sizes = {e.size: _tensors(e.size, case.dtype, device) for e in entrants}
    failures: dict[str, str] = {}
    steps: dict[str, Step] = {}
    for entrant, step in _checked(entrants, sizes):
        if isinstance(step, str):
            failures[entrant.label] = step
            say(f"{entrant.label} left out: {step}")
        else:
            steps[entrant.label] = step
    peaks = {label: peak(step, device) for label, step in steps.items()}
    times = dict(zip(steps, in_turns(list(steps.values()), device, effort), strict=True))
    faults = {label: page_faults(step) for label, step in steps.items()}
    if times:
        say(f"{len(times)} in {len(next(iter(times.values())))} rounds")
    return [
        Measurement(e, failure=failures[e.label])
        if e.label in failures
        else Measurement(
            e, tuple(times[e.label]), peaks[e.label], _gradient_bytes(e, sizes[e.size][0]), faults[e.label]
        )
        for e in entrants
    ]


def in_turns(steps: Sequence[Step], device: str, effort: Effort) -> list[list[float]]:
    """Milliseconds of each step in each round, in shuffled order, so that no step always follows another."""
    repeats = [_repeats(step, device, effort.sample_ms) for step in steps]
    times: list[list[float]] = [[] for _ in steps]
    order, shuffle = list(range(len(steps))), random.Random(0).shuffle
    start, rounds = time.perf_counter(), 0
    while steps and not effort.enough(rounds, time.perf_counter() - start):
        shuffle(order)
        for i in order:
            times[i].append(timed(steps[i], repeats[i], device))
        rounds += 1
    return times


def _repeats(step: Step, device: str, sample_ms: float) -> int:
    """How often to repeat a step, from the fastest of four calls; a slow step is called once."""
    first = timed(step, 1, device)
    best = min(timed(step, 1, device) for _ in range(3)) if first < 20 * sample_ms else first
    return max(1, math.ceil(sample_ms / min(first, best)))


def timed(step: Step, repeats: int, device: str) -> float:
    """Milliseconds for one step."""
    if device == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            step()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / repeats
    begin = time.perf_counter_ns()
    for _ in range(repeats):
        step()
    return (time.perf_counter_ns() - begin) / 1e6 / repeats


def peak(step: Step, device: str) -> int:
    """The largest number of bytes that torch's allocator holds during a step, beyond what it held before.

    On a CPU the profiler sees each allocation. The resident memory of the process would include allocations
    of other libraries, count in pages, and miss pages that an earlier step returned to the C library.
    Memory that labelsmooth keeps is freed before, so that it counts.
    """
    empty_cache()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        most = max(most, held)
    return most


def page_faults(step: Step) -> int:
    """The pages that the operating system maps in the second of two steps."""
    step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@contextmanager
def busy(cores: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Keep the cores busy with other processes, which end with this process in any case."""
    command = [sys.executable, "-c", SPIN, str(os.getpid())]
    spinning = [subprocess.Popen(command) for _ in range(cores)]
    try:
        yield spinning
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def _tensors(size: Size, dtype: torch.dtype, device: str) -> tuple[tuple[Tensor, ...], Tensor]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(size.classes, (size.rows,), generator=generator)
    if size.side is not None:
        maps = (size.rows // size.side**2, size.classes, size.side, size.side)
        leaves, target = (torch.randn(maps, generator=generator),), target.view(-1, size.side, size.side)
    elif size.features is None:
        leaves = (torch.randn(size.rows, size.classes, generator=generator),)
    else:
        h = torch.randn(size.rows, size.features, generator=generator)
        weight = torch.randn(size.classes, size.features, generator=generator)
        leaves = (h, weight / math.sqrt(size.features))
    return tuple(leaf.to(device, dtype).requires_grad_() for leaf in leaves), target.to(device)


def _checked(
    entrants: Sequence[Entrant], sizes: dict[Size, tuple[tuple[Tensor, ...], Tensor]]
) -> Iterator[tuple[Entrant, Step | str]]:
    """A step of each entrant, or the reason why there is none."""
    answers: dict[tuple[Size, float, Exact], tuple[float, tuple[Tensor, ...]]] = {}
    for entrant in entrants:
        provider, size = entrant.provider, entrant.size
        leaves, target = sizes[size]
        if provider.writes_leaves:
            leaves = tuple(leaf.detach().clone().requires_grad_() for leaf in leaves)
        try:
            loss = provider.build()
            if not provider.is_loss:
                yield entrant, lambda loss=loss, leaves=leaves, target=target: _drop(loss(*leaves, target))
                continue
            key = size, provider.eps, provider.exact
            if key not in answers:
                answers[key] = answer(leaves, target, provider.eps, provider.exact)
            expected, exact = answers[key]
            if provider.is_divergence:
                expected -= entropy(provider.eps, size.classes)
            value = loss(*leaves, target)
            gradients = torch.autograd.grad(value, leaves)
        except Exception as error:  # an error of one peer must not stop the others
            yield entrant, f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        wrong = disagreement(value, gradients, expected, exact)
        yield entrant, wrong or _step(loss, leaves, target)


def _step(loss: Loss, leaves: tuple[Tensor, ...], target: Tensor) -> Step:
    def step() -> None:
        loss(*leaves, target).backward()
        for leaf in leaves:
            leaf.grad = None

    return step


def _drop(_: Tensor) -> None: ...


def _gradient_bytes(entrant: Entrant, leaves: tuple[Tensor, ...]) -> int:
    return sum(leaf.nbytes for leaf in leaves) if entrant.provider.is_loss else 0
