"""The ledger of a setting's runs: which process trains which. Only this module uses Optuna's storage for it.

The claim on a job is a running trial. Optuna numbers trials in the order of their creation, so if two
processes claim the same job, both see which claim is the first.
"""

import hashlib
import json
import random
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from safetensors import SafetensorError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.changes import MOST, differences, keep, why_anew
from labelsmooth.study.trials.claims import Watch, owner
from labelsmooth.study.trials.files import DamageError, Job, Outcome, load, remove_partials, run_path, slug
from labelsmooth.study.trials.identity import Identity, identify

optuna.logging.set_verbosity(optuna.logging.WARNING)

STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError, SafetensorError)
HAS_ENDED = RuntimeError  # Optuna's error for a trial that another process has ended
TRIES = 8  # attempts to open a database, since several processes may create its tables at once
LAG = 30.0  # seconds until a shared folder shows another machine's file


class Ledger:
    """The runs of one setting: finished runs, claims, and the files of the tensors."""

    def __init__(
        self,
        folder: Path,
        name: str,
        fit: Fit,
        settings: Mapping[str, object],
        storage: str | None,
        key: str | None = None,
    ) -> None:
        try:
            known = identify(fit) if key is None else Identity(f"key {key}", {"key": repr(key)})
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        said = identify({name: settings[name] for name in sorted(settings)}, "settings")
        versions = {"labelsmooth": version("labelsmooth"), "torch": torch.__version__}
        self.digest: str = _digest({"name": name, "fit": known.digest, "settings": said.digest, **versions})
        self._parts = {**versions, **said.parts, **known.parts}
        self._fit_parts = known.parts if key is None else None
        self._label = f"{slug(name)}-{self.digest}"
        self.folder: Path = folder / "trials" / self._label
        # Quoted, since a path may hold characters with a meaning in a URL.
        self._file = None if storage else (folder / "trials.db").absolute()
        self._url = storage or f"sqlite:///{quote(str(self._file))}"
        self._watch = Watch()
        self._mine: dict[Job, int] = {}
        self._others: dict[Job, int] = {}
        self._missed: dict[Job, float] = {}
        self._damaged: dict[Path, int] = {}

    def path(self, job: Job) -> Path:
        return run_path(self.folder, job)

    def why_anew(self) -> str | None:
        """The changes since this setting was last trained, if there is no run of its current version."""
        return why_anew(self.folder, self._parts)

    def changed(self, fit: Fit) -> str:
        """The changes of a fit since the start, in words; empty with a key."""
        if self._fit_parts is None:
            return ""
        with suppress(ValueError):
            return ", ".join(differences(self._fit_parts, identify(fit).parts)[:MOST])
        return ""

    def read(self, job: Job) -> Outcome | None:
        """The run if its file is complete, whoever wrote it; raises ``DamageError`` once if it is not."""
        path = self.path(job)
        try:
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._damaged.get(path) == changed:
            return None
        try:
            return load(path)
        except DamageError:
            self._damaged[path] = changed
            raise

    def held(self) -> set[Job]:
        """The jobs that other processes train."""
        with self._told():
            others = {job: number for job, number in self._claims().items() if job not in self._mine}
        self._others |= others
        return set(others)

    def claim(self, job: Job) -> bool:
        """Claim a job; whether this process is to train it."""
        with self._told():
            if self._claims().get(job) is not None or self._is_on_its_way(job):
                return False
            claim = create_trial(state=TrialState.RUNNING, user_attrs={**asdict(job), **owner()})
            trial = self._store.create_new_trial(self._id, template_trial=claim)
            if self._claims().get(job) != self._store.get_trial_number_from_id(trial):
                self._store.set_trial_state_values(trial, TrialState.PRUNED)
                return False
        self._mine[job] = trial
        remove_partials(self.path(job))
        return True

    def finish(self, job: Job, validation_nll: float) -> None:
        if (trial := self._mine.pop(job, None)) is not None:
            self._end(trial, TrialState.COMPLETE, [validation_nll])

    def fail(self, job: Job, why: str) -> None:
        """Record a failure, so that other processes need not try the job again."""
        if (trial := self._mine.pop(job, None)) is not None:
            with self._told(), suppress(HAS_ENDED):
                self._store.set_trial_user_attr(trial, "error", why)
            self._end(trial, TrialState.FAIL)

    def drop(self, job: Job) -> None:
        """Release the job for the next claim."""
        self._end(self._mine.pop(job), TrialState.FAIL)

    def _end(self, trial: int, state: TrialState, values: list[float] | None = None) -> None:
        with self._told(), suppress(HAS_ENDED):  # taken over by another process; the file is valid anyway
            self._store.set_trial_state_values(trial, state, values)

    def failures(self) -> dict[Job, str]:
        """Failures since this process started, here or elsewhere; earlier failures are tried again."""
        with self._told():
            return {
                _job(trial): trial.user_attrs["error"]
                for trial in self._trials(TrialState.FAIL)
                if trial.number >= self._first and "error" in trial.user_attrs
            }

    def seconds(self) -> float:
        """The total time of the finished runs, by the clocks of the processes that trained them."""
        with self._told():
            times = [trial.duration for trial in self._trials(TrialState.COMPLETE)]
        return sum(time.total_seconds() for time in times if time is not None)

    def beat(self) -> None:
        """Send a heartbeat for every claim of this process."""
        for trial in [*self._mine.values()]:
            with suppress(*STORAGE_ERRORS, HAS_ENDED, KeyError):
                beat = self._store.get_trial_user_attrs(trial)["beat"]
                self._store.set_trial_user_attr(trial, "beat", beat + 1)

    def give_up(self) -> None:
        # Ctrl-C during a write locks the database; other processes detect that this process ended.
        while self._mine:
            _, trial = self._mine.popitem()
            with suppress(*STORAGE_ERRORS, HAS_ENDED):
                self._store.set_trial_state_values(trial, TrialState.FAIL)

    def _claims(self) -> dict[Job, int]:
        """The number of the first claim on each job by a living process."""
        claims: dict[Job, int] = {}
        for trial in self._trials(TrialState.RUNNING):  # in the order of their numbers
            if self._watch.is_dead(trial.number, trial.user_attrs):
                with suppress(HAS_ENDED):  # another process was faster, or the owner is alive
                    self._store.set_trial_state_values(self._trial(trial.number), TrialState.FAIL)
            else:
                claims.setdefault(_job(trial), trial.number)
        return claims

    def _is_on_its_way(self, job: Job) -> bool:
        """Whether another machine has finished the job, but its file is not visible here yet."""
        if (other := self._others.get(job)) is None:
            return False
        trial = self._store.get_trial(self._trial(other))
        if trial.state != TrialState.COMPLETE or self.path(job).exists():
            return False
        if time.monotonic() - self._missed.setdefault(job, time.monotonic()) < LAG:
            return True
        raise ValueError(
            f"output must be a folder that every process sees, got {self.folder.parents[1]}: there is no "
            f"file of {job.arm} with seed {job.seed}, which {trial.user_attrs.get('place')} has trained"
        )

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self._store.get_all_trials(self._id, deepcopy=False, states=(state,))

    def _trial(self, number: int) -> int:
        return self._store.get_trial_id_from_study_id_trial_number(self._id, number)

    @cached_property
    def _store(self) -> RDBStorage:
        keep(self.folder, self._parts)
        sqlite = self._url.startswith("sqlite")
        options = {"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True}
        for tries in range(TRIES):
            try:
                return RDBStorage(self._url, options)
            except DBAPIError as error:
                # "file is not a database" is permanent; "table exists" is not: another process was faster.
                if tries == TRIES - 1 or "not a database" in str(error) or "malformed" in str(error):
                    raise
                time.sleep(random.uniform(0.05, 0.3))
        raise AssertionError

    @cached_property
    def _id(self) -> int:
        optuna.create_study(study_name=self._label, storage=self._store, load_if_exists=True)
        return self._store.get_study_id_from_name(self._label)

    @cached_property
    def _first(self) -> int:
        return self._store.get_n_trials(self._id)

    def open(self) -> None:
        with self._told():
            _ = self._first

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise an error that names the database and hides its password."""
        try:
            yield
        except (*STORAGE_ERRORS, ImportError) as error:
            cause = error.__cause__ if isinstance(error, StorageInternalError) else None
            reason = masked(str(cause or error).splitlines()[0])
            if self._file is not None:
                raise ValueError(
                    f"{self._file} cannot be used ({reason}); if it is damaged, delete it: the saved runs "
                    "are kept and not trained again"
                ) from None
            raise ValueError(
                f"storage must be a database URL that opens, got {masked(self._url)!r} ({reason})"
            ) from None


def _job(trial: FrozenTrial) -> Job:
    return Job(trial.user_attrs["arm"], trial.user_attrs["seed"])


def masked(text: str) -> str:
    """A URL without its password."""
    # Also if the password holds an @ or the URL has no scheme.
    text = re.sub(r"((?:^|://)[^:/@\s]*):(?!//)\S*@", r"\1:***@", text)
    return re.sub(r"(?<=password=)[^&\s]+", "***", text)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
