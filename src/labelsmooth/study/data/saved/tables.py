"""Reading of tables with a label and a column for each class."""

import csv
import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import polars as pl

PREFIXES = {"logit_": "logits", "probability_": "probabilities", "prob_": "probabilities"}
SPLIT_NAMES = {"test": "test", "val": "val", "valid": "val", "validation": "val", "train": "train"}
SEPARATORS = ",;\t"
TOLD = ("id", "split")  # columns that are not classes
TRUTH = {"false": "0", "true": "1"}


def read_table(path: Path, kind: str | None, label: str | None) -> dict[str, Any]:
    """The table as named arrays."""
    import polars as pl

    try:
        return _arrays(path, _frame(path, label or "label"), kind, label)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        why = next(iter(str(error).strip().splitlines()), "it is empty")
        raise ValueError(f"{path} is damaged, empty, or not a table ({why})") from None


def _arrays(path: Path, frame: "pl.DataFrame", kind: str | None, label: str | None) -> dict[str, Any]:
    if not frame.height:
        raise ValueError(f"{path} has no rows")
    label = _label(path, frame.columns, label)
    kind, columns = _class_columns(path, [c for c in frame.columns if c != label], kind)
    for name in (label, *TOLD):
        if name in frame.columns and (row := _first(_is_missing(frame[name]))) is not None:
            raise ValueError(f"{path}: column {name!r} must have a value in every row, got none {_in(row)}")
    scores = np.stack([_numbers(path, frame[column]) for column in columns], 1)
    said = _texts(frame[label])
    names = list(columns.values())
    if len(names) == 1:
        names = _two_classes(names[0], said)
    labels = class_indices(f"{path}: column {label!r}", said, names)
    splits = _splits(path, frame)
    read: dict[str, Any] = {"class_names": names} if names else {}
    for split in dict.fromkeys(splits.tolist()):
        rows = splits == split
        read |= {f"{split}_{kind}": scores[rows], f"{split}_labels": labels[rows]}
        if "id" in frame.columns and split != "train":
            read["ids" if split == "test" else "val_ids"] = _texts(frame["id"])[rows]
    return read


