"""What is seen while a study runs: a bar per setting, and the pairs that are finished."""

import math
from collections.abc import Iterable, Sequence
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from labelsmooth.study.analysis.figures import FEW
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.training import Summary

BEST = 3  # columns of an 80-column terminal, where there are many arms


def say(text: str, *, shown: bool) -> None:
    """A line about the work, apart from its result."""
    Console(stderr=True, quiet=not shown, markup=False, highlight=False).print(text, soft_wrap=True)


class Progress:
    """Bars and a partial table on a terminal; elsewhere a line per finished setting."""

    def __init__(self, names: Iterable[str], arms: Sequence[str], runs: int, *, shown: bool) -> None:
        self._console = Console(stderr=True, quiet=not shown, markup=False)
        self._hard, *self._arms = arms
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
        few = len(self._arms) < FEW
        shown = "each" if few else "the best"
        title = f"test accuracy, {shown} less hard, in points; pairs so far"
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
        return Group(self._bars, title, table)

    def _mean_difference(self, runs: dict[Job, Summary], arm: str) -> tuple[float, int]:
        """In points, and of how many pairs."""
        pairs = [
            summary.test_accuracy - runs[hard].test_accuracy
            for job, summary in runs.items()
            if job.arm == arm and (hard := Job(self._hard, job.seed)) in runs
        ]
        return (sum(pairs) / len(pairs) * 100, len(pairs)) if pairs else (-math.inf, 0)


def _cell(mean_and_pairs: tuple[float, int]) -> str:
    mean, pairs = mean_and_pairs
    return f"{mean:+.1f} ({pairs})" if pairs else "-"


def _label(arm: str) -> str:
    spec = parse(arm)
    return f"eps {spec.label}" if spec.eps else spec.label
