"""Files of training runs and of recommended models."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labelsmooth.calibration import fit_temperature
from labelsmooth.study.fits.result import Fit, FitResult


@dataclass(frozen=True)
class Job:
    """A training run: the full name of an arm, and a seed."""

    arm: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """A finished training run, as it is saved."""

    val: tuple[Tensor, Tensor] | None  # None without validation rows
    test: tuple[Tensor, Tensor]
    train: tuple[Tensor, Tensor] | None
    clean: Tensor | None
    features: Tensor | None
    head: Tensor | None
    ood: Tensor | None
    transfer: tuple[Tensor, Tensor] | None
    state: dict[str, Tensor]
    history: dict[str, list[float]]

    @classmethod
    def of(cls, result: FitResult) -> "Outcome":
        """The outcome of a checked result."""
        return cls(
            val=result.get("val"),
            test=result["test"],
            train=result.get("train"),
            clean=result.get("clean"),
            features=result.get("features"),
            head=result.get("head"),
            ood=result.get("ood"),
            transfer=result.get("transfer"),
            state=result.get("state", {}),
            history=result.get("history", {}),
        )

    @property
    def validation(self) -> tuple[Tensor, Tensor]:
        """The validation NLL at T of a study's run, which always has validation rows."""
        assert self.val is not None
        return self.val

    @cached_property
    def temperature(self) -> float | None:
        """The temperature, with a wide prior in case all of a few rows are correct; None without ``val``."""
        return None if self.val is None else fit_temperature(*self.val, spread=1)


def save(path: Path, result: FitResult) -> None:
    """Write a checked result atomically."""
    tensors: dict[str, Tensor] = {}
    for split in ("val", "test", "train"):
        if pair := result.get(split):
            logits, labels = pair
            # At least float32, since a division in half precision would round again.
            tensors[f"{split}.logits"] = logits.to(torch.promote_types(logits.dtype, torch.float32))
            tensors[f"{split}.labels"] = labels.long()
    for name in ("clean", "features", "head", "ood"):
        if (tensor := result.get(name)) is not None:
            tensors[name] = tensor
    if transfer := result.get("transfer"):
        tensors["transfer.features"], tensors["transfer.labels"] = transfer
    tensors |= {f"state.{name}": tensor for name, tensor in result.get("state", {}).items()}
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    history = json.dumps(result.get("history", {}))
    # In a single key: safetensors does not keep the order of several, and files would differ.
    run = {"history": history, "sha256": _checksum(tensors, history)}
    write_tensors(path, tensors, {"run": json.dumps(run)})


def run_path(folder: Path, job: Job) -> Path:
    """The path of a run in the folder of its setting."""
    # A file name cannot have a colon; a method's name has no dash, so paths are unique.
    return folder / f"{job.arm.replace(':', '-')}-seed{job.seed}.safetensors"


class WriteError(OSError):
    """A file cannot be written, for example because the disk is full."""


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata)
    except (OSError, SafetensorError) as error:
        raise WriteError(f"could not write {path}, is there space left on the disk? ({error})") from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that atomically replaces ``path`` at the end, so that files are always complete.

    Its name is unique, since several processes may write the same file.
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partials(path: Path) -> None:
    """Remove the temporary files of a killed process."""
    for partial in path.parent.glob(f"{path.name}.*.partial"):
        partial.unlink(missing_ok=True)


class DamageError(ValueError):
    """The file of a run is damaged, or is not a run."""


def load(path: Path) -> Outcome:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            run = json.loads((file.metadata() or {})["run"])
            expected, encoded = run["sha256"], run["history"]
    except (SafetensorError, LookupError, ValueError, TypeError) as error:
        raise DamageError(f"{path} is damaged, or not a run of a study") from error
    if expected != _checksum(tensors, encoded):
        raise DamageError(f"{path} is damaged: its checksum differs")
    history = json.loads(encoded)

    def pair(split: str, of: str = "logits") -> tuple[Tensor, Tensor] | None:
        found = tensors.get(f"{split}.{of}"), tensors.get(f"{split}.labels")
        return None if found[0] is None or found[1] is None else (found[0], found[1])

    if (test := pair("test")) is None:
        raise DamageError(f"{path} is not a run of a study: it holds no test rows")

    return Outcome(
        val=pair("val"),
        test=test,
        train=pair("train"),
        clean=tensors.get("clean"),
        features=tensors.get("features"),
        head=tensors.get("head"),
        ood=tensors.get("ood"),
        transfer=pair("transfer", "features"),
        state={name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.")},
        history=history,
    )


@dataclass(frozen=True)
class Stored(Mapping[Job, Outcome]):
    """Runs by their files, which are read on access, since together they may not fit in memory."""

    paths: Mapping[Job, Path]

    def __getitem__(self, job: Job) -> Outcome:
        return load(self.paths[job])

    def __iter__(self) -> Iterator[Job]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


def save_model(folder: Path, name: str, job: Job, outcome: Outcome, fit: Fit) -> None:
    """Save a trained model and its temperature as ``models/<name>.safetensors`` and ``.json``."""
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
    with replacing(path.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(content, indent=1, default=repr) + "\n")


def _checksum(tensors: Mapping[str, Tensor], history: str) -> str:
    digest = hashlib.sha256(history.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fields(fit: Fit) -> dict[str, object]:
    return asdict(fit) if is_dataclass(fit) and not isinstance(fit, type) else {}


def slug(name: str) -> str:
    """A name as part of a file name; empty without a letter or digit."""
    kept: Iterator[str] = (c if c.isalnum() else "-" for c in name.lower())
    return "-".join(filter(None, "".join(kept).split("-")))[:60]
