"""Training runs as files: one run's tensors, and a recommended model."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labelsmooth.calibration import fit_temperature
from labelsmooth.study.fits.result import Fit, FitResult


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


@dataclass(frozen=True)
class Stored(Mapping[Job, Outcome]):
    """Runs by their files, each read when it is asked for: together they may not fit in memory."""

    paths: Mapping[Job, Path]

    def __getitem__(self, job: Job) -> Outcome:
        return load(self.paths[job])

    def __iter__(self) -> Iterator[Job]:
        return iter(self.paths)

    def __len__(self) -> int:
        return len(self.paths)


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


def readable(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _fields(fit: Fit) -> dict[str, object]:
    return asdict(fit) if is_dataclass(fit) and not isinstance(fit, type) else {}


def slug(name: str) -> str:
    """A name as part of a file's; empty if no letter or digit is in it."""
    kept: Iterator[str] = (c if c.isalnum() else "-" for c in name.lower())
    return "-".join(filter(None, "".join(kept).split("-")))[:60]
