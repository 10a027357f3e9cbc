"""What is kept beside the runs: a log, and all that a report needs to be made again without a fit."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth.study import Criterion, FitResult, Results, reopen
from labelsmooth.study.report.log import durations
from labelsmooth.study.trials.record import MOST_LETTERS, Kept, Record, rows_of
from tests.study.made_up import HOSTILE_NAMES, LinearFit, Log, bare, counted, study

PNG = b"\x89PNG\r\n\x1a\n"


class Told:
    """A fit that knows much of itself."""

    num_classes = 4
    epochs = 3
    counts = torch.tensor([30, 30, 30, 30])
    embeddings = torch.eye(4)
    class_names = ("a", "b", "c", "d")
    description = "four classes"
    ordinal = True

    def __init__(self, rows: Any = None) -> None:
        self.test_rows = rows

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        return bare(criterion, seed)


@pytest.mark.slow
def test_a_report_is_made_again_without_the_fit(finished: Results, tmp_path: Path):
    fits = {name: LinearFit(steps=2 + i) for i, name in enumerate(HOSTILE_NAMES)}
    first = study(fits, tmp_path)
    page = (tmp_path / "report.html").read_bytes()
    for lost in ("results.json", "report.html", "trials.db"):
        (tmp_path / lost).unlink()
    assert reopen(str(tmp_path)) == first == Results.load(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == page
    # The study takes it for its own.
    assert study(fits, tmp_path) == first


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_the_record_holds_what_a_fit_knows(tmp_path: Path):
    results = study({"mine": Told()}, tmp_path, arms=["unigram", "hierarchy", "warmup"], eps=[], seeds=3)
    (kept,) = Record.load(tmp_path).settings
    assert (kept.name, kept.description, kept.ordinal) == ("mine", "four classes", True)
    assert kept.class_names == ["a", "b", "c", "d"]
    assert kept.facts == {"num_classes": 4, "epochs": 3, "counts": [30, 30, 30, 30]}
    assert kept.arms == [arm.name for arm in results.settings[0].arms]
    assert (kept.seeds, kept.left_out, kept.notes) == ([0, 1, 2], {}, [])
    assert len([*(tmp_path / kept.folder).glob("*.safetensors")]) == 12
    assert reopen(tmp_path) == results


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("done", [3, 5])
def test_of_an_interrupted_study_the_seeds_that_are_whole_are_shown(done: int, tmp_path: Path):
    fit, calls = counted()
    limit = Log([done])

    def interrupted(criterion: Criterion, seed: int) -> FitResult:
        if len(calls) == limit[0]:
            raise KeyboardInterrupt
        return fit(criterion, seed)

    with pytest.raises(KeyboardInterrupt):
        study(interrupted, tmp_path, seeds=3)
    if done == 3:
        message = "folder must hold 2 seeds with runs of every arm, got 1 of 'your data' in "
        with pytest.raises(ValueError, match=message):
            reopen(tmp_path)
        return
    (setting,) = reopen(tmp_path).settings
    assert (setting.seeds, setting.left_out) == (2, {"2": "not finished"})
    limit[0] = -1
    (setting,) = study(interrupted, tmp_path, seeds=3).settings
    assert (setting.seeds, setting.left_out) == (3, {})


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_an_interrupted_study_that_was_reopened_still_goes_on(tmp_path: Path):
    study(bare, tmp_path, eps=[0.05, 0.1, 0.2])
    (tmp_path / "results.json").unlink()
    record = Record.load(tmp_path)
    Record(record.digest + " (unfinished)", 0.0, record.settings).save(tmp_path)
    reopened = reopen(tmp_path)
    finished = study(bare, tmp_path, eps=[0.05, 0.1, 0.2])
    assert finished.settings == reopened.settings
    assert finished.digest == record.digest


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_a_seed_that_failed_says_so_again(tmp_path: Path):
    def failing(criterion: Criterion, seed: int) -> FitResult:
        if seed == 1:
            raise RuntimeError("no luck")
        return bare(criterion, seed)

    results = study(failing, tmp_path, seeds=3)
    assert results.settings[0].left_out == {"1": "hard: RuntimeError: no luck"}
    assert reopen(tmp_path) == results


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"digest": "", "seconds": 0, "settings": [{}]}'])
def test_a_damaged_record_is_named(content: str, tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"^folder must be the output of a study, got .*: there is no study.json"
    ):
        reopen(tmp_path)
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(ValueError, match=r"study\.json is damaged, or of another version"):
        reopen(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_a_damaged_run_is_named(tmp_path: Path):
    study(bare, tmp_path)
    (path,) = tmp_path.glob("trials/*/hard-seed0.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"hard-seed0\.safetensors is damaged"):
        reopen(tmp_path)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(
    ("rows", "kind", "first"),
    [
        (["<b>&" * 300] + ["é"] * 49, "text", ("<b>&" * 300)[:MOST_LETTERS]),
        ([PNG + bytes([i]) for i in range(50)], "png", base64.b64encode(PNG + b"\0").decode()),
    ],
)
def test_test_rows_are_kept_beside_the_runs(rows: Any, kind: str, first: str, tmp_path: Path):
    def fit(criterion: Criterion, seed: int) -> FitResult:
        return bare(criterion, seed)

    fit.test_rows = rows  # type: ignore[attr-defined]
    study(fit, tmp_path)
    (path,) = tmp_path.glob("trials/*/rows.json")
    kept = json.loads(path.read_text())
    assert (kept["kind"], kept["of"], len(kept["rows"])) == (kind, 50, 50)
    assert kept["rows"][0] == first
    # Rows are for the report: others are no reason to train anew.
    fit.test_rows = rows[::-1]  # type: ignore[attr-defined]
    study(fit, tmp_path, seeds=3)
    assert len([*tmp_path.glob("trials/*")]) == 1


def test_of_very_many_rows_the_first_are_kept():
    kept: Any = rows_of("mine", Told(["a"] * 20_001))
    assert (kept["of"], len(kept["rows"])) == (20_001, 20_000)


@pytest.mark.parametrize(
    ("rows", "got"),
    [
        ("text", "str"),
        (3, "int"),
        (["a", b"b"], "bytes, str"),
        ([b"GIF"], "bytes"),
        ([torch.zeros(2)], "Tensor"),
    ],
)
def test_rows_that_cannot_be_shown_are_named(rows: Any, got: str, tmp_path: Path):
    message = f"^mine: test_rows must all be texts, or all be PNG files as bytes, got {got}$"
    with pytest.raises(ValueError, match=message):
        study({"mine": Told(rows)}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_rows_of_another_number_are_left_out_with_a_warning(tmp_path: Path):
    message = "mine: test_rows must be one for each of the 50 test rows, got 2: left out"
    with pytest.warns(UserWarning, match=message):
        study({"mine": Told(["a", "b"])}, tmp_path)
    assert not [*tmp_path.glob("trials/*/rows.json")]


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_each_run_that_was_trained_is_a_line_in_the_log(tmp_path: Path):
    study({"a\t[b] name": bare}, tmp_path)
    lines = (tmp_path / "study.log").read_text().splitlines()
    form = (
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d[+-]\d\d:\d\d\ta \[b\] name\t(hard|ls:eps=0.1)\tseed [01]"
        r"\t\d+\.\d{3} s"
        r"\tvalidation NLL at T \d\.\d{4}\ttest accuracy [01]\.\d{4}"
    )
    assert len(lines) == 4
    assert all(re.fullmatch(form, line) for line in lines)
    study({"a\t[b] name": bare}, tmp_path, seeds=3, workers=1)
    assert (tmp_path / "study.log").read_text().splitlines()[:4] == lines
    assert len((tmp_path / "study.log").read_text().splitlines()) == 6
    assert durations(tmp_path).keys() == {"a [b] name"}


def test_facts_that_were_tensors_are_tensors_again():
    kept = Kept("a", "trials/a", ["hard"], [0], facts={"epochs": 3, "counts": [1, 2]})
    assert kept.known["epochs"] == 3
    assert isinstance(counts := kept.known["counts"], torch.Tensor)
    assert counts.tolist() == [1, 2]
