"""The progress of a study: a bar for each setting, and a table of the finished pairs."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from labelsmooth.study.analysis.figures import FEW
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.report.log import write_line
from labelsmooth.study.trials.course import Task
from labelsmooth.study.trials.epochs import pace_of
from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.training import Summary

WARM = 2  # warm-up runs that do not enter the estimated time
AT_WORK = 4  # the maximum number of current runs whose epochs are shown
BEST = 3  # columns of the table in an 80-column terminal, with many arms


def say(text: str, *, shown: bool) -> None:
    """Print a line to stderr, apart from the result."""
    Console(stderr=True, quiet=not shown, markup=False, highlight=False).print(text, soft_wrap=True)


@dataclass(frozen=True)
class Running:
    """A current run."""

    path: Path
    epochs: int | None  # its number of epochs, if known

    def __str__(self) -> str:
        of = f" of {self.epochs}" if self.epochs else ""
        return f"epoch {pace_of(self.path).epochs}{of}"

    @property
    def seconds(self) -> tuple[float, float] | None:
        """The estimated total and remaining seconds of the run, if known."""
        done, each = pace_of(self.path)
        if each is None or not self.epochs:
            return None
        return each * self.epochs, each * max(self.epochs - done, 0)


class Progress:
    """Bars and a partial table on a terminal; elsewhere a line for each finished run.

    Each trained run is also a line in the log, whether the progress is shown or not.
    """

    def __init__(
        self,
        names: Iterable[str],
        arms: Sequence[str],
        runs: int,
        *,
        shown: bool,
        epochs: Mapping[str, int | None] | None = None,
        log: Path | None = None,
    ) -> None:
        self._console = Console(stderr=True, quiet=not shown, markup=False, highlight=False)
        self._hard, *self._arms = arms
        self._runs: dict[str, dict[Job, Summary]] = {name: {} for name in names}
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._total, self._trained, self._warm = runs * len(self._runs), 0, time.monotonic()
        self._end: float | None = None
        self._epochs, self._log = epochs or {}, log
        self._running: dict[Task, Running] = {}
        self._tasks = {name: self._bars.add_task(name, total=runs) for name in self._runs}
        self._live = Live(self, console=self._console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def begin(self, name: str, job: Job, path: Path) -> None:
        self._running[Task(name, job)] = Running(path, self._epochs.get(name))

    def end(self, name: str, job: Job) -> None:
        self._running.pop(Task(name, job), None)

    def add(self, tasks: Iterable[Task], arms: Iterable[str]) -> None:
        """Add runs to the total."""
        self._arms += arms
        for task in tasks:
            self._total += 1
            bar = self._bars.tasks[self._tasks[task.name]]
            self._bars.update(bar.id, total=(bar.total or 0) + 1)

    def update(self, name: str, job: Job, summary: Summary, *, trained: bool = True) -> None:
        """Count a run; earlier runs do not enter the estimated time."""
        self._runs[name][job] = summary
        if self._log is not None and summary.seconds is not None:
            write_line(self._log, name, job, summary)
        self._trained += trained
        if trained:
            now = time.monotonic()
            if self._trained <= WARM:  # slower, since they load libraries and data
                self._warm = now
            else:
                each = (now - self._warm) / (self._trained - WARM)
                self._end = now + each * (self._total - self._done)
        self._bars.advance(self._tasks[name])
        if trained and not self._console.is_terminal:
            self.say(", ".join([f"{self._done} of {self._total} runs done", _run(name, job), *self._left()]))

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    @property
    def _done(self) -> int:
        return sum(map(len, self._runs.values()))

    def _left(self) -> list[str]:
        """The remaining time, if it is known."""
        now = time.monotonic()
        end = self._end or self._end_by_epochs(now)
        if end is None or self._done == self._total:
            return []
        return [f"about {duration(end - now)} left"]

    def _end_by_epochs(self, now: float) -> float | None:
        """The remaining time from the epochs of current runs, before any run is finished."""
        running = [*self._running.values()]
        known = [seconds for run in running if (seconds := run.seconds)]
        if not known:
            return None
        whole = fmean(seconds for seconds, _ in known)
        waiting = self._total - self._done - len(known)
        return now + (sum(left for _, left in known) + whole * waiting) / len(running)

    def _at_work(self) -> list[Text]:
        running = [*self._running.items()]
        said = [Text(f"{_run(*task)}: {run}") for task, run in running[:AT_WORK]]
        more = len(running) - len(said)
        return [*said, Text(f"and {more} more")] if more else said

    def __rich__(self) -> Group:
        few = len(self._arms) < FEW
        shown = "each" if few else "the best"
        title = f"test accuracy, {shown} minus hard, in points; pairs so far"
        table = Table()
        table.add_column("setting")
        for place, arm in enumerate(self._arms if few else range(BEST), 1):
            table.add_column(_label(arm) if isinstance(arm, str) else str(place), justify="right")
        for name, runs in self._runs.items():
            means = {arm: self._mean_difference(runs, arm) for arm in self._arms}
            if few:
                cells = [_cell(means[arm]) for arm in self._arms]
            else:
                best = sorted(self._arms, key=lambda arm: -means[arm][0])[:BEST]
                cells = [f"{_label(arm)} {_cell(means[arm])}" if means[arm][1] else "-" for arm in best]
            table.add_row(Text(name), *cells)
        return Group(self._bars, *self._at_work(), *self._left(), title, table)

    def _mean_difference(self, runs: dict[Job, Summary], arm: str) -> tuple[float, int]:
        """The mean in points, and the number of pairs."""
        pairs = [
            summary.test_accuracy - runs[hard].test_accuracy
            for job, summary in runs.items()
            if job.arm == arm and (hard := Job(self._hard, job.seed)) in runs
        ]
        return (sum(pairs) / len(pairs) * 100, len(pairs)) if pairs else (-math.inf, 0)


def _run(name: str, job: Job) -> str:
    return f"{name} {job.arm} seed {job.seed}"


def duration(seconds: float) -> str:
    """A duration in a suitable unit."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _cell(mean_and_pairs: tuple[float, int]) -> str:
    mean, pairs = mean_and_pairs
    return f"{mean:+.1f} ({pairs})" if pairs else "-"


def _label(arm: str) -> str:
    spec = parse(arm)
    return f"eps {spec.label}" if spec.eps else spec.label
