"""What has been trained: kept by Optuna, which no other file knows of, with the tensors beside it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

import optuna
import torch
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor

from labelsmooth.calibration import fit_temperature
from labelsmooth.study.fit import Fit, FitResult
from labelsmooth.study.identity import identify

optuna.logging.set_verbosity(optuna.logging.WARNING)

STORAGE_ERRORS = (SQLAlchemyError, StorageInternalError, SafetensorError)


@dataclass(frozen=True)
class Job:
    """One training run to be done: an arm, as it is spelled, and a seed."""

    arm: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """One training run that was done, as it is kept."""

    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    train: tuple[Tensor, Tensor] | None
    clean: Tensor | None
    features: Tensor | None
    head: Tensor | None
    state: dict[str, Tensor]
    history: dict[str, list[float]]

    @cached_property
    def temperature(self) -> float:
        """With a wide prior: few rows, all right, do not make it 0."""
        return fit_temperature(*self.val, spread=1)


class Ledger:
    """The runs of one setting: which are done, and where their tensors are."""

    def __init__(
        self, folder: Path, name: str, fit: Fit, settings: Mapping[str, object], storage: str | None
    ) -> None:
        versions = {"labelsmooth": version("labelsmooth"), "torch": torch.__version__}
        self.digest = _digest({"name": name, "fit": identify(fit), "settings": settings, **versions})
        self._label = f"{slug(name)}-{self.digest}"
        self.folder = folder / "trials" / self._label
        # Quoted, since a path may hold what means something in a URL.
        file = quote(str((folder / "trials.db").absolute()))
        self._storage = storage or f"sqlite:///{file}"

    @cached_property
    def _study(self) -> optuna.Study:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            return optuna.create_study(study_name=self._label, storage=self._storage, load_if_exists=True)
        except (*STORAGE_ERRORS, ImportError) as error:
            raise ValueError(f"storage must be a database URL that opens, got {self._storage!r}") from error

    def path(self, job: Job) -> Path:
        # The colon is for no file's name; an arm's own name has no dash, so no two arms share a file.
        return self.folder / f"{job.arm.replace(':', '-')}-seed{job.seed}.safetensors"

    def done(self) -> set[Job]:
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        jobs = {Job(t.user_attrs["arm"], t.user_attrs["seed"]) for t in trials}
        return {job for job in jobs if _readable(self.path(job))}

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


def save(path: Path, result: FitResult) -> None:
    """Write a checked result; a file that is there is whole."""
    tensors: dict[str, Tensor] = {}
    for split in ("val", "test", "train"):
        if pair := result.get(split):
            logits, labels = pair
            # Not short: dividing by a temperature would round them again.
            tensors[f"{split}.logits"] = logits.to(torch.promote_types(logits.dtype, torch.float32))
            tensors[f"{split}.labels"] = labels.long()
    for name in ("clean", "features", "head"):
        if (tensor := result.get(name)) is not None:
            tensors[name] = tensor
    tensors |= {f"state.{name}": tensor for name, tensor in result.get("state", {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_tensors(path, tensors, {"history": json.dumps(result.get("history", {}))})


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata)
    partial.replace(path)


def load(path: Path) -> Outcome:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
        history = json.loads(file.metadata()["history"])

    def pair(split: str) -> tuple[Tensor, Tensor]:
        return tensors[f"{split}.logits"], tensors[f"{split}.labels"]

    return Outcome(
        val=pair("val"),
        test=pair("test"),
        train=pair("train") if "train.logits" in tensors else None,
        clean=tensors.get("clean"),
        features=tensors.get("features"),
        head=tensors.get("head"),
        state={name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")},
        history=history,
    )


def save_model(folder: Path, name: str, job: Job, outcome: Outcome, fit: Fit) -> None:
    """Keep one trained model and its temperature as ``models/<name>.safetensors`` and ``.json``."""
    if not outcome.state:
        return
    path = folder / "models" / f"{slug(name)}.safetensors"
    write_tensors(path, outcome.state, {})
    content = {
        "setting": name,
        **asdict(job),
        "temperature": outcome.temperature,
        "fit": _fields(fit),
    }
    path.with_suffix(".json").write_text(json.dumps(content, indent=1, default=repr) + "\n")


def _readable(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _fields(fit: Fit) -> dict[str, object]:
    return asdict(fit) if is_dataclass(fit) and not isinstance(fit, type) else {}


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def slug(name: str) -> str:
    """A name as part of a file's; empty if no letter or digit is in it."""
    kept: Iterator[str] = (c if c.isalnum() else "-" for c in name.lower())
    return "-".join(filter(None, "".join(kept).split("-")))[:60]
