"""The training loop, which shares the missing runs with other processes and machines."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Protocol

from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.claims import beating
from labelsmooth.study.trials.course import Stage, Task
from labelsmooth.study.trials.early import FirstRuns, warn
from labelsmooth.study.trials.files import DamageError, Job, WriteError
from labelsmooth.study.trials.ledger import Ledger
from labelsmooth.study.trials.ranks import Team, are_together
from labelsmooth.study.trials.training import Summary, summarise_run, train
from labelsmooth.study.trials.workers import Here, Pool, was_killed

LOOK = 1.0  # seconds between checks of other processes
PAIRS = 2  # the minimum for an interval


class Listener(Protocol):
    """The listener that shows the progress."""

    def begin(self, name: str, job: Job, path: Path) -> None: ...

    def end(self, name: str, job: Job) -> None: ...

    def add(self, tasks: Iterable[Task], arms: Iterable[str]) -> None: ...

    def update(self, name: str, job: Job, summary: Summary, *, trained: bool = True) -> None: ...

    def say(self, text: str) -> None: ...


class Training:
    """The remaining and the finished runs of a study."""

    def __init__(
        self,
        fits: Mapping[str, Fit],
        ledgers: Mapping[str, Ledger],
        jobs: Sequence[Job],
        listener: Listener,
        *,
        ood: bool = False,
    ) -> None:
        """``ood`` says whether out-of-distribution rows judge the runs."""
        self._fits = fits
        self._ledgers = ledgers
        self._listener = listener
        self.scores: dict[Task, float] = {}  # the validation NLL at T of finished runs
        self._seeds = {job.seed for job in jobs}
        # The first seed of every setting comes first, so that an interrupted study can be compared.
        self._waiting = [Task(name, job) for job in jobs for name in fits]
        self._running: dict[Future, Task] = {}
        self._killed: set[Task] = set()
        self._errors: dict[Task, Exception] = {}
        self._rows: dict[str, str] = {}
        self._first_runs = FirstRuns(hard=jobs[0].arm, ood=ood)
        self._said_waiting = False
        self._looked_back: set[str] = set()

    def run(
        self, workers: int | None, further: Callable[[Mapping[Task, float]], Iterable[Stage]] | None = None
    ) -> None:
        """Train all jobs, then the jobs that extension and search add."""
        for ledger in self._ledgers.values():
            ledger.open()
        try:
            with beating(self._beat), Pool(_workers(workers)) as pool:
                self._train(pool, single_threaded=workers is not None)
                for stage in further(self.scores) if further else ():
                    self._add(stage)
                    self._train(pool, single_threaded=workers is not None)
        finally:
            for ledger in self._ledgers.values():
                ledger.give_up()

    def _train(self, pool: Pool, *, single_threaded: bool) -> None:
        self._waiting = [task for task in self._waiting if not self._is_done(task, trained=False)]
        while self._waiting or self._running:
            self._hear_of_failures()
            self._start(pool, single_threaded=single_threaded)
            self._end(pool)

    def _add(self, stage: Stage) -> None:
        for why in stage.why:
            self._listener.say(why)
        left_out = {name: self.left_out(name) for name in self._fits}
        known = self.scores.keys() | self._errors.keys()
        self._waiting = [
            task for task in stage.tasks if task not in known and task.job.seed not in left_out[task.name]
        ]
        self._listener.add(self._waiting, stage.arms)

    def left_out(self, name: str) -> dict[int, str]:
        """The seeds of a setting with a failure, and the reasons."""
        left_out: dict[int, str] = {}
        for task, error in self._errors.items():
            if task.name == name and task.job.seed in self._seeds:
                left_out.setdefault(task.job.seed, f"{task.job.arm}: {_reason(error)}")
        return left_out

    def _beat(self) -> None:
        for ledger in self._ledgers.values():
            ledger.beat()

    def _start(self, pool: Pool, *, single_threaded: bool) -> None:
        """Count the runs of other processes, and start the next ones."""
        held = {} if pool.is_full else {name: ledger.held() for name, ledger in self._ledgers.items()}
        left = []
        for task in self._waiting:
            name, job = task
            if self._is_done(task):
                continue
            if pool.is_full or job in held[name] or not self._ledgers[name].claim(job):
                left.append(task)
            elif not self._is_done(task):  # another process may have just finished it
                path = self._ledgers[name].path(job)
                self._listener.begin(name, job, path)
                self._running[pool.submit(train, name, self._fits[name], job, path, single_threaded)] = task
        self._waiting = left
        if left and pool.is_empty and not self._said_waiting:
            self._listener.say(f"waiting for other processes, which train the remaining runs ({len(left)})")
            self._said_waiting = True

    def _end(self, pool: Pool) -> None:
        if not self._running and not self._waiting:
            return
        for future in pool.wait(LOOK):
            task = self._running.pop(future)
            self._listener.end(*task)
            error = future.exception()
            if error is None:
                self._count(task, future.result())
                self._look_back(task.name)
            elif was_killed(future) and task not in self._killed:
                self._killed.add(task)
                self._ledgers[task.name].drop(task.job)
                self._waiting.insert(0, task)
            elif was_killed(future):
                place = f"in the fit of {task.name!r} with {task.job.arm} and seed {task.job.seed}"
                self._fail(task, ChildProcessError(f"a worker was killed twice {place}: out of memory?"))
            elif isinstance(error, WriteError) or not isinstance(error, Exception):
                raise error
            else:
                self._fail(task, error)

    def _is_done(self, task: Task, *, trained: bool = True) -> bool:
        """Whether the run's file is complete; if so, it is counted."""
        try:
            outcome = self._ledgers[task.name].read(task.job)
        except DamageError as error:
            self._listener.say(f"{error}; training it again")
            return False
        if outcome is not None:
            self._count(task, summarise_run(outcome), trained=trained)
        return outcome is not None

    def _count(self, task: Task, summary: Summary, *, trained: bool = True) -> None:
        self._ledgers[task.name].finish(task.job, summary.validation_nll)
        self.scores[task] = summary.validation_nll
        if self._rows.setdefault(task.name, summary.rows) != summary.rows:
            raise ValueError(
                f"{task.name}: fit must return the same 'val' and 'test' labels, and K, in every call"
            )
        self._first_runs.see(task.name, task.job, self._ledgers[task.name].path(task.job))
        self._listener.update(task.name, task.job, summary, trained=trained)

    def _look_back(self, name: str) -> None:
        """Warn, after the first run of a setting, of changed objects, which affect the next runs."""
        if name in self._looked_back:
            return
        self._looked_back.add(name)
        if changed := self._ledgers[name].changed(self._fits[name]):
            warn(
                f"{name}: training has changed an object that fit refers to ({changed}), so the next run "
                "starts from another state, and a later call trains again: create it within fit, or, if it "
                "is a log, pass key='name of this version'"
            )

    def _hear_of_failures(self) -> None:
        for name, ledger in self._ledgers.items():
            for job, why in ledger.failures().items():
                if (task := Task(name, job)) in self._waiting:
                    self._fail(task, RuntimeError(f"{why} (in another process)"))

    def _fail(self, task: Task, error: Exception) -> None:
        """Leave out a seed, since an arm failed with it; its remaining runs are not trained."""
        name, job = task
        self._ledgers[name].fail(job, _reason(error))
        self._errors[task] = error
        if job.seed not in self._seeds:  # a run of a search
            self._waiting = [t for t in self._waiting if t != task]
            self._listener.say(f"{name}: {job.arm} failed, and the search continues: {_reason(error)}")
            return
        self._waiting = [t for t in self._waiting if (t.name, t.job.seed) != (name, job.seed)]
        if len(self._seeds - self.left_out(name).keys()) < PAIRS:
            raise next(error for task, error in self._errors.items() if task.name == name)
        self._listener.say(f"{name}: seed {job.seed} is left out, {job.arm} failed with it: {_reason(error)}")


def _workers(number: int | None) -> int | Executor:
    if number is not None:
        return number
    return Team() if are_together() else Here()


def _reason(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
