"""What has been trained: kept by Optuna, which no other file knows of, with the tensors beside it."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from safetensors import SafetensorError
from sqlalchemy.exc import SQLAlchemyError

from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.changes import keep, why_anew
from labelsmooth.study.trials.files import Job, readable, slug
from labelsmooth.study.trials.identity import Identity, identify

optuna.logging.set_verbosity(optuna.logging.WARNING)

STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError, SafetensorError)


class Ledger:
    """The runs of one setting: which are done, and where their tensors are."""

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
        self.digest = _digest({"name": name, "fit": known.digest, "settings": said.digest, **versions})
        self._parts = {**versions, **said.parts, **known.parts}
        self._label = f"{slug(name)}-{self.digest}"
        self.folder = folder / "trials" / self._label
        # Quoted, since a path may hold what means something in a URL.
        file = quote(str((folder / "trials.db").absolute()))
        self._storage = storage or f"sqlite:///{file}"

    @cached_property
    def _study(self) -> optuna.Study:
        keep(self.folder, self._parts)
        try:
            return optuna.create_study(study_name=self._label, storage=self._storage, load_if_exists=True)
        except (*STORAGE_ERRORS, ImportError) as error:
            raise ValueError(f"storage must be a database URL that opens, got {self._storage!r}") from error

    def path(self, job: Job) -> Path:
        # The colon is for no file's name; an arm's own name has no dash, so no two arms share a file.
        return self.folder / f"{job.arm.replace(':', '-')}-seed{job.seed}.safetensors"

    def why_anew(self) -> str | None:
        """What has changed since this setting was last trained, if nothing of it is there as it is now."""
        return why_anew(self.folder, self._parts)

    def done(self) -> set[Job]:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        jobs = {Job(t.user_attrs["arm"], t.user_attrs["seed"]) for t in trials}
        return {job for job in jobs if readable(self.path(job))}

    def start(self, job: Job) -> optuna.Trial:
        trial = self._study.ask()
        for name, value in asdict(job).items():
            trial.set_user_attr(name, value)
        return trial

    def finish(self, trial: optuna.Trial, validation_nll: float) -> None:
        self._study.tell(trial, validation_nll)

    def give_up(self, trial: optuna.Trial) -> None:
        # Ctrl-C in the midst of a write locks the database; what is not marked is not done either.
        with suppress(StorageInternalError):
            self._study.tell(trial, state=TrialState.FAIL)


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]
