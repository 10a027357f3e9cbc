"""Predictions that this study or another program has saved."""

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from labelsmooth.calibration._checks import (
    Rows,
    are_probabilities,
    as_labelled,
    as_logits,
    as_tensor,
    check_finite,
    check_possible,
    log_of_probabilities,
)
from labelsmooth.study.data.saved.arrays import KINDS, SPLITS, read_npz, read_safetensors
from labelsmooth.study.data.saved.tables import class_indices, read_table

Kind = Literal["logits", "probabilities"]
TABLES = (".csv", ".tsv", ".parquet")
TYPES = (".npz", ".safetensors", *TABLES)
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".npy")


@dataclass(frozen=True)
class Predictions:
    """The validated predictions of one run; messages call it ``str(path)``."""

    result: dict[str, Any]  # the result of a fit, with logits: the logarithms of probabilities
    class_names: tuple[str, ...] | None = None
    ids: tuple[str, ...] | None = None  # the ids of the test rows
    val_ids: tuple[str, ...] | None = None
    path: str = "predictions"

    @property
    def num_classes(self) -> int:
        return self.result["test"][0].size(1)


def read_predictions(path: str | Path, *, kind: Kind | None = None, label: str | None = None) -> Predictions:
    """Read the predictions of one run. Reading never executes code from a file.

    An ``.npz`` or ``.safetensors`` file holds named arrays: ``logits`` or ``probabilities``, ``(N, K)``, and
    ``labels``, ``(N,)``, for the test rows; ``val_logits`` and so on for the validation rows; optionally
    ``ids``, ``class_names``, ``features`` and ``ood_logits``. The file of a study's run is such a file. A
    ``.csv``, ``.tsv`` or ``.parquet`` table has a row for each example: its label, a column ``logit_<class>``
    or ``probability_<class>`` for each class, and optionally its ``id`` and its ``split``, test or val.

    Args:
        path: The file.
        kind: ``"logits"`` or ``"probabilities"``, for a table whose column names do not say it; then all
            columns except label, id and split are classes.
        label: The column of the labels, which are class names or indices; None is ``label``.

    Raises:
        ValueError: if the file is invalid; the message names the file, the array or column, and the row.
        OSError: if the file cannot be opened.

    Example:
        >>> import numpy as np
        >>> np.savez(folder / "run.npz", logits=np.array([[2.0, 0.0], [0.0, 1.0]]), labels=np.array([0, 1]))
        >>> read_predictions(folder / "run.npz").result["test"][1]
        tensor([0, 1])
    """
    path = Path(path)
    if kind not in (None, *KINDS):
        raise ValueError(f"kind must be 'logits' or 'probabilities', got {kind!r}")
    suffix = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"file {path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} must be a file, got a folder")
    if suffix not in TYPES:
        hint = "; pickled files are not read: save arrays with np.savez" if suffix in PICKLES else ""
        raise ValueError(f"{path} must end in {', '.join(TYPES[:-1])} or {TYPES[-1]}{hint}")
    match suffix:
        case ".npz":
            arrays = read_npz(path)
        case ".safetensors":
            arrays = read_safetensors(path)
        case _:
            arrays = read_table(path, kind, label)
    return as_predictions(str(path), arrays, kind)


def read_runs(
    path: str | Path, *, kind: Kind | None = None, label: str | None = None
) -> list[tuple[str, Predictions]]:
    """The runs in a file, or in a folder with one file for each seed, in the order of seeds.

    Warns:
        UserWarning: if a folder has files of other types; the message names them.

    Raises:
        ValueError: as :func:`read_predictions`, or if a folder has no predictions, or two files for a seed.
    """
    path = Path(path)
    if not path.is_dir():
        return [(path.stem, read_predictions(path, kind=kind, label=label))]
    seen = sorted((p for p in path.iterdir() if not p.name.startswith(".")), key=lambda p: natural(p.name))
    files = [p for p in seen if p.suffix.lower() in TYPES and p.is_file()]
    if not files:
        raise ValueError(f"{path} must hold a file for each seed, ending in {', '.join(TYPES)}, got none")
    seen_seeds: dict[object, Path] = {}
    for file in files:
        # Named by the seed in the file's name, if there is one, since a folder may hold several arms.
        seed = seed_of(file.stem)
        if (other := seen_seeds.setdefault(file.stem if seed is None else seed, file)) is not file:
            raise ValueError(
                f"{path} must hold one file for each seed, got {other.name} and {file.name}: "
                "put each arm into its own folder"
            )
    if others := [p.name for p in seen if p not in files]:
        warnings.warn(f"{path}: not read: {', '.join(others[:5])}{' ...' * (len(others) > 5)}", stacklevel=2)
    return [(p.stem, read_predictions(p, kind=kind, label=label)) for p in files]


def seed_of(name: str) -> int | None:
    """The seed in a file's name."""
    found = re.search(r"seed[-_=. ]?(\d+)", name, re.IGNORECASE)
    return int(found[1]) if found else None


def natural(name: str) -> list[str | int]:
    """A sort key that compares numbers in names as numbers."""
    return [int(part) if i % 2 else part.lower() for i, part in enumerate(re.split(r"(\d+)", name))]


