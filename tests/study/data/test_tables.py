"""Every format of a table is read as the same rows, and what is no table is refused by name."""

import re
from pathlib import Path

import polars as pl
import pytest

from labelsmooth.study.data.own import read
from labelsmooth.study.data.rows import Data

from .written import csv, sentences, table, text


def same(one: Data, other: Data) -> bool:
    return all(
        (getattr(one, side).x == getattr(other, side).x).all()
        and (getattr(one, side).y == getattr(other, side).y).all()
        for side in ("train", "val", "test")
    )


@pytest.fixture
def plain(tmp_path: Path) -> Data:
    return read(csv(tmp_path, table(), "plain.csv"))


@pytest.mark.parametrize(
    ("separator", "note"), [(";", "semicolons"), ("\t", "tabs"), ("|", "pipes"), (",", None)]
)
def test_any_common_separator_is_found_and_said(
    tmp_path: Path, plain: Data, separator: str, note: str | None
) -> None:
    path = tmp_path / "data.csv"
    table().write_csv(path, separator=separator)
    data = read(path)
    assert same(data, plain)
    assert [f"columns are separated by {note}"] * (note is not None) == [
        n for n in data.notes if "separ" in n
    ]


@pytest.mark.parametrize(
    "name", ["data.parquet", "data.pq", "data.jsonl", "data.ndjson", "data.json", "d.tsv"]
)
def test_every_format_has_the_same_rows(tmp_path: Path, plain: Data, name: str) -> None:
    path, frame = tmp_path / name, table()
    match path.suffix:
        case ".parquet" | ".pq":
            frame.write_parquet(path)
        case ".json":
            frame.write_json(path)
        case ".tsv":
            frame.write_csv(path, separator="\t")
        case _:
            frame.write_ndjson(path)
    assert same(read(path), plain)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_what_office_programs_write_is_read(tmp_path: Path, encoding: str) -> None:
    frame = table().with_columns(pl.col("label").replace({"class 0": "grün"}))
    data = read(text(tmp_path, frame.write_csv().encode(encoding)))
    assert data.class_names == ["class 1", "class 2", "grün"]
    assert data.about == "a table of 3 columns"
    assert any("Windows-1252" in note for note in data.notes) == (encoding == "cp1252")


def test_line_breaks_quotes_and_separators_within_quotes_belong_to_the_value(tmp_path: Path) -> None:
    texts = [f'{said}\nand, as they say; "so be it"' for said in sentences()]
    data = read(csv(tmp_path, {"text": texts, "label": ["a", "b"] * 30}))
    assert data.about == "texts"
    assert set(data.test_rows) <= set(texts)


def test_windows_line_ends_and_a_decimal_comma(tmp_path: Path, plain: Data) -> None:
    frame = table().with_columns(
        pl.col("width", "height").cast(pl.String).str.replace(".", ",", literal=True)
    )
    data = read(text(tmp_path, frame.write_csv(separator=";").replace("\n", "\r\n")))
    assert same(data, plain)
    assert "numbers have a decimal comma" in data.notes


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_folder_holds_the_sides(tmp_path: Path, suffix: str) -> None:
    for name, frame in (("train", table(40)), ("validation", table(12, seed=1)), ("test", table(15, seed=2))):
        path = tmp_path / f"{name}.{suffix}"
        frame.write_csv(path) if suffix == "csv" else frame.write_parquet(path)
    (tmp_path / "README.md").write_text("about")
    data = read(tmp_path)
    assert [len(data.train), len(data.val), len(data.test)] == [40, 12, 15]
    assert "the training, validation and test rows are those that were given" in data.notes


def test_validation_rows_are_drawn_from_training_rows_where_none_are_given(tmp_path: Path) -> None:
    csv(tmp_path, table(60), "train.csv")
    csv(tmp_path, table(15, seed=1), "test.csv")
    data = read(tmp_path)
    assert [len(data.train), len(data.val), len(data.test)] == [48, 12, 15]
    apart = read(tmp_path / "train.csv", test=tmp_path / "test.csv")
    assert same(data, apart)


def test_a_column_named_split_says_the_side(tmp_path: Path) -> None:
    sides = ["train"] * 40 + ["dev"] * 8 + ["test"] * 12
    data = read(csv(tmp_path, table().with_columns(pl.Series("split", sides))))
    assert [len(data.train), len(data.val), len(data.test)] == [40, 8, 12]
    assert "column 'split' gives the training, validation and test rows" in data.notes
    assert data.about == "a table of 3 columns"


def test_a_column_named_split_of_something_else_is_a_column(tmp_path: Path) -> None:
    data = read(csv(tmp_path, table().with_columns(pl.Series("split", ["left", "right", "test"] * 20))))
    assert data.about == "a table of 4 columns"


def test_the_order_of_columns_in_the_test_table_does_not_count(tmp_path: Path) -> None:
    csv(tmp_path, table(60), "train.csv")
    test = table(15, seed=1)
    csv(tmp_path, test, "test.csv")
    data = read(tmp_path)
    csv(tmp_path, test.select("label", "colour", "height", "width").with_columns(more=pl.lit(1)), "test.csv")
    assert same(read(tmp_path), data)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "data.csv must have column names and rows, got an empty file"),
        ("\n\n", "data.csv must have column names and rows, got an empty file"),
        ("a,label\n", "data.csv must have at least one row below the column names, got none"),
        ("1.5,2,0\n2.5,3,1\n", "data.csv must begin with the column names, got 1.5, 2, 0"),
        ("a,a,label\n1,2,x\n", "data.csv must have different column names, got 'a' twice"),
        ("a,label\n1,x\n2,y,z,w\n", "data.csv cannot be read as a table: found more fields than defined"),
        (
            "label\nx\ny\nx\ny\n",
            "data.csv must have a feature column besides the label 'label', got none",
        ),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read(text(tmp_path, content))


@pytest.mark.parametrize("name", ["data.parquet", "data.jsonl", "data.json"])
def test_a_broken_file_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} cannot be read as a table: "):
        read(text(tmp_path, "neither this nor that", name))


def test_a_path_that_holds_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {tmp_path / 'none.csv'}, which does not exist")):
        read(tmp_path / "none.csv")
    with pytest.raises(
        ValueError, match=r"must be CSV, TSV, Parquet, JSON Lines or .npz, .*, got .*data.xlsx"
    ):
        read(text(tmp_path, "x", "data.xlsx"))
    with pytest.raises(ValueError, match=r"got .*, which holds data\.xlsx"):
        read(tmp_path)
    csv(tmp_path, table(), "train.csv")
    csv(tmp_path, table(), "training.tsv")
    with pytest.raises(ValueError, match=r"must have one part named train, got .*train\.csv and .*training"):
        read(tmp_path)


def test_test_rows_without_labels_are_refused(tmp_path: Path) -> None:
    csv(tmp_path, table(), "train.csv")
    csv(tmp_path, table(seed=1).drop("label"), "test.csv")
    said = "test.csv must have every column of train.csv, got none named 'label', the label"
    with pytest.raises(ValueError, match=said):
        read(tmp_path)


def test_test_is_for_data_without_sides(tmp_path: Path) -> None:
    train, test = csv(tmp_path, table(), "train.csv"), csv(tmp_path, table(seed=1), "test.csv")
    with pytest.raises(
        ValueError, match=r"requires data without splits, got .* with train\.csv and test\.csv"
    ):
        read(tmp_path, test=test)
    (tmp_path / "cats").mkdir()
    with pytest.raises(ValueError, match="test must be table like the data"):
        read(train, test=text(tmp_path, "x", "data.npz"))
