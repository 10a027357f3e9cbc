"""Which column is the label, and what its classes are."""

import re
from pathlib import Path

import polars as pl
import pytest

from labelsmooth.study.data.own import read

from .written import ROWS, csv, table

LABELS = ["a", "b", "c"] * 20


@pytest.mark.parametrize("name", ["label", "Target", "class", "category", "y", "quality", "species"])
def test_a_column_of_a_common_name_is_the_label(tmp_path: Path, name: str) -> None:
    data = read(csv(tmp_path, table().rename({"label": name})))
    assert f"column {name!r} is the label, by its name" in data.notes
    assert data.class_names == ["class 0", "class 1", "class 2"]


def test_a_label_that_no_name_tells_is_asked_for(tmp_path: Path) -> None:
    path = csv(tmp_path, table().rename({"label": "kind"}))
    said = (
        "label must name the column of data.csv that holds the classes, since no name says which is: "
        "width, height, colour, kind"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        read(path)
    assert read(path, label="kind").class_names == ["class 0", "class 1", "class 2"]


def test_of_two_that_may_be_the_label_neither_is_taken(tmp_path: Path) -> None:
    path = csv(tmp_path, table().with_columns(target=pl.Series(LABELS)))
    with pytest.raises(ValueError, match="since 'label' and 'target' may be"):
        read(path)
    assert read(path, label="target").class_names == ["a", "b", "c"]


def test_a_wrong_name_is_told_the_nearest(tmp_path: Path) -> None:
    said = (
        "label must name a column, one of width, height, colour, label, got 'Colours': did you mean 'colour'?"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        read(csv(tmp_path, table()), label="Colours")
    with pytest.raises(ValueError, match=r"group must name a column, one of .*, got 'patient'$"):
        read(csv(tmp_path, table()), group="patient")
    with pytest.raises(ValueError, match="group must be another column than the label, got 'label' for both"):
        read(csv(tmp_path, table()), group="label")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 9, 2], ["2", "9", "10"]),
        ([10.0, 9.0, 2.0], ["2", "9", "10"]),
        ([0.5, 1.5, 10.5], ["0.5", "1.5", "10.5"]),
        (["10", "9", "b"], ["10", "9", "b"]),
        ([True, False, True], ["false", "true"]),
        ([" a", "b ", "a"], ["a", "b"]),
    ],
)
def test_classes_are_in_the_order_of_their_numbers_or_of_the_alphabet(
    tmp_path: Path, values: list[object], names: list[str]
) -> None:
    data = read(csv(tmp_path, table().with_columns(label=pl.Series(values * 20))))
    assert data.class_names == names


def test_labels_are_those_of_their_rows(tmp_path: Path) -> None:
    y = [i % 3 for i in range(ROWS)]
    data = read(csv(tmp_path, {"x": [10.0 * k + i / ROWS for i, k in enumerate(y)], "y": [5 - k for k in y]}))
    assert data.class_names == ["3", "4", "5"]
    for part in (data.train, data.val, data.test):
        assert [part.x[part.y == k].mean().sign().item() for k in (0, 2)] == [1, -1]


def test_ordinal_classes_are_numbers_in_order(tmp_path: Path) -> None:
    frame = table().with_columns(label=pl.Series([10, -1, 2] * 20))
    assert read(csv(tmp_path, frame), ordinal=True).class_names == ["-1", "2", "10"]
    said = "ordinal labels must be numbers, got 'class 0' in row 1 of data.csv"
    with pytest.raises(ValueError, match=said):
        read(csv(tmp_path, table()), ordinal=True)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    labels = [None if i in (3, 40) else name for i, name in enumerate(LABELS)]
    data = read(csv(tmp_path, table().with_columns(label=pl.Series(labels))))
    assert len(data.train) + len(data.val) + len(data.test) == ROWS - 2
    assert "2 rows have no label and are left out" in data.notes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([None] * ROWS, "column 'label' of data.csv must hold labels, got none in any row"),
        (["a"] * ROWS, "labels must be of two classes or more, got 'a' in every row"),
        (
            [f"n{i}" for i in range(ROWS)],
            "must be classes with several rows each, got 60 different labels in 60 rows",
        ),
        (
            [i % 25 + 0.5 for i in range(ROWS)],
            "got 25 different fractions such as 0.5: that is a continuous target",
        ),
    ],
)
def test_what_is_no_class_is_refused(tmp_path: Path, values: list[object], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read(csv(tmp_path, table().with_columns(label=pl.Series(values))))


def test_a_class_that_only_tests_is_refused_by_its_row(tmp_path: Path) -> None:
    csv(tmp_path, table(), "train.csv")
    csv(tmp_path, table(9).with_columns(label=pl.Series(["class 1", "new", "class 0"] * 3)), "test.csv")
    said = "every class must have training rows, got none of 'new', the label of row 2 of test.csv"
    with pytest.raises(ValueError, match=said):
        read(tmp_path)


def test_labels_that_are_lists_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    table().with_columns(label=pl.Series([["a"], ["b"], ["c"]] * 20)).write_parquet(path)
    with pytest.raises(ValueError, match="column 'label' must hold one label in each row, got List"):
        read(path)
