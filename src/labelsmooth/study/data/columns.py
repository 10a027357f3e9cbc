"""The role of each column of a table: number, category, text or ignored."""

import re
from typing import Literal, NamedTuple

import polars as pl

WORDS = 3  # strings with so many words on average are texts
MANY = 50  # strings with more distinct values are not categories
NUMBERS = 0.95  # a column of strings with this share of numbers is numeric
UNSPACED = r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]{4}"  # scripts without spaces between words
IDENTIFIER = re.compile(r"|index|row|(.*[_\s.-])?(id|uuid|guid)|Unnamed: 0|[a-z]+I[dD]")


class Column(NamedTuple):
    """The role of a column, and a note about it."""

    kind: Literal["number", "category", "text", "ignored"]
    note: str | None = None


def plain(column: pl.Series) -> pl.Series:
    """A column of numbers or of strings, with null for missing values; other columns unchanged."""
    dtype = column.dtype
    if dtype.is_float():
        return column.cast(pl.Float64).fill_nan(None)
    if dtype.is_numeric() or dtype == pl.Boolean:
        return column.cast(pl.Float64)
    if dtype.is_temporal():
        days = column.cast(pl.Datetime("us")).dt.epoch("s") if dtype in (pl.Date, pl.Datetime) else column
        return days.cast(pl.Int64).cast(pl.Float64)
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        stripped = column.cast(pl.String).str.strip_chars()
        return stripped.set(stripped == "", None)
    return column


def column_of(values: pl.Series, dtype: pl.DataType) -> Column:
    """The role of a column, from the values of its training rows and its original type."""
    if values.null_count() == len(values):
        return Column("ignored", "without a value in any training row")
    if dtype.is_nested() or values.dtype not in (pl.Float64, pl.String):
        return Column("ignored", "of lists or objects")
    if values.n_unique() < 2:
        return Column("ignored", "the same value in every training row")
    if values.dtype == pl.Float64:
        return _numeric(values, dtype)
    return _string(values)


def _numeric(values: pl.Series, dtype: pl.DataType) -> Column:
    if dtype.is_temporal():
        return Column("number", "dates or times")
    if dtype.is_integer() and values.n_unique() == len(values) and _numbers_rows(values):
        return Column("ignored", "row numbers or identifiers")
    return Column("number")


def _numbers_rows(values: pl.Series) -> bool:
    """Whether the name, or consecutive numbers, say that a column only identifies its rows."""
    if IDENTIFIER.fullmatch(values.name.lower()) or IDENTIFIER.fullmatch(values.name):
        return True
    return len(values) >= MANY and values.is_sorted() and _span(values) < 2 * len(values)


def _span(values: pl.Series) -> float:
    present = values.drop_nulls()
    return present[-1] - present[0] if len(present) else 0.0


def _string(values: pl.Series) -> Column:
    present = values.drop_nulls()
    numbers = as_numbers(present)
    if numbers.count() >= NUMBERS * len(present):
        odd = present.filter(numbers.is_null())
        note = (
            f"{len(odd)} values such as {odd[0]!r} are not numbers and count as missing" if len(odd) else None
        )
        return Column("number", note)
    distinct = present.n_unique()
    words = present.str.count_matches(r"\S+").mean()
    long = isinstance(words, float) and words >= WORDS
    if distinct > min(MANY, len(present) / 2) and (long or is_unspaced(present)):
        return Column("text")
    if distinct == len(present):
        return Column("ignored", "a different value in every row, like names and identifiers")
    return Column("category")


def as_numbers(values: pl.Series) -> pl.Series:
    """Finite numbers, with null for other values."""
    numbers = values.cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite(), None)


def is_unspaced(values: pl.Series) -> bool:
    """Whether most texts are in a script such as Chinese, Japanese or Thai."""
    share = values.str.contains(UNSPACED).mean()
    return isinstance(share, float) and share > 0.5
