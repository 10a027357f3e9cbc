"""The command line: help, one line for a mistake, and the options that reach the study."""

import io
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest

from labelsmooth.__main__ import main
from labelsmooth.study import Results
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.commands import cli
from labelsmooth.study.commands import study as command

from .made_up import results as made_up_results
from .made_up import setting
from .process import WIDE, labelsmooth


def words(text: str) -> str:
    """Without the frame that the help stands in, or line ends."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.slow
def test_help_says_what_it_is_and_which_commands_there_are():
    script = shutil.which("labelsmooth", path=str(Path(sys.executable).parent))
    assert script is not None
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120, env=WIDE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: labelsmooth [-h] {study,compare,evaluate,report,arms}\n")
    assert "does it help?" in done.stdout
    assert "study Train a model with hard and with smoothed targets" in words(done.stdout)


def test_help_of_the_study_names_each_option_with_its_unit_and_default(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        cli.main(["study", "--help"])
    printed = capsys.readouterr()
    assert (stop.value.code, printed.err) == (0, "")
    text = words(printed.out)
    for said in (
        "--eps [FLOAT ...] Smoothings to compare with hard targets, each in (0, 1]; with --arms, none unless "
        "given. (default: 0.05 0.1 0.2)",
        "--arms [NAME ...] Methods to compare with hard targets, as name or name:option=value,option=value; "
        '"all" is every method. The command "labelsmooth arms" lists them. (default: plain smoothing)',
        "--seeds INT Number of pairs, at least 2. (default: 5)",
        "(default: clean noisy scarce)",
        "--flipped FLOAT Share of training labels that are flipped in noisy and scarce, in [0, 1]. "
        "(default: 0.2)",
        "-o PATH, --output PATH",
        "(default: labelsmooth-study)",
        "--workers INT",
        "--storage {None}|STR",
        "(default: None)",
        "labelsmooth.study.run",
    ):
        assert said in text
    for option in fields(command.Study):
        assert text.count(f"--{option.name.replace('_', '-')} ") >= 1
    assert text.count("(default: ") == len(fields(command.Study))


def test_arms_are_listed(capsys: pytest.CaptureFixture[str]):
    cli.main(["arms"])
    printed = capsys.readouterr()
    assert printed.err == ""
    assert all(f"\n{name} " in printed.out for name in ARMS)
    assert max(map(len, printed.out.splitlines())) <= 80


def test_the_help_breaks_no_word_at_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main(["study", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "nothing else, and judge whether smoothing helps and by how much, and what a" in lines


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no command": ([], "Expected one of {study, compare, evaluate, report, arms}."),
    "another command": (
        ["train"],
        "Unrecognized options: train. Available subcommands: study, compare, evaluate, report, arms.",
    ),
    "no such option": (["study", "--epsilon", "0.1"], "Unrecognized options: --epsilon"),
    "a slip": (
        ["study", "--seedz", "3"],
        "Unrecognized options: --seedz, 3. Perhaps you meant: --seeds INT.",
    ),
    "a name alone": (["study", "maxsup"], "Unrecognized options: maxsup. For full helptext, run labelsmooth"),
    "no number": (["study", "--seeds", "many"], "--seeds: invalid literal for int() with base 10: 'many'"),
    "no float": (["study", "--eps", "a"], "Error parsing --eps"),
    "no such setting": (["study", "--settings", "dirty"], "invalid choice 'dirty' for argument '--settings'"),
    "eps out of range": (["study", "--eps", "2"], "eps must lie in [0, 1], got 2.0"),
    "no eps": (["study", "--eps"], "eps must hold at least one smoothing above 0, got []"),
    "one seed": (["study", "--seeds", "1"], "seeds must be an integer in [2, 1000], got 1"),
    "no worker": (["study", "--workers", "0"], "workers must be an integer of at least 1, got 0"),
    "a share that is none": (["study", "--flipped", "20"], "flipped must lie in [0, 1], got 20.0"),
    "no setting": (["study", "--settings"], "--settings must name at least one of clean, noisy, scarce"),
    "no such arm": (["study", "--arms", "label"], "no arm is named 'label' (labelsmooth arms lists them)"),
    "an arm out of range": (
        ["study", "--arms", "ls:eps=2"],
        "ls:eps=2: eps must be a number in [0, 1], got 2",
    ),
    "no database": (["study", "--storage", "nosuch://x"], "storage must be a database URL that opens"),
    "a search without options": (
        ["study", "--arms", "ols:eps=0.3", "--search", "4"],
        "search requires an arm with options that are not given, got ols:eps=0.3",
    ),
    "nothing to go on from": (
        ["study", "--arms", "ols", "--extend", "True"],
        "extend requires a plain smoothing among the arms, got hard, ols:eps=0.5",
    ),
    "no study's folder": (["report", "."], "folder must be the output of a study, got '.': there is no "),
    "no folder": (["study", "-o", ""], "output must name a folder, got ''"),
    "two sources": (
        ["study", "--data", "x.csv", "--fit", "x:y"],
        "a study must have one of --data, --fit and --command, got --data and --fit",
    ),
    "settings of the digits": (
        ["study", "--data", "x.csv", "--settings", "noisy"],
        "--settings is only for the digits: leave it out with --data",
    ),
    "a label of nothing": (["study", "--label", "x"], "--label requires --data or --command"),
    "no such file": (["study", "--data", "x.csv"], "x.csv"),
    "a fit without a name": (["study", "--fit", "train"], "fit must be module:function or file.py:function"),
    "a command without places": (["study", "--command", "python x.py"], "command must hold {criterion}"),
    "no such care": (["study", "--care", "speed", "--dry-run"], "care must be one of overall, accuracy, "),
    "an order that is not declared": (["study", "--care", "ordinal"], "(--ordinal for a table)"),
    "one arm to compare": (["compare", "a.npz"], "compare needs a baseline and at least one other"),
    "an arm twice": (["compare", "a.npz", "./a.npz"], "compare must get each arm once, got "),
    "a folder that cannot be": (
        ["study", "-o", "/dev/null/x"],
        "output must be a folder, got '/dev/null/x': /dev/null is a file",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
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


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_mistake_is_the_same_on_every_terminal(
    encoding: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(SystemExit):
        cli.main(["study", "--seedz", "3"])
    said = "Unrecognized options: --seedz, 3. Perhaps you meant: --seeds INT"
    assert capsys.readouterr().err.startswith(f"labelsmooth: error: {said}. For full helptext, run ")


def test_it_knows_its_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["labelsmooth", "--version"])
    main()
    assert capsys.readouterr().out == f"labelsmooth {version('labelsmooth')}\n"


@pytest.mark.slow
def test_a_mistake_in_a_process_of_its_own(tmp_path: Path):
    done = labelsmooth("study", "--eps", "2", "-o", tmp_path / "new")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "labelsmooth: error: eps must lie in [0, 1], got 2.0\n"
    assert not (tmp_path / "new").exists()


def test_an_error_of_several_lines_is_told_in_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise ValueError("first line\n  second line")

    monkeypatch.setattr(command, "run", fail)
    with pytest.raises(SystemExit):
        cli.main(["study"])
    assert capsys.readouterr().err == "labelsmooth: error: first line second line\n"


def test_a_warning_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    def remark(*_: object, **__: object) -> Results:
        warnings.warn("few rows", UserWarning, stacklevel=1)
        return made_up_results(setting())

    monkeypatch.setattr(command, "run", remark)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        cli.main(["study"])
    assert capsys.readouterr().err == "labelsmooth: warning: few rows\n"


def test_options_reach_the_study(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    asked: dict[str, object] = {}

    def remember(fits: dict[str, command.DigitsFit], **options: object) -> Results:
        asked.update(options, fits=fits)
        return made_up_results(setting())

    monkeypatch.setattr(command, "run", remember)
    given = "--eps 0.3 0.4 --arms kl others:eps=0.2 --seeds 7 --settings noisy clean noisy --flipped 0.4"
    given += " -o a --workers 3 --storage b --extend True --search 20 --care accuracy --check-deterministic"
    cli.main(["study", *map(str, given.split())])
    fits = asked.pop("fits")
    assert isinstance(fits, dict)
    assert {name: (fit.rows, fit.flipped) for name, fit in fits.items()} == {
        "plenty, noisy": (800, 0.4),
        "plenty, clean": (800, 0.0),
    }
    assert asked == {
        "eps": (0.3, 0.4),
        "arms": ("kl", "others:eps=0.2"),
        "seeds": 7,
        "output": "a",
        "workers": 3,
        "storage": "b",
        "extend": True,
        "search": 20,
        "care": "accuracy",
        "check_deterministic": True,
    }


def test_the_settings_are_those_that_were_promised():
    fits = {name: (fit.rows, fit.flipped) for name, fit in command.SETTINGS.values()}
    assert fits == {"plenty, clean": (800, 0.0), "plenty, noisy": (800, 0.2), "scarce, noisy": (100, 0.2)}