def class_indices(where: str, labels: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
    """Class indices of labels, strings that are all class names or all indices."""
    known = {name: i for i, name in enumerate(names or ())}
    distinct, place = np.unique(labels, return_inverse=True)
    said = distinct.tolist()
    if all(text in known for text in said):
        return np.array([known[text] for text in said])[place]
    indices = [_whole(text) for text in said]
    if all(i is not None and (not known or 0 <= i < len(known)) for i in indices):
        return np.array(indices)[place]
    odd = next(
        text for text, i in zip(said, indices, strict=True) if text not in known and (i is None or known)
    )
    row = _first(labels == odd)
    if not known:
        raise ValueError(f"{where} must hold integers if classes have no names, got {odd!r} {_in(row)}")
    raise ValueError(
        f"{where} must hold class names or class indices, got {odd!r} {_in(row)}"
        f"{nearest(odd, known)}; classes: {listed(known)}"
    )


def _in(row: int | None) -> str:
    return f"in row {row}, counted from 0"


def nearest(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def listed(names: Any, most: int = 12) -> str:
    names = [repr(name) for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _frame(path: Path, label: str) -> "pl.DataFrame":
    import polars as pl

    from labelsmooth.study.data.tables import decoded

    if path.suffix.lower() == ".parquet":
        # polars would read brackets in a path as a pattern.
        return pl.read_parquet(io.BytesIO(path.read_bytes()))
    content = decoded(path)[0].encode()
    columns, separator = _header(content)
    if twice := [name for i, name in enumerate(columns) if name in columns[:i]]:
        raise ValueError(f"{path}: column {twice[0]!r} occurs twice: rename one")
    theirs = pl.read_csv(content, separator=separator, n_rows=0).columns
    if len(theirs) != len(columns):
        raise ValueError(f"{path} must start with one line of column names")
    # Strings as written: 01 differs from 1.
    texts = {its: pl.String for its, name in zip(theirs, columns, strict=True) if name in (label, *TOLD)}
    frame = pl.read_csv(content, separator=separator, infer_schema_length=None, schema_overrides=texts)
    frame.columns = columns
    return frame


def _header(content: bytes) -> tuple[list[str], str]:
    """The column names and the separator of a table. polars would double a quoted quote in a name."""
    first, _, _ = content.partition(b"\n")
    separator = max(SEPARATORS, key=first.decode("utf-8-sig").count)
    lines = io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline="")
    return next(csv.reader(lines, delimiter=separator), []), separator


def _label(path: Path, columns: Sequence[str], label: str | None) -> str:
    name = label or "label"
    if name not in columns:
        raise ValueError(
            f"{path} has no column {name!r}{nearest(name, columns)}: name the label column with label= "
            f"(--label COLUMN); columns: {listed(columns)}"
        )
    return name


def _class_columns(path: Path, columns: Sequence[str], kind: str | None) -> tuple[str, dict[str, str]]:
    """The kind of the class columns, and the column of each class name."""
    found: dict[str, dict[str, str]] = {}
    for column in columns:
        for prefix, what in PREFIXES.items():
            if column.startswith(prefix) or column == prefix[:-1]:
                found.setdefault(what, {})[column] = column[len(prefix) :]
    if kind is None and len(found) == 1:
        (kind,) = found
    if kind in found:
        return kind, found[kind]
    # A column without a name is the index that pandas writes.
    plain = {column: column for column in columns if column and column not in TOLD}
    if kind is not None and not found and plain:
        return kind, plain
    if kind is not None and found:
        (other,) = found
        raise ValueError(f"{path} holds {other}, by its columns {listed(found[other])}, and no {kind}")
    if found:
        raise ValueError(
            f"{path} has columns of logits and of probabilities: choose one with kind= "
            "(--kind logits or --kind probabilities)"
        )
    raise ValueError(
        f"{path} must have columns named logit_<class> or probability_<class>; if all columns "
        "except the label, id and split are classes, say what they hold with kind= (--kind logits or "
        f"--kind probabilities); columns: {listed(plain)}"
    )


def _numbers(path: Path, column: "pl.Series") -> np.ndarray:
    import polars as pl

    if not column.dtype.is_numeric():
        texts = column.cast(pl.String)
        column = texts.str.strip_chars().cast(pl.Float64, strict=False)
        if (row := _first(column.is_null() & texts.is_not_null())) is not None:
            raise ValueError(
                f"{path}: column {column.name!r} must hold numbers, got {texts[row]!r} {_in(row)}"
            )
    if (row := _first(column.is_null())) is not None:
        raise ValueError(
            f"{path}: column {column.name!r} must hold a number in every row, got none {_in(row)}"
        )
    return column.cast(pl.Float64).to_numpy()


def _is_missing(column: "pl.Series") -> "pl.Series":
    return column.is_null() | column.is_nan() if column.dtype.is_float() else column.is_null()


def _texts(column: "pl.Series") -> np.ndarray:
    import polars as pl

    if column.dtype.is_float() and bool((column == column.round()).all()):
        column = column.cast(pl.Int64)
    return column.cast(pl.String).to_numpy().astype(str)


def _two_classes(name: str, labels: np.ndarray) -> list[str] | None:
    """The class names for a single column, which is that of class 1."""
    others = [text for text in np.unique(labels).tolist() if text != name]
    if name in labels and len(others) == 1:
        return [others[0], name]
    return [f"not {name}", name] if name else None


def _splits(path: Path, frame: "pl.DataFrame") -> np.ndarray:
    if "split" not in frame.columns:
        return np.full(frame.height, "test")
    said = _texts(frame["split"])
    for text in np.unique(said).tolist():
        if text.strip().lower() not in SPLIT_NAMES:
            row = _first(said == text)
            raise ValueError(f"{path}: column 'split' must hold test, val or train, got {text!r} {_in(row)}")
    return np.array([SPLIT_NAMES[text.strip().lower()] for text in said.tolist()])


def _whole(text: str) -> int | None:
    """The integer in ``3``, ``3.0`` or ``true``."""
    try:
        number = float(TRUTH.get(text.strip().lower(), text))
        return int(number) if number == int(number) else None
    except (ValueError, OverflowError):
        return None


def _first(bad: Any) -> int | None:
    """The first row with a true value, counted from 0."""
    places = np.flatnonzero(np.asarray(bad))
    return int(places[0]) if len(places) else None
