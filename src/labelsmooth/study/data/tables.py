"""Reading a table from a file of any common format."""

import csv
import re
from io import StringIO
from pathlib import Path

import polars as pl

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "pipes"}
MISSING = ["", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "?"]
SNIFFED = 200  # records that are read to detect the separator
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def read_table(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """A table with at least one row, and notes about its file.

    Raises:
        ValueError: if the file cannot be read, is empty, or has no column names; the message names it.
    """
    try:
        frame, notes = _read(path)
    except (pl.exceptions.PolarsError, OSError, UnicodeError) as error:
        raise ValueError(f"{path.name} cannot be read as a table: {_first_line(error)}") from None
    if frame.is_empty():
        raise ValueError(f"{path.name} must have at least one row below the column names, got none")
    return frame, notes


def _read(path: Path) -> tuple[pl.DataFrame, list[str]]:
    match path.suffix.lower():
        case ".parquet" | ".pq":
            return pl.read_parquet(path), []
        case ".jsonl" | ".ndjson":
            return pl.read_ndjson(path, infer_schema_length=None), []
        case ".json":
            return pl.read_json(path, infer_schema_length=None), []
        case _:
            return _read_csv(path)


def _read_csv(path: Path) -> tuple[pl.DataFrame, list[str]]:
    text, notes = decoded(path)
    if not text.strip():
        raise ValueError(f"{path.name} must have column names and rows, got an empty file")
    separator = _separator(text)
    _check_header(path, next(csv.reader(StringIO(text), delimiter=separator)))
    if separator != ",":
        notes.append(f"columns are separated by {SEPARATORS[separator]}")
    frame = _parsed(text, separator, decimal_comma=False)
    if separator != "," and any(_has_decimal_commas(column) for column in frame):
        notes.append("numbers have a decimal comma")
        frame = _parsed(text, separator, decimal_comma=True)
    return frame, notes


def _parsed(text: str, separator: str, *, decimal_comma: bool) -> pl.DataFrame:
    return pl.read_csv(
        text.encode(),
        separator=separator,
        null_values=MISSING,
        infer_schema_length=None,
        try_parse_dates=True,
        decimal_comma=decimal_comma,
    )


def decoded(path: Path) -> tuple[str, list[str]]:
    """The text in UTF-8, or in Windows-1252, which office programs write."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16"), []
    try:
        return raw.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        return raw.decode("cp1252"), ["the text is not UTF-8, so it is read as Windows-1252"]


def _separator(text: str) -> str:
    """The separator with the same, largest number of fields in every record."""

    def fields(separator: str) -> int:
        records = csv.reader(StringIO(text), delimiter=separator)
        widths = {len(record) for record, _ in zip(records, range(SNIFFED), strict=False) if record}
        return max(widths) if len(widths) == 1 and widths != {1} else 0

    header = text.lstrip().partition("\n")[0]
    return max(SEPARATORS, key=lambda separator: (fields(separator), header.count(separator)))


def _check_header(path: Path, names: list[str]) -> None:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise ValueError(f"{path.name} must have different column names, got {twice[0]!r} twice")
    counted = [str(i) for i in range(len(names))]
    if names != counted and all(
        re.fullmatch(r"[+-]?\d+([.,]\d+)?(e[+-]?\d+)?", name.strip()) for name in names
    ):
        raise ValueError(f"{path.name} must begin with the column names, got {', '.join(names[:3])}")


def _has_decimal_commas(column: pl.Series) -> bool:
    if column.dtype != pl.String:
        return False
    values = column.drop_nulls().head(SNIFFED)
    return len(values) > 0 and all(DECIMAL_COMMA.fullmatch(value.strip()) for value in values)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
