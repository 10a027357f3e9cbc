"""The facts that a report needs beside the runs, saved in the study's folder, so that fits are not needed."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labelsmooth.study.arms.specs import facts_of
from labelsmooth.study.trials.files import Job, Stored, replacing, run_path

FILE, ROWS = "study.json", "rows.json"
SHORT = 1000  # the maximum length of a fact that is saved
MOST_ROWS = 20_000
MOST_LETTERS = 500
PNG = b"\x89PNG"


@dataclass(frozen=True)
class Kept:
    """A setting without its fit."""

    name: str
    folder: str  # the folder of its runs, within the study's
    arms: list[str]
    seeds: list[int]
    description: str = ""
    class_names: list[str] | None = None
    facts: dict[str, Any] = field(default_factory=dict)  # numbers, and tensors as lists
    ordinal: bool = False  # whether the classes are ordered
    left_out: dict[str, str] = field(default_factory=dict)  # seeds with a failure, and the reasons
    notes: list[str] = field(default_factory=list)  # notes on arms that were added

    @property
    def known(self) -> dict[str, object]:
        return {k: torch.tensor(v) if isinstance(v, list) else v for k, v in self.facts.items()}

    def rows(self, output: Path) -> list[str | bytes]:
        """The saved text or PNG of each test row; empty if there are none."""
        try:
            content = json.loads((output / self.folder / ROWS).read_text())
            pictures, rows = content["kind"] == "png", content["rows"]
            return [base64.b64decode(row, validate=True) if pictures else str(row) for row in rows]
        except (OSError, ValueError, LookupError, TypeError):
            return []

    def stored(self, output: Path) -> Stored:
        """The runs of the seeds that all arms have."""
        paths = {
            seed: {Job(arm, seed): run_path(output / self.folder, Job(arm, seed)) for arm in self.arms}
            for seed in self.seeds
        }
        whole = [runs for runs in paths.values() if all(path.exists() for path in runs.values())]
        return Stored({job: path for runs in whole for job, path in runs.items()})


@dataclass(frozen=True)
class Record:
    """A study without its fits."""

    digest: str
    seconds: float  # the total time of its runs
    settings: list[Kept]
    care: str = "overall"  # the metrics of the verdict

    def save(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        with replacing(output / FILE) as partial:
            partial.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, output: Path) -> "Record":
        """Read the record in a folder.

        Raises:
            ValueError: if there is none, or it is damaged.
        """
        path = output / FILE
        try:
            content = json.loads(path.read_text())
            settings = [Kept(**setting) for setting in content["settings"]]
            return cls(content["digest"], content["seconds"], settings, content["care"])
        except (FileNotFoundError, NotADirectoryError):
            raise ValueError(
                f"folder must be the output of a study, got {str(output)!r}: there is no {FILE}"
            ) from None
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{path} is damaged, or of another version: {error!r}") from None


def notes_of(output: Path) -> dict[str, list[str]]:
    """The notes of each setting on added arms; empty without a readable record."""
    try:
        return {setting.name: setting.notes for setting in Record.load(output).settings}
    except ValueError:
        return {}


def said_of(fit: object) -> dict[str, Any]:
    """The attributes of a fit that a record holds."""
    names = getattr(fit, "class_names", None)
    return {
        "description": str(getattr(fit, "description", "")),
        "class_names": [*map(str, names)] if isinstance(names, Sequence) else None,
        "facts": {name: fact for name, value in facts_of(fit).items() if (fact := _plain(value)) is not None},
        "ordinal": bool(getattr(fit, "ordinal", False)),
    }


def _plain(value: object) -> object:
    if isinstance(value, Tensor):
        return value.tolist() if value.dim() == 1 and len(value) <= SHORT else None
    return value if isinstance(value, int | float | str) else None


def rows_of(name: str, fit: object) -> dict[str, object] | None:
    """A fit's ``test_rows`` as they are saved: texts or images.

    Raises:
        ValueError: if they are neither.
    """
    rows = getattr(fit, "test_rows", None)
    if rows is None:
        return None
    listed = isinstance(rows, Sequence) and not isinstance(rows, str | bytes)
    texts = [row for row in rows if isinstance(row, str)] if listed else []
    pictures = [row for row in rows if isinstance(row, bytes) and row.startswith(PNG)] if listed else []
    if listed and len(texts) == len(rows):
        return {"kind": "text", "of": len(rows), "rows": [text[:MOST_LETTERS] for text in texts[:MOST_ROWS]]}
    if listed and len(pictures) == len(rows):
        encoded = [base64.b64encode(picture).decode() for picture in pictures[:MOST_ROWS]]
        return {"kind": "png", "of": len(rows), "rows": encoded}
    got = ", ".join(sorted({type(row).__name__ for row in rows})) if listed else type(rows).__name__
    raise ValueError(f"{name}: test_rows must all be texts, or all be PNG files as bytes, got {got}")


def keep_rows(folder: Path, rows: Mapping[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / ROWS) as partial:
        partial.write_text(json.dumps(rows) + "\n")