def as_predictions(path: str, arrays: Mapping[str, Any], kind: str | None = None) -> Predictions:
    """Validated predictions from named arrays."""
    names = _class_names(path, arrays.get("class_names"))
    result: dict[str, Any] = {}
    for split in SPLITS:
        pair = _pair(path, split, arrays, kind, names)
        if pair is not None:
            result[split] = pair
    if "test" not in result:
        raise ValueError(
            f"{path} must hold 'logits' or 'probabilities', and 'labels', of test rows, got none"
        )
    num_classes = result["test"][0].size(1)
    for split, (logits, _) in result.items():
        if logits.size(1) != num_classes:
            raise ValueError(
                f"{path}: test and {split} rows must have the same classes, got {num_classes} "
                f"and {logits.size(1)} of them"
            )
    if names is not None and len(names) != num_classes:
        raise ValueError(
            f"{path}: class_names must be one for each of {num_classes} classes, got {len(names)}"
        )
    for found in KINDS:
        if f"ood_{found}" in arrays:
            result["ood"] = _unlabelled(path, arrays[f"ood_{found}"], found, num_classes)
    for name in ("features", "clean", "head"):
        if name in arrays:
            result[name] = as_tensor(name, arrays[name])
    if "features" in result and len(result["features"]) != len(result["test"][1]):
        rows = len(result["features"]), len(result["test"][1])
        raise ValueError(f"{path}: features must be of each test row, got {rows[0]} for {rows[1]} rows")
    ids = [_ids(path, arrays, split, result) for split in ("test", "val")]
    return Predictions(result, names, *ids, path=path)


def _pair(
    path: str, split: str, arrays: Mapping[str, Any], kind: str | None, names: tuple[str, ...] | None
) -> tuple[Tensor, Tensor] | None:
    found = [k for k in KINDS if f"{split}_{k}" in arrays]
    labels = arrays.get(f"{split}_labels")
    said = "" if split == "test" else f"{split}_"
    if not found and labels is None:
        return None
    if not found:
        raise ValueError(f"{path} has '{said}labels' and neither '{said}logits' nor '{said}probabilities'")
    if labels is None:
        raise ValueError(f"{path} has '{said}{found[0]}' and no '{said}labels'")
    if len(found) == 2 and kind is None:
        raise ValueError(
            f"{path} has '{said}logits' and '{said}probabilities': choose one with kind= (--kind logits)"
        )
    if kind is not None and kind not in found:
        raise ValueError(f"{path} holds '{said}{found[0]}' and no '{said}{kind}'")
    kind = kind or found[0]
    try:
        return _checked(arrays[f"{split}_{kind}"], _indices(labels, names), kind, judged=split != "train")
    except ValueError as error:
        raise ValueError(f"{path}, {split} rows counted from 0: {error}") from None


def _indices(labels: Any, names: tuple[str, ...] | None) -> Any:
    """The indices of labels that are class names."""
    texts = labels if isinstance(labels, Tensor) else np.asarray(labels)
    if isinstance(texts, np.ndarray) and texts.dtype.kind in "US":
        return class_indices("labels", texts.astype(str).ravel(), names)
    return labels


def _checked(scores: Any, labels: Any, kind: str, *, judged: bool) -> tuple[Tensor, Tensor]:
    """Logits and labels of all rows, since a comparison of runs must not ignore rows."""
    rows = as_labelled(scores, labels, ignore_index=None, name=kind, binary=True)
    if rows.shape is None or len(rows.shape) != 1:
        got = (*(rows.shape or ()), rows.logits.size(1))
        raise ValueError(f"{kind} must be of shape (N, K), or (N,) of two classes, got {got}")
    if kind == "probabilities":
        rows = replace(rows, logits=log_of_probabilities(rows))
    check_finite(rows, masked=True)
    if judged:
        check_possible(rows)
    if kind == "logits" and are_probabilities(rows):
        raise ValueError(
            "logits must be logits, got probabilities: every row is at least 0 and sums to 1; save them as "
            "'probabilities', or name a table's columns probability_<class>"
        )
    assert rows.labels is not None
    return rows.logits, rows.labels


def _unlabelled(path: str, scores: Any, kind: str, num_classes: int) -> Tensor:
    """The logits of out-of-distribution rows."""
    try:
        rows = Rows(as_logits(scores, f"ood_{kind}"))
        if rows.logits.dim() != 2 or rows.logits.size(1) != num_classes:
            got = tuple(rows.logits.shape)
            raise ValueError(f"ood_{kind} must be of shape (N, {num_classes}), got {got}")
        if kind == "probabilities":
            rows = Rows(log_of_probabilities(rows))
        check_finite(rows, masked=True)
    except ValueError as error:
        raise ValueError(f"{path}, ood rows counted from 0: {error}") from None
    return rows.logits


def _class_names(path: str, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    texts = _texts(path, "class_names", names)
    if len(set(texts)) < len(texts):
        twice = next(text for i, text in enumerate(texts) if text in texts[:i])
        raise ValueError(f"{path}: class_names must differ, got {twice!r} twice")
    return texts


def _ids(
    path: str, arrays: Mapping[str, Any], split: str, result: Mapping[str, Any]
) -> tuple[str, ...] | None:
    name = "ids" if split == "test" else f"{split}_ids"
    if name not in arrays or split not in result:
        return None
    ids, rows = _texts(path, name, arrays[name]), len(result[split][1])
    if len(ids) != rows:
        raise ValueError(f"{path}: {name} must be one for each of {rows} {split} rows, got {len(ids)}")
    seen: dict[str, int] = {}
    for row, each in enumerate(ids):
        if seen.setdefault(each, row) != row:
            raise ValueError(
                f"{path}: {name} must differ, got {each!r} in rows {seen[each]} and {row}, counted from 0"
            )
    return ids


def _texts(path: str, name: str, values: Any) -> tuple[str, ...]:
    array = values.numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "USiu":
        got = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{path}: {name} must be strings or integers in one row, got {got}")
    return tuple(array.astype(str).tolist())
