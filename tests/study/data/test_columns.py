"""What each kind of column becomes, by training rows alone, and what is said of it."""

import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from labelsmooth.study.data.columns import column_of, plain
from labelsmooth.study.data.own import read

from .written import ROWS, csv, sentences, table

WORDS = ("red", "green", "blue")


def kind(values: list[Any], name: str = "x", dtype: Any = None) -> tuple[str, str | None]:
    column = pl.Series(name, values, dtype=dtype)
    return column_of(plain(column), column.dtype)


@pytest.mark.parametrize(
    ("values", "taken"),
    [
        ([0.5, 1.5, None, 2.5], "number"),
        ([3, 1, 2, 2], "number"),
        ([True, False, None, True], "number"),
        (["1", "2.5", "3", "4"] * 9 + ["inf"], "number"),
        (["1", "2.5", " 3 ", ""], "number"),
        ([date(2020, 1, 1), date(2021, 1, 1), None], "number"),
        (["red", "blue", "red", None], "category"),
        (["less than high school", "a master's degree"] * 5, "category"),
        (sentences(), "text"),
        (["どこで買えますか" * (1 + i) for i in range(9)], "text"),
    ],
)
def test_a_column_is_what_its_values_are(values: list[Any], taken: str) -> None:
    assert kind(values)[0] == taken


@pytest.mark.parametrize(
    ("values", "name", "why"),
    [
        ([1.0, 1.0, 1.0], "x", "the same value in every training row"),
        (["a", "a"], "x", "the same value in every training row"),
        ([None, None], "x", "without a value in any training row"),
        ([f"u{i}" for i in range(30)], "x", "a different value in every row, like names and identifiers"),
        ([5, 3, 9], "customer_id", "row numbers or identifiers"),
        ([5, 3, 9], "userId", "row numbers or identifiers"),
        ([0, 1, 2], "", "row numbers or identifiers"),
        ([*range(10, 90)], "x", "row numbers or identifiers"),
        ([[1], [2]], "x", "of lists or objects"),
    ],
)
def test_a_column_that_says_nothing_is_ignored_and_said(values: list[Any], name: str, why: str) -> None:
    taken, note = kind(values, name)
    assert taken == "ignored"
    assert why in str(note)


def test_numbers_in_no_order_are_kept_though_all_differ() -> None:
    assert kind([9, 2, 5, 1, 100] * 1)[0] == "number"
    assert kind([0.1 * i for i in range(80)])[0] == "number"


def test_notes_name_the_column(tmp_path: Path) -> None:
    days = [date(2020, 1, 1) + timedelta(days=i * i % 50) for i in range(ROWS)]
    frame = table().with_columns(
        day=pl.Series(days), code=pl.Series([f"u{i}" for i in range(ROWS)]), one=1, two=2
    )
    data = read(csv(tmp_path, frame))
    assert data.about == "a table of 4 columns"
    assert {
        "column 'day' is taken as numbers: dates or times",
        "column 'code' is ignored: a different value in every row, like names and identifiers",
        "columns 'one', 'two' are ignored: the same value in every training row",
    } <= set(data.notes)


