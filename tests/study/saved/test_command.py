"""Any program as a fit: what it is given, what is read back, and what is said of one that fails."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth.study import CommandFit, Criterion
from labelsmooth.study.arms.specs import facts_of, parse
from labelsmooth.study.fits.checks import as_result, check_calls
from labelsmooth.study.trials.identity import identify

TRAINER = Path(__file__).parent / "trainer.py"
START = shlex.join([sys.executable, str(TRAINER)])


def fit(fault: str = "", out: str = "{out}", **options: Any) -> CommandFit:
    return CommandFit(command=f"{START} {{criterion}} {{seed}} {out} {fault}", **options)


def criterion(arm: str = "ls:eps=0.1", **facts: object) -> Criterion:
    return Criterion(parse(arm).loss(facts), arm, facts)


@pytest.mark.slow
def test_a_program_trains_with_the_arm_and_its_predictions_are_read(tmp_path: Path):
    given = criterion("linear:start=0.1,end=0.2", epochs=2)
    each = fit(folder=tmp_path, epochs=2)
    result = as_result("made up", each(given, 3))
    assert (result["test"][0].shape, result["val"][0].shape) == ((40, 3), (20, 3))
    assert (given.called, given.epochs) == (True, 2)
    check_calls("made up", each, parse(given.arm), given)
    kept = {path.name for path in tmp_path.iterdir()}
    start = "linear-start-0.1-end-0.2-seed3"
    endings = ("json", "json.receipt", "npz", "stdout.log", "stderr.log")
    assert kept == {f"{start}.{ending}" for ending in endings}
    assert (tmp_path / f"{start}.stdout.log").read_text() == "starting\n"


@pytest.mark.slow
def test_the_seed_reaches_it_and_the_ending_says_what_it_writes():
    first, second = (fit(out="{out}.csv")(criterion(), seed)["test"] for seed in (0, 1))
    assert isinstance(first, tuple)
    assert isinstance(second, tuple)
    assert first[0].shape == (60, 3)
    assert not torch.equal(first[0], second[0])


FAULTS: dict[str, tuple[str, type[Exception], str]] = {
    "exit": (
        "exit",
        ChildProcessError,
        r"^the command failed with exit code 3: first of all\nno such data \(.*trainer\.py .* exit\)$",
    ),
    "no call": (
        "deaf",
        ValueError,
        r"^the program must call the criterion in \{criterion\}: criterion = lab",
    ),
    "no file": ("mute", ValueError, r"must save its predictions to \{out\}, ls-eps-0\.1-seed0\.npz"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAULTS)
def test_a_program_that_fails(case: str):
    fault, kind, message = FAULTS[case]
    with pytest.raises(kind, match=message):
        fit(fault)(criterion(), 0)


@pytest.mark.slow
def test_what_an_earlier_run_left_is_not_taken_for_its_own(tmp_path: Path):
    fit(folder=tmp_path)(criterion(), 0)
    for fault, message in (("deaf", "must call the criterion"), ("mute", "must save its predictions")):
        with pytest.raises(ValueError, match=message):
            fit(fault, folder=tmp_path)(criterion(), 0)


COMMANDS: dict[str, tuple[dict[str, Any], str]] = {
    "no seed": (
        {"command": "python train.py {criterion} {out}"},
        r"^command must hold \{seed\}, the seed, as in 'python train\.py --loss .*', got 'python",
    ),
    "nothing": (
        {"command": "python train.py"},
        r"hold \{criterion\}, .* and \{seed\}, .* and \{out\}, the file for",
    ),
    "another ending": (
        {"command": "a {criterion} {seed} {out}.pt"},
        r"have \{out\} end in .*, got \{out\}\.pt$",
    ),
    "an open quote": (
        {"command": "a {criterion} {seed} '{out}"},
        r"must be words as a shell takes them \(No clos",
    ),
    "no number": (
        {"command": "a {criterion} {seed} {out}", "epochs": 0},
        "epochs must be an integer of at lea",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_command_that_is_none(case: str):
    options, message = COMMANDS[case]
    with pytest.raises(ValueError, match=message):
        CommandFit(**options)


def test_a_program_that_is_not_there():
    with pytest.raises(ValueError, match=r"command cannot be started: 'no-such-program': No such file"):
        CommandFit(command="no-such-program {criterion} {seed} {out}")(criterion(), 0)


def test_a_criterion_without_an_arm():
    with pytest.raises(ValueError, match="must have an arm, as those of"):
        fit()(Criterion(torch.nn.CrossEntropyLoss()), 0)


@pytest.mark.slow
def test_no_shell_reads_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    fit("; touch owned")(criterion(), 0)
    assert not (tmp_path / "owned").exists()


def test_what_it_knows_is_what_it_was_told():
    known = facts_of(fit(num_classes=3, epochs=2, counts=[1, 2, 3]))
    assert (known["num_classes"], known["epochs"]) == (3, 2)
    assert torch.equal(torch.as_tensor(known["counts"]), torch.tensor([1, 2, 3]))
    assert facts_of(fit()) == {}


def test_another_program_is_another_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    digests = []
    for text in ("a", "b", "a"):
        Path("train.py").write_text(text)
        digests.append(identify(CommandFit(command="python train.py {criterion} {seed} {out}")).digest)
    assert digests[0] == digests[2] != digests[1]
    assert set(fit().programs) == {str(TRAINER)}  # and not the interpreter
