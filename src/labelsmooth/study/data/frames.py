"""Labelled rows from tables: which column is the label, which rows have one, and what the others become."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from labelsmooth.study.data.columns import Column, column_of, plain
from labelsmooth.study.data.paths import Side, side_of
from labelsmooth.study.data.rows import Indices, Inputs, Rows, Shown, numbered
from labelsmooth.study.data.tables import read_table

LABELS = ("label", "labels", "target", "class", "category", "y", "quality", "species", "diagnosis", "outcome")
LONGEST = 500  # letters of a row that a report shows


@dataclass(frozen=True, kw_only=True)
class TableRows(Rows):
    """Rows of tables with the same columns."""

    frame: pl.DataFrame  # of plain columns: numbers, strings, or what no model takes
    types: Mapping[str, pl.DataType]  # as they were read
    places: Sequence[tuple[str, int]]

    def place(self, row: int) -> str:
        name, number = self.places[row]
        return f"row {number} of {name}"

    def inputs(self, train: Indices) -> Inputs:
        from labelsmooth.study.data.encoding import encoded  # scikit-learn is slow to import

        columns = {c.name: column_of(c, self.types[c.name]) for c in self.frame[train]}
        notes = [
            f"column {name!r} {'is ignored: ' if column.kind == 'ignored' else 'is taken as numbers: '}{column.note}"
            for name, column in columns.items()
            if column.note
        ]
        taken = {name: column for name, column in columns.items() if column.kind != "ignored"}
        if not taken:
            raise ValueError(
                f"data must have a column to learn from besides the label, got none: {_listed(notes)}"
            )
        x = encoded(self.frame.select(*taken), taken, train)
        return Inputs(torch.from_numpy(x), torch.zeros(1), torch.ones(1), _about(taken), notes)

    def shown(self, rows: Indices) -> Shown:
        chosen = self.frame[rows]
        texts = [c for c in chosen if column_of(c, self.types[c.name]).kind == "text"]
        if len(texts) == 1 and chosen.width == 1:
            return [str(text or "")[:LONGEST] for text in texts[0]]
        return [_line(row) for row in chosen.iter_rows(named=True)]


def read_tables(parts: Mapping[Side | None, Path], label: str | None, group: str | None) -> TableRows:
    """The rows of one table, or of one for each side, that have a label.

    Raises:
        ValueError: naming the file, the column and the row of what is wrong.
    """
    read = {side: read_table(path) for side, path in parts.items()}
    notes = [*dict.fromkeys(note for _, said in read.values() for note in said)]
    frames = {side: frame for side, (frame, _) in read.items()}
    first = next(iter(parts.values())).name
    label, said = _label(frames[next(iter(parts))].columns, label, first)
    _check_columns(parts, frames, label)
    frame = _joined(list(frames.values()))
    places = [(parts[side].name, i + 1) for side, each in frames.items() for i in range(len(each))]
    sides = np.repeat([side or "" for side in frames], [len(each) for each in frames.values()]).astype("<U5")

    labels = _spelled(frame[label])
    labelled = labels.is_not_null().to_numpy()
    notes += said
    if not labelled.all():
        notes.append(f"{(~labelled).sum()} rows have no label and are left out")
    if not labelled.any():
        raise ValueError(f"column {label!r} of {first} must hold a label, got none in any row")
    rows = np.flatnonzero(labelled)
    frame, sides, places = frame[rows], sides[rows], [places[i] for i in rows]

    features = frame.drop(label)
    groups = None
    if group is not None:
        groups = _groups(frame, group, label, places)
        features = features.drop(group)
        notes.append(f"rows with the same {group!r} stay on one side, and the model does not see it")
    if not sides.any() and (column := _split_column(features)) is not None:
        sides = np.array([side_of(str(value)) for value in features[column]], dtype="<U5")
        features = features.drop(column)
        notes.append(f"column {column!r} says which rows train, validate and test")
    if features.width == 0:
        raise ValueError(f"{first} must have a column besides the label {label!r}, got none")
    values = pl.DataFrame([plain(column) for column in features])
    _check_finite(values, places)
    return TableRows(
        labels=labels.drop_nulls().to_list(),
        sides=sides,
        copies=numbered(_hashes(values)),
        groups=groups,
        notes=notes,
        frame=values,
        types=dict(features.schema),
        places=places,
    )


def _label(columns: list[str], label: str | None, file: str) -> tuple[str, list[str]]:
    """The column that was named, or the only one whose name says that it is the label."""
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


def _check_columns(
    parts: Mapping[Side | None, Path], frames: Mapping[Side | None, pl.DataFrame], label: str
) -> None:
    (_, first), *others = frames.items()
    names = [path.name for path in parts.values()]
    for name, (_, frame) in zip(names[1:], others, strict=True):
        for column in first.columns:
            if column not in frame.columns:
                what = "the label" if column == label else "a column"
                raise ValueError(
                    f"{name} must have the columns of {names[0]}, got none named {column!r} ({what})"
                )


def _joined(frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Below one another, by the columns of the first; a column of two types in strings."""
    columns = frames[0].columns
    mixed = [name for name in columns if len({_family(frame[name]) for frame in frames}) > 1]
    return pl.concat(
        [frame.select(columns).with_columns(pl.col(mixed).cast(pl.String)) for frame in frames],
        how="vertical_relaxed",
    )


def _family(column: pl.Series) -> str:
    return "number" if column.dtype.is_numeric() else str(column.dtype)


def _spelled(column: pl.Series) -> pl.Series:
    """Labels as strings: whole numbers without a fraction, nothing where there is none."""
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


def _groups(frame: pl.DataFrame, group: str, label: str, places: Sequence[tuple[str, int]]) -> Indices:
    _check_named("group", group, frame.columns)
    if group == label:
        raise ValueError(f"group must name another column than the label, got {group!r} for both")
    column = frame[group]
    if column.null_count():
        name, number = places[int(column.is_null().arg_max() or 0)]
        raise ValueError(f"group must be given in every row, got none in row {number} of {name}")
    return numbered(column.cast(pl.String).to_list())


def _split_column(features: pl.DataFrame) -> str | None:
    """A column named split that holds nothing but names of sides, and training rows among them."""
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
