"""What is seen while a study runs: a bar per setting, and the pairs that are finished."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from labelsmooth.study.trials import Job


@dataclass(frozen=True)
class Summary:
    """One run, as far as the partial table shows it."""

    validation_nll: float
    test_accuracy: float
    rows: str  # a digest of the labels: they are the same in every run


def say(text: str, *, shown: bool) -> None:
    """A line about the work, apart from its result."""
    Console(stderr=True, quiet=not shown, markup=False, highlight=False).print(text, soft_wrap=True)


class Progress:
    """Bars and a partial table on a terminal; elsewhere a line per finished setting."""

    def __init__(self, names: Iterable[str], eps: Sequence[float], runs: int, *, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown, markup=False)
        self._eps = eps
        self._runs: dict[str, dict[Job, Summary]] = {name: {} for name in names}
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
        )
        self._tasks = {name: self._bars.add_task(name, total=runs) for name in self._runs}
        self._live = Live(self, console=self._console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def update(self, name: str, job: Job, summary: Summary) -> None:
        self._runs[name][job] = summary
        self._bars.advance(self._tasks[name])
        if not self._console.is_terminal and self._bars.tasks[self._tasks[name]].finished:
            self._console.print(f"{name}: {len(self._runs[name])} runs done")

    def __rich__(self) -> Group:
        table = Table(
            title="test accuracy, smoothed less hard, in points; pairs so far", title_justify="left"
        )
        table.add_column("setting")
        for e in self._eps[1:]:
            table.add_column(f"eps {e:g}", justify="right")
        for name, runs in self._runs.items():
            table.add_row(name, *(self._mean_difference(runs, e) for e in self._eps[1:]))
        return Group(self._bars, table)

    @staticmethod
    def _mean_difference(runs: dict[Job, Summary], eps: float) -> str:
        pairs = [
            summary.test_accuracy - runs[Job(0.0, job.seed)].test_accuracy
            for job, summary in runs.items()
            if job.eps == eps and Job(0.0, job.seed) in runs
        ]
        return f"{sum(pairs) / len(pairs) * 100:+.1f} ({len(pairs)})" if pairs else "-"
