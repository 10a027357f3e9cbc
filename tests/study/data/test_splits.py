"""No row is on two sides, nor its copy, nor its group; and every class is on each, and trained."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelsmooth.study.data.own import read
from labelsmooth.study.data.splits import rare, split

from .written import csv, table

seeds = st.integers(0, 2**32 - 1)
OPEN = ""


def drawn(rows: int, classes: int, copies: int, groups: int | None, seed: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    y = np.concatenate([np.arange(classes), generator.integers(0, classes, rows - classes)])
    group = None if groups is None else generator.integers(0, groups, rows)
    return y, generator.integers(0, copies, rows), group  # pyright: ignore[reportReturnType]


@given(seed=seeds, grouped=st.booleans())
@settings(max_examples=20, deadline=None)
def test_neither_copies_nor_groups_are_on_two_sides(seed: int, grouped: bool) -> None:
    y, copies, groups = drawn(200, 4, 2000 if grouped else 150, 60 if grouped else None, seed)
    sides, _ = split(y, np.full(200, OPEN, "<U5"), copies, groups)
    for units in (copies, groups):
        if units is not None:
            assert all(len(set(sides[units == unit])) == 1 for unit in np.unique(units))
    assert set(sides) == {"train", "val", "test"}
    assert set(y[sides == "train"]) == set(y)


def test_sides_are_three_one_and_one_fifth_of_every_class() -> None:
    y = np.repeat([0, 1, 2], [100, 50, 10])
    sides, notes = split(y, np.full(160, OPEN, "<U5"), np.arange(160), None)
    assert [np.bincount(y[sides == side]).tolist() for side in ("train", "val", "test")] == [
        [60, 30, 6],
        [20, 10, 2],
        [20, 10, 2],
    ]
    assert notes == [
        "three fifths of the rows are training rows, a fifth validation and a fifth test rows: "
        "stratified by class, with a fixed seed"
    ]


def test_the_split_is_always_the_same() -> None:
    y, copies, groups = drawn(200, 4, 2000, 60, 1)
    first, second = (split(y, np.full(200, OPEN, "<U5"), copies, groups)[0] for _ in range(2))
    assert (first == second).all()


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_what_is_given_stays_where_it_is(seed: int) -> None:
    y, copies, _ = drawn(200, 3, 150, None, seed)
    fixed = np.where(np.arange(200) < 160, "train", "test").astype("<U5")
    sides, _ = split(y, fixed, copies, None)
    assert (sides[160:] == "test").all()
    assert set(sides[:160]) == {"train", "val"}
    of_val = copies[:160][sides[:160] == "val"]
    assert not set(of_val) & set(copies[:160][sides[:160] == "train"])


def test_a_class_of_one_row_is_trained() -> None:
    y = np.array([0] * 50 + [1] * 50 + [2] + [3] * 3)
    sides, _ = split(y, np.full(len(y), OPEN, "<U5"), np.arange(len(y)), None)
    assert sides[100] == "train"
    assert "train" in sides[101:]
    assert rare(y, ["a", "b", "c", "d"]) == [
        "classes of fewer than 5 rows may be missing in validation or test: c (1), d (3)"
    ]


def test_too_few_rows_or_groups_are_refused() -> None:
    few = np.array([0, 0, 1, 1, 1])
    said = "data must have at least 5 different rows of some class to be split, got 3"
    with pytest.raises(ValueError, match=said):
        split(few, np.full(5, OPEN, "<U5"), np.arange(5), None)
    said = "data must have at least 5 groups, and rows of some class, to be split, got 2 and 20"
    with pytest.raises(ValueError, match=said):
        split(np.arange(40) % 2, np.full(40, OPEN, "<U5"), np.arange(40), np.arange(40) // 20)


def test_copies_are_told_and_kept_together(tmp_path: Path) -> None:
    frame = pl.concat([table(60), table(60)[:12]])
    data = read(csv(tmp_path, frame))
    assert "12 rows are copies of another row: copies are in the same split" in data.notes
    rows = [{tuple(row.tolist()) for row in part.x} for part in (data.train, data.val, data.test)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 60


def test_copies_across_given_sides_are_warned_of(tmp_path: Path) -> None:
    csv(tmp_path, table(60), "train.csv")
    csv(tmp_path, pl.concat([table(60)[:3], table(9, seed=1)]), "test.csv")
    assert "warning: 3 of 12 test rows are copies of training or validation rows" in read(tmp_path).notes


def test_a_group_stays_together_and_is_not_seen(tmp_path: Path) -> None:
    patients = [f"p{i // 4}" for i in range(60)]
    frame = table().with_columns(patient=pl.Series(patients), width=pl.Series([i // 4 for i in range(60)]))
    data = read(csv(tmp_path, frame.select("width", "patient", "label")), group="patient")
    assert any("rows with the same 'patient' are in the same split" in note for note in data.notes)
    assert data.train.x.shape[1] == 1
    seen = [set(part.x.flatten().tolist()) for part in (data.train, data.val, data.test)]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 15


def test_a_missing_group_is_refused_by_its_row(tmp_path: Path) -> None:
    patients = [None if i == 7 else f"p{i // 4}" for i in range(60)]
    with pytest.raises(ValueError, match=re.escape("got none in row 8 of data.csv")):
        read(csv(tmp_path, table().with_columns(patient=pl.Series(patients))), group="patient")
