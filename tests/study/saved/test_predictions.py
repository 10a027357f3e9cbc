"""Saved predictions: the same numbers from every kind of file, and one clear line of what cannot be read."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from labelsmooth.study.data.saved.predictions import TYPES, read_predictions, read_runs
from labelsmooth.study.fits.checks import as_result
from labelsmooth.study.trials.files import save

from .making import NAMES, made_up, softmax, write

TEST, VAL = made_up(30, seed=1), made_up(24, seed=2)


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("suffix", TYPES)
def test_every_kind_of_file_gives_the_same_numbers(suffix: str, kind: str, tmp_path: Path):
    test, val = TEST, VAL
    if kind == "probabilities":
        test, val = (softmax(test[0]), test[1]), (softmax(val[0]), val[1])
    read = read_predictions(write(tmp_path / f"run{suffix}", test, val, kind=kind))
    for split, (logits, labels) in {"test": TEST, "val": VAL}.items():
        got, got_labels = read.result[split]
        expected = torch.tensor(logits).log_softmax(-1)
        torch.testing.assert_close(got.log_softmax(-1), expected, rtol=1e-12, atol=1e-12)
        assert got_labels.tolist() == labels.tolist()
    assert read.class_names == NAMES
    assert read.ids == tuple(f"row {i}" for i in range(30))
    assert (read.num_classes, read.path) == (3, str(tmp_path / f"run{suffix}"))
    taken = as_result("read", read.result)  # by a study
    assert torch.equal(taken["test"][0], read.result["test"][0])


def test_a_run_of_a_study_is_read_without_its_model(tmp_path: Path):
    (logits, labels), val = (tuple(map(torch.tensor, pair)) for pair in (TEST, VAL))
    result: Any = {"val": val, "test": (logits, labels), "train": val, "state": {"labels": torch.zeros(2, 2)}}
    save(tmp_path / "hard-seed0.safetensors", result | {"features": torch.ones(30, 2)})
    read = read_predictions(tmp_path / "hard-seed0.safetensors")
    assert set(read.result) == {"val", "test", "train", "features"}
    assert torch.equal(read.result["test"][0], logits)
    assert (read.class_names, read.ids) == (None, None)


def test_what_else_a_file_holds(tmp_path: Path):
    logits, labels = TEST
    np.savez(
        tmp_path / "a.npz", logits=logits, labels=labels, features=np.ones((30, 4)), ood_logits=logits[:5]
    )
    read = read_predictions(tmp_path / "a.npz").result
    assert read["features"].shape == (30, 4)
    assert torch.equal(read["ood"], torch.tensor(logits[:5]))


def table(text: str) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        (folder / "run.csv").write_text(text, encoding="utf-8")
        return folder / "run.csv"

    return written


def arrays(**given: object) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        np.savez(folder / "run.npz", **given)  # pyright: ignore[reportArgumentType]
        return folder / "run.npz"

    return written


def junk(name: str) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        (folder / name).write_text("x")
        return folder / name

    return written


def parquet(**columns: Any) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        pl.DataFrame(columns).write_parquet(folder / "run.parquet")
        return folder / "run.parquet"

    return written


LABELS: dict[str, tuple[str, list[int], tuple[str, ...] | None]] = {
    "by name": ("label,logit_a,logit_b\nb,1,2\na,1,2\n", [1, 0], ("a", "b")),
    "by index": ("label,logit_a,logit_b\n1,1,2\n0,1,2\n", [1, 0], ("a", "b")),
    "numbers that are names": ("label,logit_3,logit_4\n4,1,2\n3,1,2\n", [1, 0], ("3", "4")),
    "numbers as they are written": ("label,logit_01,logit_02\n02,1,2\n01,1,2\n", [1, 0], ("01", "02")),
    "true and false": ("label,logit_a,logit_b\nTrue,1,2\nFalse,1,2\n", [1, 0], ("a", "b")),
    "whole floats": ("label,logit_a,logit_b\n1.0,1,2\n0.0,1,2\n", [1, 0], ("a", "b")),
    "semicolons": ("label;logit_a;logit_b\nb;1;2\na;1;2\n", [1, 0], ("a", "b")),
    "a mark of UTF-8": ("\ufefflabel,logit_ä,logit_b\nb,1,2\nä,1,2\n", [1, 0], ("ä", "b")),
    "one column, named": ("label,logit_spam\nspam,2\nham,-1\n", [1, 0], ("ham", "spam")),
    "one column without a name": ("label,logit\n1,2\n0,-1\n", [1, 0], None),
    "other columns": ("label,guess,logit_a,logit_b\nb,x,1,2\na,y,1,2\n", [1, 0], ("a", "b")),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_of_a_table(case: str, tmp_path: Path):
    text, labels, names = LABELS[case]
    read = read_predictions(table(text)(tmp_path))
    assert (read.result["test"][1].tolist(), read.class_names) == (labels, names)


def test_one_column_is_the_logit_or_probability_of_class_1(tmp_path: Path):
    logits = torch.tensor([2.0, -1.0], dtype=torch.float64)
    for text in (
        "label,logit\n1,2\n0,-1\n",
        f"label,prob\n1,{logits[0].sigmoid()}\n0,{logits[1].sigmoid()}\n",
    ):
        z, _ = read_predictions(table(text)(tmp_path)).result["test"]
        torch.testing.assert_close(z[:, 1] - z[:, 0], logits)


@pytest.mark.parametrize(
    "text", ["id,target,a,b\n7,b,.3,.7\n8,a,.9,.1\n", ",id,target,a,b\n0,7,b,.3,.7\n1,8,a,.9,.1\n"]
)
def test_columns_without_a_prefix_are_declared(text: str, tmp_path: Path):
    path = table(text)(tmp_path)
    read = read_predictions(path, kind="probabilities", label="target")
    assert (read.class_names, read.ids) == (("a", "b"), ("7", "8"))
    torch.testing.assert_close(read.result["test"][0].exp()[0].tolist(), [0.3, 0.7])


@pytest.mark.parametrize("values", [[1.0, 0.0], [True, False], pl.Series(["b", "a"], dtype=pl.Categorical)])
def test_labels_of_any_type_in_parquet(values: Any, tmp_path: Path):
    frame = pl.DataFrame({"label": values, "logit_a": [1, 2], "logit_b": [2, 1]})
    frame.write_parquet(tmp_path / "run.parquet")
    assert read_predictions(tmp_path / "run.parquet").result["test"][1].tolist() == [1, 0]


Z, Y = [[1.0, 2.0], [0.5, 0.0]], [1, 0]
COLUMNS = "label,logit_a,logit_b\n"
BAD: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no file": (lambda folder: folder / "run.npz", {}, r"^file .*run\.npz does not exist$"),
    "another type": (
        junk("run.txt"),
        {},
        r"run\.txt must end in \.npz, \.safetensors, \.csv, \.tsv or \.parquet$",
    ),
    "a pickle": (
        junk("run.pkl"),
        {},
        "pickled files are not read: save arrays with np.savez",
    ),
    "a damaged npz": (
        junk("run.npz"),
        {},
        r"run\.npz is damaged, or was not written by np\.savez",
    ),
    "damaged safetensors": (
        junk("run.safetensors"),
        {},
        r"run\.safetensors is damaged, or not a safetensors file",
    ),
    "damaged parquet": (
        junk("run.parquet"),
        {},
        r"run\.parquet is damaged, empty, or not a table",
    ),
    "objects": (arrays(logits=np.array([None]), labels=Y), {}, "holds Python objects, which are not read"),
    "no labels": (arrays(logits=Z), {}, r"run\.npz has 'logits' and no 'labels'$"),
    "labels alone": (arrays(labels=Y), {}, "has 'labels' and neither 'logits' nor 'probabilities'"),
    "nothing": (arrays(other=Z), {}, "must hold 'logits' or 'probabilities', and 'labels', of test rows"),
    "validation alone": (arrays(val_logits=Z, val_labels=Y), {}, "of test rows, got none"),
    "both kinds": (
        arrays(logits=Z, probabilities=Z, labels=Y),
        {},
        r"choose one with kind= \(--kind logits\)",
    ),
    "another kind": (arrays(logits=Z, labels=Y), {"kind": "probabilities"}, "holds 'logits' and no 'prob"),
    "no such kind": (
        arrays(logits=Z, labels=Y),
        {"kind": "odds"},
        "kind must be 'logits' or 'probabilities'",
    ),
    "NaN": (
        arrays(logits=[[1.0, 2], [0, np.nan]], labels=Y),
        {},
        "test rows counted from 0: .* got nan in row 1",
    ),
    "probabilities as logits": (arrays(logits=np.eye(2), labels=Y), {}, "must be logits, got probabilities"),
    "no probabilities": (
        arrays(probabilities=Z, labels=Y),
        {},
        r"sum to 1 .* got .*, whose sum is 3, in row 0",
    ),
    "a label too large": (arrays(logits=Z, labels=[1, 2]), {}, r"labels must lie in \[0, 2\), got 1 to 2"),
    "a name of no class": (
        arrays(logits=Z, labels=["b", "c"], class_names=["a", "b"]),
        {},
        "got 'c' in row 1, counted from 0; classes: 'a', 'b'$",
    ),
    "names for no classes": (arrays(logits=Z, labels=["b", "c"]), {}, "integers if classes have no names"),
    "too many rows": (arrays(logits=Z, labels=[0, 1, 1]), {}, r"labels must be integers of shape \(2,\)"),
    "too many names": (arrays(logits=Z, labels=Y, class_names=["a"]), {}, "one for each of 2 classes, got 1"),
    "a name twice": (arrays(logits=Z, labels=Y, class_names=["a", "a"]), {}, "must differ, got 'a' twice"),
    "an id twice": (arrays(logits=Z, labels=Y, ids=[7, 7]), {}, "ids must differ, got '7' in rows 0 and 1"),
    "too few ids": (arrays(logits=Z, labels=Y, ids=[7]), {}, "one for each of 2 test rows, got 1"),
    "other classes": (
        arrays(logits=Z, labels=Y, val_logits=np.ones((2, 3)), val_labels=Y),
        {},
        "test and val rows must have the same classes, got 2 and 3 of them",
    ),
    "no column of labels": (
        table("labels,logit_a\n1,2\n"),
        {},
        r"no column 'label' \(did you mean 'labels'\?\): name the label column with label= \(--label ",
    ),
    "not declared": (
        table("label,a,b\na,1,2\n"),
        {},
        "must have columns named logit_<class> or probability_<class>; if",
    ),
    "logits and probabilities": (
        table("label,logit_a,prob_a\n1,2,1\n"),
        {},
        r"choose one with kind= \(--kind logits or",
    ),
    "declared otherwise": (table(f"{COLUMNS}a,1,2\n"), {"kind": "probabilities"}, "holds logits, by its col"),
    "a word": (table(f"{COLUMNS}a,1,2\nb,x,1\n"), {}, "column 'logit_a' must hold numbers, got 'x' in row 1"),
    "a gap": (
        table(f"{COLUMNS}a,1,2\nb,1,\n"),
        {},
        "column 'logit_b' must hold a number in every row, got none",
    ),
    "no label in Parquet": (
        parquet(label=[1.0, math.nan], logit_a=[1, 2], logit_b=[1, 2]),
        {},
        "column 'label' must have a value in every row, got none in row 1",
    ),
    "lists in Parquet": (
        parquet(label=[1, 0], logit_a=[[1], [2]], logit_b=[1, 2]),
        {},
        r"run\.parquet is damaged, empty, or not a table|column 'logit_a' must hold numbers",
    ),
    "a blank line": (table(f"\n{COLUMNS}a,1,2\n"), {}, "must start with one line of column names"),
    "no label": (
        table(f"{COLUMNS},1,2\n"),
        {},
        "column 'label' must have a value in every row, got none in row 0",
    ),
    "another class": (
        table(f"{COLUMNS}a,1,2\nz,1,2\n"),
        {},
        "got 'z' in row 1, counted from 0; classes: 'a', 'b'$",
    ),
    "a slip": (
        table("label,logit_cat,logit_dog\ncta,1,2\n"),
        {},
        r"got 'cta' in row 0, counted from 0 \(did you mean 'cat'\?\)",
    ),
    "no rows": (table(COLUMNS), {}, r"run\.csv has no rows$"),
    "an empty file": (table(""), {}, "damaged, empty, or not a table"),
    "a ragged table": (table(f"{COLUMNS}a,1,2,3\n"), {}, "damaged, empty, or not a table"),
    "a column twice": (
        table("label,logit_a,logit_a\n0,1,2\n"),
        {},
        "column 'logit_a' occurs twice: rename one",
    ),
    "another split": (
        table("label,split,logit_a,logit_b\na,dev,1,2\n"),
        {},
        "hold test, val or train, got 'dev'",
    ),
    "no test rows": (table("label,split,logit_a,logit_b\na,val,1,2\n"), {}, "of test rows, got none"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_told_in_one_line(case: str, tmp_path: Path):
    make, options, message = BAD[case]
    with pytest.raises((ValueError, OSError), match=message) as told:
        read_predictions(make(tmp_path), **options)
    assert "\n" not in str(told.value)
    assert case == "no such kind" or str(tmp_path) in str(told.value)


def test_a_folder_holds_a_file_for_each_seed(tmp_path: Path):
    for seed in (10, 2, 1):
        write(tmp_path / f"seed{seed}.npz", TEST)
    (tmp_path / ".hidden.npz").write_text("x")
    (tmp_path / "readme.md").write_text("x")
    with pytest.warns(UserWarning, match=r"not read: readme\.md$"):
        runs = read_runs(tmp_path)
    assert [name for name, _ in runs] == ["seed1", "seed2", "seed10"]


def test_a_file_is_a_run(tmp_path: Path):
    with warnings.catch_warnings():
        ((name, run),) = read_runs(write(tmp_path / "one.csv", TEST))
    assert (name, run.num_classes) == ("one", 3)


def test_a_folder_that_is_none(tmp_path: Path):
    with pytest.raises(ValueError, match=r"must hold a file for each seed, ending in .*, got none$"):
        read_runs(tmp_path)
    write(tmp_path / "seed1.npz", TEST)
    write(tmp_path / "seed1.csv", TEST)
    with pytest.raises(ValueError, match=r"one file for each seed, got seed1\.csv and seed1\.npz: put ea"):
        read_runs(tmp_path)
    (tmp_path / "seed1.csv").rename(tmp_path / "ls-0.1-seed1.csv")  # as in a study's own folder
    with pytest.raises(ValueError, match=r"got ls-0\.1-seed1\.csv and seed1\.npz: put each arm into its own"):
        read_runs(tmp_path)
    with pytest.raises(ValueError, match="must be a file, got a folder"):
        read_predictions(tmp_path)


def test_a_table_of_an_office_program_is_read(tmp_path: Path):
    path = tmp_path / "run.csv"
    for encoding in ("cp1252", "utf-16"):
        path.write_text("label,logit_\u00e4,logit_b\n\u00e4,1,2\nb,2,1\n", encoding=encoding)
        assert read_predictions(path).class_names == ("\u00e4", "b")
