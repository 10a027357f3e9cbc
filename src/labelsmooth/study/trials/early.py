"""What is looked at as soon as the first runs are done, lest hours go into a study that can tell nothing."""

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
    """The jobs, those first that tell whether the criterion matters and each seed has the same rows."""
    first = jobs[0]
    pair = [job for job in jobs if job.seed == first.seed and job.arm != first.arm]
    seeds = [job for job in jobs if job.arm == first.arm and job.seed != first.seed]
    return [*dict.fromkeys([first, *pair[:1], *seeds[:1], *jobs])]


class FirstRuns:
    """Looks at the first runs of each setting, whatever the order that they are done in."""

    def __init__(self, hard: str, *, ood: bool = False) -> None:
        self._hard = hard
        self._ood = ood
        self._runs: dict[str, dict[Job, Outcome]] = {}
        self._paired: set[str] = set()

    def see(self, name: str, job: Job, path: Path) -> None:
        """Warn of rows that tell little.

        Raises:
            ValueError: if the first arm that is done gave what hard targets gave, or a run lacks what judges.
        """
        if name in self._paired:
            return
        run = load(path)
        runs = self._runs.setdefault(name, {})
        if self._ood and run.ood is None:
            raise ValueError(
                f"{name}: care='ood' judges by rows of no class, whose logits fit must return as 'ood'"
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
                    f"{name}: {arm} and {self._hard} gave the same logits to the bit with seed {job.seed}: "
                    "fit does not train with the criterion it is given; backward() must be called on what "
                    "criterion(logits, labels) returns, and reach weights that the optimizer changes"
                )
            self._paired.add(name)
            self._runs[name] = {}  # they may be large
            return
        runs[job] = run


def check_repeated(name: str, fit: Fit, ledger: Ledger, job: Job, *, single_threaded: bool) -> bool:
    """Whether a job that is trained twice agrees to the bit; warns if not. The first of the two is kept."""
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
            f"{name}: {job.arm} with seed {job.seed}, trained once more, gave other logits, so that a pair "
            "differs in more than its arm: let all that is random follow from seed, and see "
            "torch.use_deterministic_algorithms"
        )
    return same


def same_logits(one: Outcome, other: Outcome) -> bool:
    """To the bit, of the validation rows and the test rows."""
    return torch.equal(one.validation[0], other.validation[0]) and torch.equal(one.test[0], other.test[0])


def warn(message: str) -> None:
    """Warn on behalf of the line that called labelsmooth."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == "labelsmooth":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)


def _rows(run: Outcome) -> list[str]:
    (logits, labels), (others, truth) = run.validation, run.test
    said = []
    if torch.equal(logits, others) and torch.equal(labels, truth):
        said.append(
            "fit's 'val' and 'test' are the same rows, so what is chosen by them is judged by them too: "
            "return rows of their own as 'val'"
        )
    if len(labels) < FEW_ROWS:
        said.append(
            f"fit's 'val' has {len(labels)} rows, too few to choose an arm by and to fit a temperature to: "
            f"return {FEW_ROWS} or more"
        )
    if len(present := labels.unique()) == 1:
        said.append(
            f"fit's 'val' holds class {int(present)} alone, which says nothing of the others: "
            "draw its rows from all classes"
        )
    return said
