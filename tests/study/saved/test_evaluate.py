"""What predictions are worth: numbers as others find them, and words that follow from the numbers."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, precision_score, recall_score
from torchmetrics.functional.classification import multiclass_calibration_error

from labelsmooth.calibration import fit_temperature, noise_floor
from labelsmooth.study import evaluate
from labelsmooth.study.commands import cli
from labelsmooth.study.data.saved.predictions import TYPES
from labelsmooth.study.evaluation.chance import chance_errors
from labelsmooth.study.evaluation.figures import Evaluation, render
from labelsmooth.study.evaluation.picture import save_picture
from tests.study.made_up import HOSTILE_NAMES

from .making import NAMES, made_up, softmax, write

TEST, VAL = made_up(600, seed=1), made_up(300, seed=2)


def given(scale: float = 1.0, *, val: bool = True, **more: object) -> dict[str, Any]:
    """As a fit returns it; the larger the scale, the surer."""
    pairs = {"test": TEST, "val": VAL} if val else {"test": TEST}
    return {split: (z * scale, y) for split, (z, y) in pairs.items()} | more


def test_the_numbers_are_those_of_others():
    e = evaluate(given(class_names=NAMES))
    z, y = TEST
    q = softmax(z)
    assert e.accuracy.mean == pytest.approx(accuracy_score(y, q.argmax(1)))
    assert e.raw.nll.mean == pytest.approx(log_loss(y, q))
    assert e.raw.brier.mean == pytest.approx(np.square(q - np.eye(3)[y]).sum(1).mean())
    ece = multiclass_calibration_error(torch.tensor(q), torch.tensor(y), 3, n_bins=15)
    assert e.raw.ece.mean == pytest.approx(float(ece), abs=1e-6)
    assert e.raw.noise_floor == pytest.approx(noise_floor(z), rel=0.05)
    assert e.raw.confidence_gap.mean == pytest.approx(q.max(1).mean() - e.accuracy.mean)
    assert e.temperature == pytest.approx(fit_temperature(*VAL, spread=1))
    assert e.scaled is not None
    assert e.scaled.nll.mean == pytest.approx(log_loss(y, softmax(z / e.temperature)))
    each: Any = {"average": None}
    recall, precision = (found(y, q.argmax(1), **each) for found in (recall_score, precision_score))
    assert [c.recall for c in e.classes] == pytest.approx(recall)
    assert [c.precision for c in e.classes] == pytest.approx(precision)
    assert [c.confidence for c in e.classes] == pytest.approx(
        [q.max(1)[q.argmax(1) == k].mean() for k in range(3)]
    )
    assert [(c.name, c.rows) for c in e.classes] == [(name, 200) for name in NAMES]


@pytest.mark.parametrize("kind", ["logits", "probabilities"])
@pytest.mark.parametrize("suffix", TYPES)
def test_every_kind_of_file_gives_the_same_evaluation(suffix: str, kind: str, tmp_path: Path):
    test, val = (TEST, VAL) if kind == "logits" else [(softmax(z), y) for z, y in (TEST, VAL)]
    here = evaluate(write(tmp_path / f"run{suffix}", test, val, kind=kind)).as_json()
    there = evaluate(given(class_names=NAMES)).as_json()
    for told in (here, there):
        del told["name"], told["files"]
    flat, expected = (json.dumps(told, sort_keys=True) for told in (here, there))
    digits = r"-?\d+\.?\d*(?:e-?\d+)?"
    assert re.sub(digits, "#", flat) == re.sub(digits, "#", expected)
    numbers = [[float(x) for x in re.findall(digits, text)] for text in (flat, expected)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-6, abs=1e-9)


def test_the_interval_of_one_run_is_that_of_its_rows():
    e = evaluate(given())
    right = (TEST[0].argmax(1) == TEST[1]).astype(float)
    half = 1.964 * right.std(ddof=1) / len(right) ** 0.5
    assert e.accuracy.high - e.accuracy.mean == pytest.approx(half, rel=1e-3)


@pytest.mark.filterwarnings("ignore:T = 100.0 is a bound")
@pytest.mark.parametrize(("scale", "mean"), [(50.0, 1.0), (-50.0, 0.0)])
def test_where_every_row_is_right_or_wrong_another_need_not_be(scale: float, mean: float):
    y = np.arange(100) % 2
    e = evaluate({"test": (scale * np.eye(2)[y], y)})
    low, high = sorted((mean, abs(mean - (1 - 0.025**0.01))))
    assert (e.accuracy.mean, e.accuracy.low, e.accuracy.high) == pytest.approx((mean, low, high))


def test_chance_gives_the_error_that_it_does():
    sure = torch.full((100,), 0.8, dtype=torch.float64)
    found = chance_errors(sure, 4000)
    random = np.random.default_rng(0).binomial(100, 0.8, 4000) / 100
    assert found.mean().item() == pytest.approx(abs(random - 0.8).mean(), rel=0.05)
    assert found.quantile(0.95).item() == pytest.approx(np.quantile(abs(random - 0.8), 0.95), abs=0.011)


SAID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "over-confident": (
        given(4.0),
        [
            "It is over-confident by",
            "is more than chance explains",
            "Divide the logits by",
            "(fitted on the val",
        ],
    ),
    "under-confident": (
        given(0.2),
        ["It is under-confident by", "more than chance explains", "Divide the log"],
    ),
    "calibrated": (
        given(1 / fit_temperature(*TEST)),
        [
            "agrees with accuracy within chance",
            "is not significantly above the noise floor",
            "It does not clearly help",
        ],
    ),
    "no validation rows": (
        given(4.0, val=False),
        [
            "Divide the logits by",
            "(fitted on each half of the test rows for the other half, since there are no",
        ],
    ),
    "few rows": (
        {"test": (TEST[0][:30], TEST[1][:30])},
        ["No temperature: there are no validation rows, and the test rows are too few to fit one."],
    ),
    "a probability of 0": (
        {"test": ([[1.0, 0.0]] * 50, [0] * 48 + [1] * 2), "probabilities": True},
        ["2 rows have probability 0 for their class, replaced by about 1e-38: they dominate the NLL and"],
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_the_words_follow_from_the_numbers(case: str):
    source, said = SAID[case]
    printed = str(evaluate(source))
    assert max(map(len, printed.splitlines())) <= 80
    for words in said:
        assert words in " ".join(printed.split())


def test_no_row_judges_the_temperature_that_was_fitted_on_it():
    """Labels by chance: what is fitted on half of the rows gains nothing on the other."""
    random = np.random.default_rng(0)
    z, y = random.normal(size=(60, 5)) * 3, random.integers(0, 5, 60)
    e = evaluate({"test": (z, y)})
    assert e.fitted_on == "halves of the test rows"
    assert e.scaled is not None
    assert e.temperature is not None
    everywhere = fit_temperature(z, y, spread=1)
    assert e.scaled.nll.mean > log_loss(y, softmax(z / everywhere), labels=range(5))


def test_of_many_classes_the_worst_are_shown(tmp_path: Path):
    z, y = made_up(500, classes=50)
    e = evaluate({"test": (z, y)})
    printed = str(e)
    assert len(e.classes) == 50
    assert "class (20 of 50, by recall)" in printed
    worst = sorted(c.recall for c in e.classes if c.recall is not None)[19]
    shown = [line.split() for line in printed.splitlines() if re.match(r"\d+ +10 ", line)]
    assert len(shown) == 20
    assert max(float(line[2]) for line in shown) == pytest.approx(worst * 100, abs=0.06)


def folder_of(tmp_path: Path, seeds: int = 3) -> Path:
    folder = tmp_path / "ls"
    folder.mkdir()
    for seed in range(seeds):
        noise = np.random.default_rng(seed).normal(size=TEST[0].shape)
        write(folder / f"seed{seed}.npz", (TEST[0] + noise * seed / 2, TEST[1]), VAL)
    return folder


def test_a_folder_is_its_runs_together(tmp_path: Path):
    folder = folder_of(tmp_path)
    e = evaluate(folder)
    each = [evaluate(folder / f"seed{seed}.npz") for seed in range(3)]
    assert e.files == [str(folder / f"seed{seed}.npz") for seed in range(3)]
    assert e.accuracy.mean == pytest.approx(np.mean([one.accuracy.mean for one in each]))
    assert e.raw.ece.mean == pytest.approx(np.mean([one.raw.ece.mean for one in each]))
    assert e.accuracy.high - e.accuracy.low > each[0].accuracy.high - each[0].accuracy.low  # runs vary
    assert "3 runs." in str(e)


def test_runs_of_other_rows_are_refused(tmp_path: Path):
    folder = folder_of(tmp_path, 1)
    write(folder / "seed1.npz", made_up(50), VAL)
    with pytest.raises(ValueError, match=r"seed0\.npz and .*seed1\.npz must have the same test rows, got"):
        evaluate(folder)


@pytest.mark.parametrize("source", [{"val": VAL}, {"test": TEST[0]}, {"test": (TEST[0], None)}])
def test_what_is_no_result_is_refused(source: dict[str, Any]):
    with pytest.raises(ValueError, match=r"^predictions"):
        evaluate(source)


def test_hostile_names_are_shown_as_they_are(tmp_path: Path):
    path = write(tmp_path / "[red]x[-red] $a$.csv", TEST, VAL, names=HOSTILE_NAMES)
    e = evaluate(path)
    assert [c.name for c in e.classes] == list(HOSTILE_NAMES)
    printed = str(e)
    for name in HOSTILE_NAMES:
        assert name in printed
    assert "[red]x[-red] $a$.csv" in printed.replace("\n", "")
    save_picture(tmp_path / "a.svg", [e])
    assert "$a$.csv, as given" in (tmp_path / "a.svg").read_text()


def test_a_name_commands_no_terminal():
    printed = str(evaluate(given(class_names=["\x1b[2J", "b\rc", "d"])))
    assert r"\x1b[2J" in printed
    assert r"b\rc" in printed
    assert printed.replace("\n", "").isprintable()


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".png", b"\x89PNG"), (".pdf", b"%PDF")])
def test_the_picture_is_what_its_ending_says(suffix: str, start: bytes, tmp_path: Path):
    path = tmp_path / "new" / f"picture{suffix}"
    save_picture(path, [evaluate(given())])
    assert path.read_bytes().startswith(start)


def command(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[str, str]:
    cli.main(["evaluate", *map(str, args)])
    printed = capsys.readouterr()
    return printed.out, printed.err


def test_the_command_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, picture = write(tmp_path / "run.npz", TEST, VAL), tmp_path / "picture.svg"
    out, err = command(capsys, path, "--picture", picture)
    assert err == ""
    *lines, last = out.rstrip().splitlines()
    assert " ".join("\n".join(lines).split()) == " ".join(str(evaluate(path)).split())
    assert last == f"picture: {picture}"
    assert picture.exists()


def test_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, other = write(tmp_path / "run.npz", TEST, VAL), write(tmp_path / "other.csv", TEST)
    out, _ = command(capsys, path, other, "--json")

    def refuse(text: str) -> None:
        raise AssertionError(text)

    told = json.loads(out, parse_constant=refuse)["evaluations"]
    assert [e["name"] for e in told] == [str(path), str(other)]
    assert told[0]["accuracy"]["mean"] == evaluate(path).accuracy.mean
    assert told[0]["scaled"]["told"] in (True, False)
    assert set(told[0]) == set(Evaluation.__dataclass_fields__)


def test_options_of_a_table_reach_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rows = "\n".join("b,0.2,0.8\na,0.9,0.1" for _ in range(30))
    (tmp_path / "run.csv").write_text(f"truth,a,b\n{rows}\n")
    out, _ = command(capsys, tmp_path / "run.csv", "--kind", "probabilities", "--label", "truth")
    assert "Accuracy 100.0 %" in out


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no file": (["evaluate", "nowhere.npz"], "file nowhere.npz does not exist"),
    "no files": (["evaluate"], "evaluate needs at least one file or folder of predictions"),
    "no picture": (
        ["evaluate", "nowhere.npz", "--picture", "a.txt"],
        "must end in .svg, .png or .pdf, got 'a.txt'",
    ),
    "no kind": (["evaluate", "nowhere.npz", "--kind", "odds"], "invalid choice 'odds' for argument '--kind'"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(
    case: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    args, message = MISTAKES[case]
    with pytest.raises(SystemExit) as stop:
        cli.main(args)
    printed = capsys.readouterr()
    assert (stop.value.code, printed.out) == (2, "")
    (line,) = printed.err.splitlines()
    assert line.startswith("labelsmooth: error: ")
    assert message in line


def test_the_text_is_what_is_rendered():
    e = evaluate(given())
    assert render(e) is not None
    assert str(e).startswith("predictions: 600 test rows of 3 classes, 300 validation rows.\nAccuracy ")
