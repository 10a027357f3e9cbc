"""Checks of the first runs, which stop a study that cannot give a result."""

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.files import Job, Outcome, load
from labelsmooth.study.trials.ledger import Ledger
from labelsmooth.study.trials.training import train

FEW_ROWS = 50


def first_jobs(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, starting with those that check the criterion and the rows of each seed."""
    first = jobs[0]
    pair = [job for job in jobs if job.seed == first.seed and job.arm != first.arm]
    seeds = [job for job in jobs if job.arm == first.arm and job.seed != first.seed]
    return [*dict.fromkeys([first, *pair[:1], *seeds[:1], *jobs])]


class FirstRuns:
    """Checks the first runs of each setting, in whatever order they finish."""

    def __init__(self, hard: str, *, ood: bool = False) -> None:
        self._hard = hard
        self._ood = ood
        self._runs: dict[str, dict[Job, Outcome]] = {}
        self._paired: set[str] = set()

    def see(self, name: str, job: Job, path: Path) -> None:
        """Warn of unsuitable validation rows.

        Raises:
            ValueError: if the first arm gave the logits of hard targets, or a run lacks the judged entries.
        """
        if name in self._paired:
            return
        run = load(path)
        runs = self._runs.setdefault(name, {})
        if self._ood and run.ood is None:
            raise ValueError(
                f"{name}: care='ood' requires out-of-distribution rows: fit must return their logits as 'ood'"
            )
        if not runs:
            for said in _rows(run):
                warn(f"{name}: {said}")
        for other, earlier in runs.items():
            if other.seed != job.seed or self._hard not in (other.arm, job.arm):
                continue
            if same_logits(run, earlier):
                arm = job.arm if other.arm == self._hard else other.arm
                raise ValueError(
                    f"{name}: {arm} and {self._hard} gave bitwise equal logits with seed {job.seed}: fit "
                    "must train with its criterion: call backward() on the result of "
                    "criterion(logits, labels), with weights that the optimizer updates"
                )
            self._paired.add(name)
            self._runs[name] = {}  # frees their memory
            return
        runs[job] = run


def check_repeated(name: str, fit: Fit, ledger: Ledger, job: Job, *, single_threaded: bool) -> bool:
    """Whether training a job twice gives bitwise equal logits; warns if not. The first run is kept."""
    ledger.open()
    try:
        if ledger.read(job) is None:
            if not ledger.claim(job):
                warn(f"{name}: another process trains {job.arm} with seed {job.seed}, so it was not repeated")
                return False
            ledger.finish(job, train(name, fit, job, ledger.path(job), single_threaded).validation_nll)
    finally:
        ledger.give_up()
    with TemporaryDirectory() as folder:
        again = Path(folder) / "again.safetensors"
        train(name, fit, job, again, single_threaded)
        same = same_logits(load(ledger.path(job)), load(again))
    if not same:
        warn(
            f"{name}: {job.arm} with seed {job.seed} gave other logits when trained again, so pairs differ "
            "in more than their arm: make all randomness depend on seed, and see "
            "torch.use_deterministic_algorithms"
        )
    return same


def same_logits(one: Outcome, other: Outcome) -> bool:
    """Whether the logits of the validation and test rows are bitwise equal."""
    return torch.equal(one.validation[0], other.validation[0]) and torch.equal(one.test[0], other.test[0])


def warn(message: str) -> None:
    """Warn with the location of the call of labelsmooth."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "labelsmooth":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _rows(run: Outcome) -> list[str]:
    (logits, labels), (others, truth) = run.validation, run.test
    said = []
    if torch.equal(logits, others) and torch.equal(labels, truth):
        said.append(
            "fit's 'val' and 'test' are the same rows, so the same rows choose and judge the arm: "
            "return different rows as 'val'"
        )
    if len(labels) < FEW_ROWS:
        said.append(
            f"fit's 'val' has {len(labels)} rows, too few to choose an arm by and to fit a temperature to: "
            f"return {FEW_ROWS} or more"
        )
    if len(present := labels.unique()) == 1:
        said.append(f"fit's 'val' holds only class {int(present)}: draw its rows from all classes")
    return said
