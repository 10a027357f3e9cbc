"""Labelled rows from tables: the label column, the rows with a label, and the features."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from labelsmooth.study.data.columns import Column, column_of, plain
from labelsmooth.study.data.paths import Side, side_of
from labelsmooth.study.data.rows import Indices, Inputs, Rows, Shown, Sides, numbered
from labelsmooth.study.data.tables import read_table

LABELS = ("label", "labels", "target", "class", "category", "y", "quality", "species", "diagnosis", "outcome")
LONGEST = 500  # characters of a row in the report


@dataclass(frozen=True, kw_only=True)
class TableRows(Rows):
    """Rows of tables with the same columns."""

    frame: pl.DataFrame  # plain columns: numbers, strings, or columns that are ignored
    types: Mapping[str, pl.DataType]  # the original types
    places: Sequence[tuple[str, int]]

    def place(self, row: int) -> str:
        name, number = self.places[row]
        return f"row {number} of {name}"

    def inputs(self, train: Indices) -> Inputs:
        from labelsmooth.study.data.encoding import encoded  # scikit-learn is slow to import

        columns = {c.name: column_of(c, self.types[c.name]) for c in self.frame[train]}
        notes = _notes(columns)
        taken = {name: column for name, column in columns.items() if column.kind != "ignored"}
        if not taken:
            raise ValueError(f"data must have a feature column besides the label, got none: {_listed(notes)}")
        x = encoded(self.frame.select(*taken), taken, train)
        return Inputs(torch.from_numpy(x), torch.zeros(1), torch.ones(1), _about(taken), notes)

    def shown(self, rows: Indices) -> Shown:
        chosen = self.frame[rows]
        texts = [c for c in chosen if column_of(c, self.types[c.name]).kind == "text"]
        if len(texts) == 1 and chosen.width == 1:
            return [str(text or "")[:LONGEST] for text in texts[0]]
        return [_line(row) for row in chosen.iter_rows(named=True)]


def read_tables(parts: Mapping[Side | None, Path], label: str | None, group: str | None) -> TableRows:
    """The labelled rows of one table, or of a table for each split.

    Raises:
        ValueError: if a table is invalid; the message names the file, the column and the row.
    """
    files, notes = _files(parts)
    name, first = files[0].name, files[0].frame
    label, said = _label(first.columns, label, name)
    _check_columns(files, label)
    frame, sides, places = _joined(files)

    labels = _spelled(frame[label])
    rows = np.flatnonzero(labels.is_not_null())
    if not len(rows):
        raise ValueError(f"column {label!r} of {name} must hold labels, got none in any row")
    if left_out := len(frame) - len(rows):
        said.append(f"{left_out} rows have no label and are left out")
    features, sides, places = frame[rows].drop(label), sides[rows], [places[i] for i in rows]

    groups = None
    if group is not None:
        _check_named("group", group, frame.columns)
        groups = _groups(features, group, places)
        features = features.drop(group)
        said.append(f"rows with the same {group!r} are in the same split; the column is not a feature")
    if not sides.any() and (column := _split_column(features)) is not None:
        sides = np.array([side_of(str(value)) for value in features[column]], dtype="<U5")
        features = features.drop(column)
        said.append(f"column {column!r} gives the training, validation and test rows")
    if features.width == 0:
        raise ValueError(f"{name} must have a feature column besides the label {label!r}, got none")
    values = pl.DataFrame([plain(column) for column in features])
    _check_finite(values, places)
    return TableRows(
        labels=labels.drop_nulls().to_list(),
        sides=sides,
        copies=numbered(_hashes(values)),
        groups=groups,
        notes=[*notes, *said],
        frame=values,
        types=dict(features.schema),
        places=places,
    )


class _File(NamedTuple):
    name: str
    side: str
    frame: pl.DataFrame


def _files(parts: Mapping[Side | None, Path]) -> tuple[list[_File], list[str]]:
    """The table that was read, and the notes about it without repetition."""
    files, notes = [], []
    for side, path in parts.items():
        frame, said = read_table(path)
        files.append(_File(path.name, side or "", frame))
        notes += said
    return files, [*dict.fromkeys(notes)]


def _label(columns: list[str], label: str | None, file: str) -> tuple[str, list[str]]:
    """The given label column, or the only column with a usual name of a label."""
    if label is not None:
        _check_named("label", label, columns)
        return label, []
    found = [column for column in columns if column.strip().lower() in LABELS]
    if len(found) != 1:
        why = f"{' and '.join(map(repr, found))} may be" if found else "no name says which is"
        raise ValueError(
            f"label must name the column of {file} that holds the classes, since {why}: {_listed(columns)}"
        )
    return found[0], [f"column {found[0]!r} is the label, by its name"]


def _check_named(argument: str, name: str, columns: list[str]) -> None:
    if name in columns:
        return
    close = difflib.get_close_matches(name.lower(), [column.lower() for column in columns], n=1)
    meant = next((column for column in columns if column.lower() in close), None)
    hint = f": did you mean {meant!r}?" if meant else ""
    raise ValueError(f"{argument} must name a column, one of {_listed(columns)}, got {name!r}{hint}")


def _check_columns(files: Sequence[_File], label: str) -> None:
    first, *others = files
    for name, _, frame in others:
        for column in first.frame.columns:
            if column not in frame.columns:
                what = ", the label" if column == label else ""
                raise ValueError(
                    f"{name} must have every column of {first.name}, got none named {column!r}{what}"
                )


def _joined(files: Sequence[_File]) -> tuple[pl.DataFrame, Sides, list[tuple[str, int]]]:
    """The frames concatenated in the column order of the first; columns of two types become strings."""
    columns, frames = files[0].frame.columns, [file.frame for file in files]
    mixed = [name for name in columns if len({_family(frame[name]) for frame in frames}) > 1]
    alike = [frame.select(columns).with_columns(pl.col(mixed).cast(pl.String)) for frame in frames]
    sides = np.repeat([file.side for file in files], [len(frame) for frame in frames])
    places = [(file.name, i + 1) for file in files for i in range(len(file.frame))]
    return pl.concat(alike, how="vertical_relaxed"), sides.astype("<U5"), places


def _family(column: pl.Series) -> str:
    return "number" if column.dtype.is_numeric() else str(column.dtype)


def _spelled(column: pl.Series) -> pl.Series:
    """Labels as strings: whole numbers without a fraction, null for missing labels."""
    if column.dtype.is_nested():
        raise ValueError(f"column {column.name!r} must hold one label in each row, got {column.dtype}")
    if column.dtype.is_float():
        column = column.fill_nan(None)
        whole = column.drop_nulls()
        column = (
            column.cast(pl.Int64) if (whole == whole.round()).all() and whole.is_finite().all() else column
        )
    stripped = column.cast(pl.String).str.strip_chars()
    return stripped.set(stripped == "", None)


def _groups(frame: pl.DataFrame, group: str, places: Sequence[tuple[str, int]]) -> Indices:
    if group not in frame.columns:
        raise ValueError(f"group must be another column than the label, got {group!r} for both")
    column = frame[group]
    if column.null_count():
        name, number = places[int(column.is_null().arg_max() or 0)]
        raise ValueError(f"group must be given in every row, got none in row {number} of {name}")
    return numbered(column.cast(pl.String).to_list())


def _split_column(features: pl.DataFrame) -> str | None:
    """The column named split, if it holds only names of splits and there are training rows."""
    for column in features.columns:
        if column.strip().lower() == "split" and features[column].dtype == pl.String:
            sides = {side_of(str(value)) for value in features[column].unique()}
            if "train" in sides and None not in sides and len(sides) > 1:
                return column
    return None


def _check_finite(values: pl.DataFrame, places: Sequence[tuple[str, int]]) -> None:
    for column in values:
        if column.dtype == pl.Float64 and (infinite := column.is_infinite().fill_null(False)).any():
            row = int(infinite.arg_max() or 0)
            name, number = places[row]
            raise ValueError(
                f"column {column.name!r} must be finite, got {column[row]} in row {number} of {name}"
            )


def _hashes(values: pl.DataFrame) -> Sequence[int]:
    simple = values.with_columns(pl.col(c.name).cast(pl.String) for c in values if c.dtype == pl.Null)
    return simple.hash_rows(seed=0).to_list()


def _notes(columns: Mapping[str, Column]) -> list[str]:
    """One line for all columns with the same note."""
    alike: dict[Column, list[str]] = {}
    for name, column in columns.items():
        if column.note:
            alike.setdefault(column, []).append(repr(name))
    return [_note(column, names) for column, names in alike.items()]


def _note(column: Column, names: list[str]) -> str:
    which = f"column {names[0]} is" if len(names) == 1 else f"columns {_listed(names)} are"
    taken = "ignored" if column.kind == "ignored" else "taken as numbers"
    return f"{which} {taken}: {column.note}"


def _about(columns: Mapping[str, Column]) -> str:
    if [column.kind for column in columns.values()] == ["text"]:
        return "texts"
    return f"a table of {len(columns)} column{'s' if len(columns) > 1 else ''}"


def _line(row: Mapping[str, object]) -> str:
    told = (
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}" for name, value in row.items()
    )
    return ", ".join(told)[:LONGEST]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
