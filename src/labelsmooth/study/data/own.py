"""The user's data, from a file or a folder to tensors."""

from pathlib import Path

import numpy as np
import torch

from labelsmooth.study.data.arrays import read_arrays
from labelsmooth.study.data.frames import read_tables
from labelsmooth.study.data.images import read_images
from labelsmooth.study.data.labels import classes
from labelsmooth.study.data.paths import find
from labelsmooth.study.data.rows import Data, Indices, Part, Rows, Sides
from labelsmooth.study.data.splits import rare, split


def read(
    path: str | Path,
    *,
    label: str | None = None,
    ordinal: bool = False,
    group: str | None = None,
    test: str | Path | None = None,
) -> Data:
    """Read rows, find their classes, split them, and encode them for a model.

    Raises:
        ValueError: if the data are invalid; the message names the file, the column and the row.
    """
    rows = _rows(path, label, group, test)
    class_names = _class_names(rows, ordinal)
    known = {name: number for number, name in enumerate(class_names)}
    y = np.array([known[name] for name in rows.labels], dtype=np.int64)
    sides, notes = split(y, rows.sides, rows.copies, rows.groups)
    _check_learnt(y, sides, rows)
    inputs = rows.inputs(np.flatnonzero(sides == "train"))
    parts = {side: np.flatnonzero(sides == side) for side in ("train", "val", "test")}
    train, val, test_part = (
        Part(inputs.x[torch.from_numpy(i)], torch.from_numpy(y[i])) for i in parts.values()
    )
    return Data(
        train=train,
        val=val,
        test=test_part,
        mean=inputs.mean,
        std=inputs.std,
        class_names=class_names,
        about=inputs.about,
        notes=[*rows.notes, *notes, *rare(y, class_names), *inputs.notes],
        test_rows=rows.shown(parts["test"]),
    )


def _rows(path: str | Path, label: str | None, group: str | None, test: str | Path | None) -> Rows:
    source = find(path, test)
    match source.kind:
        case "table":
            return read_tables(source.parts, label, group)
        case "arrays":
            return read_arrays(source.parts[None], label, group)
        case "images":
            for name, value in (("label", label), ("group", group)):
                if value is not None:
                    raise ValueError(
                        f"{name} requires a table (the class of an image is its folder), got {value!r}"
                    )
            return read_images(source.parts)


def _class_names(rows: Rows, ordinal: bool) -> list[str]:
    found = classes(rows.labels, ordinal, rows.place)
    if rows.class_names is None or ordinal:
        return found
    return [name for name in rows.class_names if name in set(found)]


def _check_learnt(y: Indices, sides: Sides, rows: Rows) -> None:
    unlearnt = np.flatnonzero(~np.isin(y, y[sides == "train"]))
    if len(unlearnt):
        row = int(unlearnt[0])
        raise ValueError(
            f"every class must have training rows, got none of {rows.labels[row]!r}, "
            f"the label of {rows.place(row)}"
        )