def test_numbers_are_standardised_by_training_rows(tmp_path: Path) -> None:
    data = read(csv(tmp_path, table().drop("colour")))
    torch.testing.assert_close(data.train.x.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(data.train.x.std(0, correction=0), torch.ones(2))


def test_missing_numbers_are_the_median_and_say_so(tmp_path: Path) -> None:
    csv(tmp_path, {"x": [1.0, 2.0, None, 90.0] * 15, "n": range(60), "label": list("ab") * 30}, "train.csv")
    csv(tmp_path, {"x": [None, 2.0] * 5, "n": [0] * 10, "label": list("ab") * 5}, "test.csv")
    x = read(tmp_path).test.x
    assert x.shape == (10, 3)
    torch.testing.assert_close(x[::2, 0], x[1::2, 0])  # the median is 2
    assert (x[::2, 2] > 0).all()
    assert (x[1::2, 2] < 0).all()


def test_a_few_values_that_are_no_numbers_count_as_missing_and_are_said(tmp_path: Path) -> None:
    sides = ["train"] * 44 + ["val"] * 8 + ["test"] * 8
    values = ["unknown" if i == 30 else "inf" if i == 58 else f"{i * 7 % 60}.5" for i in range(ROWS)]
    data = read(csv(tmp_path, {"x": values, "split": sides, "label": list("abc") * 20}))
    assert data.test.x.isfinite().all()
    assert data.test.x.shape[1] == 2
    note = "column 'x' is taken as numbers: 1 values such as 'unknown' are not numbers and count as missing"
    assert note in data.notes


def test_categories_are_one_hot_and_rare_and_unknown_ones_are_one(tmp_path: Path) -> None:
    values = [WORDS[i % 3] for i in range(ROWS)]
    sides = ["val"] * 5 + ["train"] * 52 + ["test"] * 3
    values[-3:] = ["red", "never seen", "nor this"]
    values[-5:-3] = ["once", "twice"]
    x = read(csv(tmp_path, {"x": values, "split": sides, "label": list("abc") * 20})).test.x
    assert set(x.unique().tolist()) <= {0, 1}
    assert x[0].sum() == 1
    assert (x[1] == x[2]).all()
    assert (x[0] != x[1]).any()


def test_the_test_rows_change_nothing_of_what_is_learnt_from_training_rows(tmp_path: Path) -> None:
    rows = table(90).with_columns(text=pl.Series(sentences(90)), n=pl.Series([None, 1.0, 5.0] * 30))
    csv(tmp_path, rows[:60], "train.csv")
    csv(tmp_path, rows[60:], "test.csv")
    before = read(tmp_path)
    changed = rows[60:].with_columns(
        pl.lit(1e6).alias("width"),
        pl.lit("purple").alias("colour"),
        pl.lit("new words all over").alias("text"),
    )
    csv(tmp_path, pl.concat([rows[60:61], changed[1:]]), "test.csv")
    after = read(tmp_path)
    assert (before.train.x == after.train.x).all()
    assert (before.val.x == after.val.x).all()
    assert (before.test.x[0] == after.test.x[0]).all()
    assert (before.test.x[1:] != after.test.x[1:]).any()


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_an_infinite_number_is_refused_by_column_and_row(tmp_path: Path, bad: float) -> None:
    values = [bad if i == 4 else float(i % 9) for i in range(ROWS)]
    said = f"column 'x' must be finite, got {bad} in row 5 of data.csv"
    with pytest.raises(ValueError, match=re.escape(said)):
        read(csv(tmp_path, table().with_columns(x=pl.Series(values))))


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    said = "must have a feature column besides the label, got none: column 'x' is ignored: a different"
    with pytest.raises(ValueError, match=said):
        read(csv(tmp_path, {"x": [f"u{i}" for i in range(ROWS)], "label": list("abc") * 20}))


def test_texts_become_at_most_256_numbers(tmp_path: Path) -> None:
    many = [f"{said} w{i} v{i} u{i * 3}" for i, said in enumerate(sentences(300))]
    few = ["so it is " + "ab"[i % 2] * (1 + i // 2) for i in range(20)]
    for texts, width in ((many, 256), (few, 32)):
        data = read(csv(tmp_path, {"text": texts, "label": ["card", "pin"] * (len(texts) // 2)}))
        assert data.about == "texts"
        assert width // 2 < data.train.x.shape[1] <= width


def test_rows_are_shown_as_a_person_reads_them(tmp_path: Path) -> None:
    data = read(csv(tmp_path, table(seed=3)))
    assert len(data.test_rows) == len(data.test)
    assert all(re.fullmatch(r"width=\S+, height=\S+, colour=\w+", str(row)) for row in data.test_rows)
    texts = sentences()
    told = read(csv(tmp_path, {"text": texts, "label": ["card", "pin"] * 30}))
    labels = [told.class_names[k] for k in told.test.y.tolist()]
    assert [("card" in str(row)) for row in told.test_rows] == [label == "card" for label in labels]
