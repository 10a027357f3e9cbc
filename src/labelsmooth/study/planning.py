"""The plan of a study: the runs to train and the estimated time."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelsmooth.study.arguments import Asked, ask
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.report.log import durations
from labelsmooth.study.report.progress import duration
from labelsmooth.study.trials.course import LARGEST, SEARCH_SEEDS
from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.ranks import are_together
from labelsmooth.study.trials.timing import time_run

WIDTH = 80


@dataclass(frozen=True)
class Trial:
    """One training run of a study."""

    setting: str
    arm: str
    seed: int
    done: bool  # whether its file exists


@dataclass(frozen=True)
class Plan:
    """The runs that a study would train; ``print`` shows them as a table."""

    trials: list[Trial]
    seconds: float | None  # the estimated time of the missing runs, if known
    notes: list[str]  # the basis of the estimate, and runs that may be added

    def __str__(self) -> str:
        file = io.StringIO()
        console = Console(file=file, width=WIDTH, markup=False, highlight=False)
        console.print(self._table())
        for line in (self._summary(), *self.notes):
            console.print(line, soft_wrap=True)
        return file.getvalue().rstrip()

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("setting", "arm", "runs", "done"):
            table.add_column(title, justify="right" if title in ("runs", "done") else "left")
        groups = dict.fromkeys((trial.setting, trial.arm) for trial in self.trials)
        before = None
        for setting, arm in groups:
            done = [trial.done for trial in self.trials if (trial.setting, trial.arm) == (setting, arm)]
            table.add_row(Text("" if setting == before else setting), arm, str(len(done)), str(sum(done)))
            before = setting
        return table

    def _summary(self) -> str:
        done = sum(trial.done for trial in self.trials)
        if done == len(self.trials):
            return f"All {done} runs are done."
        takes = "unknown until the first run is trained" if self.seconds is None else duration(self.seconds)
        return f"{done} of {len(self.trials)} runs are done; time for the others: {takes}."


def plan(
    fit: Fit | Mapping[str, Fit],
    *,
    eps: Sequence[float] | None = None,
    arms: Sequence[str] | None = None,
    seeds: int = 5,
    output: str | Path = "labelsmooth-study",
    workers: int | None = None,
    storage: str | None = None,
    settings: Mapping[str, object] | None = None,
    key: str | Mapping[str, str] | None = None,
    care: str = "overall",
    extend: bool | None = None,
    search: int = 0,
) -> Plan:
    """List the runs that :func:`~labelsmooth.study.run` would train, and estimate their time.

    Nothing is written. The estimate uses the runs in ``study.log``. For a setting without a run there, and a
    fit with the attribute ``epochs``, it trains with hard targets for two epochs or one second, and discards
    the result.

    Returns:
        The runs, which of them are done, and the seconds that the others take, or None if unknown.

    Raises:
        ValueError: as :func:`~labelsmooth.study.run` does.
        Exception: the error of ``fit`` in its first epochs.

    Example:
        >>> from labelsmooth.study import DigitsFit, plan
        >>> planned = plan(DigitsFit(rows=100, epochs=2), eps=[0.1], seeds=3, output=folder)
        >>> len(planned.trials), any(trial.done for trial in planned.trials)
        (6, False)
    """
    asked = ask(
        fit,
        eps=eps,
        arms=arms,
        seeds=seeds,
        output=output,
        workers=workers,
        storage=storage,
        settings=settings,
        key=key,
        care=care,
        extend=extend,
        search=search,
    )
    trials = [
        Trial(name, arm, seed, ledger.path(Job(arm, seed)).exists())
        for name, ledger in asked.ledgers().items()
        for arm in asked.arms
        for seed in range(seeds)
    ]
    seconds, basis = _estimate(asked, trials)
    return Plan(trials, seconds, [*basis, *_besides(asked)])


def _estimate(asked: Asked, trials: Sequence[Trial]) -> tuple[float | None, list[str]]:
    """The remaining seconds, and the basis of the estimate."""
    left = {name: sum(t.setting == name and not t.done for t in trials) for name in asked.fits}
    known, timed = dict(durations(asked.folder)), []
    for name in [name for name, runs in left.items() if runs and " ".join(name.split()) not in known]:
        if are_together():
            return None, []
        took = time_run(asked.fits[name], asked.jobs[0], single_threaded=asked.workers is not None)
        if took is None:
            return None, []
        known[" ".join(name.split())] = took
        timed.append(name)
    if not any(left.values()):
        return 0.0, []
    total = sum(runs * known[" ".join(name.split())] for name, runs in left.items() if runs)
    side_by_side = min(asked.workers or 1, sum(left.values()))
    basis = "by the first epochs of one run" if timed else "by the runs in study.log"
    return total / side_by_side, [f"Estimated {basis}, {side_by_side} at a time."]


def _besides(asked: Asked) -> list[str]:
    """Notes on runs that depend on the results of others."""
    said = []
    if asked.extend:
        said.append(
            f"If validation chooses the largest eps, larger ones follow, up to {LARGEST:g}: "
            f"{asked.seeds * len(asked.fits)} runs each."
        )
    if asked.search:
        searches = len(asked.fits) * len(asked.families)
        said.append(
            f"A search for {', '.join(map(str, asked.families))} takes up to "
            f"{searches * asked.search * len(SEARCH_SEEDS)} more runs, and adds up to {searches} arms."
        )
    return said
