"""Labelled rows from the arrays of a ``.npz`` file."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labelsmooth.study.data.images import Thumbnails, image_inputs
from labelsmooth.study.data.paths import SIDES, Side
from labelsmooth.study.data.rows import Indices, Inputs, Rows, Shown, numbered

FEATURES = ("x", "features", "images", "data", "inputs")
LABELS = ("y", "labels", "label", "targets", "target")
SHOWN = 8  # numbers of a row in the report

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class ArrayRows(Rows):
    """Rows of numbers, ``(N, D)``, or images, ``(N, C, H, W)``."""

    x: Tensor
    file: str

    def place(self, row: int) -> str:
        return f"row {row} of {self.file}"

    def inputs(self, train: Indices) -> Inputs:
        if self.x.dim() == 4:
            return image_inputs(self.x, train)
        std, mean = torch.std_mean(self.x[torch.from_numpy(train)].double(), 0, correction=0)
        std = torch.where(std > 0, std, 1.0)
        return Inputs(self.x, mean.float(), std.float(), f"rows of {self.x.size(1)} numbers")

    def shown(self, rows: Indices) -> Shown:
        x = self.x[torch.from_numpy(rows)]
        if x.dim() == 4 and x.size(1) in (1, 3, 4):
            return Thumbnails(_as_bytes(x))
        more = ", ..." if x[0].numel() > SHOWN else ""
        return [", ".join(f"{value:g}" for value in row[:SHOWN].tolist()) + more for row in x.flatten(1)]


def read_arrays(path: Path, label: str | None, group: str | None) -> ArrayRows:
    """The rows of ``x`` and ``y``, or of ``x_train``, ``y_train``, ``x_test`` and so on.

    Raises:
        ValueError: if an array is invalid; the message names the file and the array.
    """
    arrays = _loaded(path)
    every: tuple[Side, ...] = ("train", "val", "test")
    sides: list[Side | None] = [s for s in every if _named(arrays, FEATURES, s) is not None]
    sides = sides or [None]
    if sides[0] is not None and "train" not in sides:
        raise ValueError(f"{path.name} must hold training rows, got {_told(arrays)}")
    xs, ys = [], []
    for side in sides:
        xs.append(_features(path, arrays, side))
        ys.append(_labels(path, arrays, side, label, len(xs[-1])))
        if xs[-1].shape[1:] != xs[0].shape[1:]:
            raise ValueError(
                f"{path.name} must hold rows of one shape, got {xs[0].shape[1:]} and {xs[-1].shape[1:]}"
            )
    x, note = _arranged(path, np.concatenate(xs))
    given = _class_names(path, arrays)
    return ArrayRows(
        labels=_spelled(path, np.concatenate(ys), given),
        sides=np.repeat([side or "" for side in sides], [len(y) for y in ys]).astype("<U5"),
        copies=numbered([hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in x]),
        groups=None if group is None else _groups(path, arrays, group, len(x)),
        class_names=given,
        notes=[note] if note else [],
        x=torch.from_numpy(np.ascontiguousarray(x)),
        file=path.name,
    )


def _loaded(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, BadZipFile, EOFError) as error:
        raise ValueError(f"{path.name} must hold plain arrays, as numpy.savez writes them: {error}") from None


def _named(arrays: Arrays, names: tuple[str, ...], side: Side | None) -> NDArray | None:
    """The array with one of these names, with the split as a prefix or suffix if one is given."""
    forms = {
        form
        for name in names
        for word in ([word for word in SIDES if SIDES[word] == side] if side else [""])
        for form in ((f"{name}_{word}", f"{word}_{name}", f"{name}{word}") if word else (name,))
    }
    return next((array for name, array in arrays.items() if name.lower() in forms), None)


def _features(path: Path, arrays: Arrays, side: Side | None) -> NDArray:
    x = _named(arrays, FEATURES, side)
    if x is None:
        raise ValueError(f"{path.name} must hold an array x of features and y of labels, got {_told(arrays)}")
    if x.dtype == bool or x.dtype.kind in "iu":
        x = x if x.dtype == np.uint8 else x.astype(np.float32)
    elif x.dtype.kind != "f":
        raise ValueError(f"{path.name} must hold numbers as features, got {x.dtype}")
    x = x if x.dtype == np.uint8 else x.astype(np.float32)
    if x.ndim not in (2, 3, 4) or 0 in x.shape:
        raise ValueError(
            f"{path.name} must hold features (N, D), or images (N, H, W) or (N, H, W, C), got {x.shape}"
        )
    finite = np.isfinite(x).reshape(len(x), -1).all(1)
    if not finite.all():
        raise ValueError(f"{path.name} must hold finite features, got NaN or inf in row {finite.argmin()}")
    return x


def _labels(path: Path, arrays: Arrays, side: Side | None, label: str | None, rows: int) -> NDArray:
    names = LABELS if label is None else (label.lower(),)
    y = _named(arrays, names, side)
    if y is None:
        raise ValueError(
            f"{path.name} must hold an array {names[0]} of labels for its features, got {_told(arrays)}"
        )
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (rows,):
        raise ValueError(f"{path.name} must hold one label for each of {rows} rows, ({rows},), got {y.shape}")
    return y


def _groups(path: Path, arrays: Arrays, group: str, rows: int) -> Indices:
    if group not in arrays or arrays[group].shape != (rows,):
        raise ValueError(
            f"group must name an array of {path.name} of shape ({rows},), got {group!r} of {_told(arrays)}"
        )
    return numbered(arrays[group])


def _class_names(path: Path, arrays: Arrays) -> list[str] | None:
    names = arrays.get("class_names")
    if names is None:
        return None
    told = [str(name) for name in names.reshape(-1)]
    if len(set(told)) < len(told):
        raise ValueError(f"{path.name} must hold class_names that differ, got {', '.join(told[:10])}")
    return told


def _spelled(path: Path, y: NDArray, class_names: list[str] | None) -> list[str]:
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        raise ValueError(
            f"{path.name} must hold a label in each row, got {y[~np.isfinite(y)][0]} in row "
            f"{np.isfinite(y).argmin()}"
        )
    if y.dtype.kind == "f" and (y == y.round()).all():
        y = y.astype(np.int64)
    if class_names is None or y.dtype.kind not in "iu":
        return [str(value) for value in y.tolist()]
    if y.min() < 0 or y.max() >= len(class_names):
        raise ValueError(
            f"{path.name} must hold labels in [0, {len(class_names) - 1}], one for each of class_names, got "
            f"{y.min()} to {y.max()}"
        )
    return [class_names[value] for value in y]


def _arranged(path: Path, x: NDArray) -> tuple[NDArray, str | None]:
    """Images with the channels first."""
    if x.ndim == 2:
        return x.astype(np.float32), None
    if x.ndim == 3:
        return x[:, None], None
    if x.shape[1] <= x.shape[3]:
        return x, f"arrays {x.shape} are images of {x.shape[1]} channels"
    return x.transpose(0, 3, 1, 2), f"arrays {x.shape} are images of {x.shape[3]} channels, which come last"


def _as_bytes(x: Tensor) -> Tensor:
    if x.dtype == torch.uint8:
        return x
    low, high = x.min(), x.max()
    return ((x - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)


def _told(arrays: Arrays) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
