"""One small study from the command line: interrupted, resumed and asked again. The tests share it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from labelsmooth.study import Results
from labelsmooth.study.analysis.verdict import answer, verdict
from labelsmooth.study.commands import study as command

from .made_up import study, written
from .process import COMMAND, WIDE, labelsmooth

pytestmark = pytest.mark.slow

SMALL = ["study", "--settings", "scarce", "--seeds", "4", "--eps", "0.1", "--workers", "2", "-o"]
RUNS = 8


@dataclass(frozen=True)
class Story:
    folder: Path
    stopped: subprocess.CompletedProcess[str]
    after_stop: dict[Path, int]  # the runs that were kept, and when they were written
    resumed: subprocess.CompletedProcess[str]
    after_resume: dict[Path, int]
    again: subprocess.CompletedProcess[str]


def kept(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.glob("trials/*/*.safetensors")}


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    # A path longer than the 80 columns it is printed in.
    folder = tmp_path_factory.mktemp("a-folder-whose-name-is-long") / ("and-longer" * 6)
    process = subprocess.Popen(
        [*COMMAND, *SMALL, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=WIDE,
        start_new_session=True,  # the signal reaches the workers too, as a terminal's does, and not us
    )
    # Each of the two workers may have written one that is not yet entered as done; the third one is.
    while len(kept(folder)) < 3 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    stopped = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    after_stop = kept(folder)
    resumed = labelsmooth(*SMALL, folder)
    return Story(folder, stopped, after_stop, resumed, kept(folder), labelsmooth(*SMALL, folder))


needs_signals = pytest.mark.skipif(os.name == "nt", reason="process groups and SIGINT are POSIX's")


@needs_signals
def test_ctrl_c_says_one_line_and_keeps_what_is_done(story: Story):
    assert story.stopped.returncode == 130
    assert story.stopped.stdout == ""
    *_, blank, line = story.stopped.stderr.splitlines()
    assert blank == ""  # after the ^C that a terminal shows
    assert line.startswith(f"labelsmooth: stopped; finished runs are saved in {story.folder}")
    assert 3 <= len(story.after_stop) < RUNS


@needs_signals
def test_the_same_command_goes_on(story: Story):
    assert story.resumed.returncode == 0
    *lines, end = story.resumed.stderr.splitlines()
    assert end == f"all {RUNS} runs are done: comparing them, writing the report"
    assert len(lines) == RUNS - len(story.after_stop)
    assert lines[-1].startswith(f"{RUNS} of {RUNS} runs done, scarce, noisy ")
    assert len(story.after_resume) == RUNS
    again = [path for path, when in story.after_stop.items() if story.after_resume[path] != when]
    assert len(again) <= 2


@needs_signals
def test_it_ends_with_the_answer_and_where_the_report_is(story: Story):
    results = Results.load(story.folder)
    (setting,) = results.settings
    assert (setting.name, setting.seeds, setting.test_rows, setting.flipped) == ("scarce, noisy", 4, 700, 0.2)
    said = " ".join(story.resumed.stdout.split())
    assert said.startswith(f"scarce, noisy: {answer(setting)}")
    assert "softmax(-1)" in said
    assert story.resumed.stdout.splitlines()[-1] == f"report: {story.folder}/report.html"
    assert len(story.resumed.stdout.splitlines()) < 30


@needs_signals
def test_the_folder_holds_what_was_promised(story: Story):
    names = {path.name for path in story.folder.iterdir()}
    files = {"results.json", "report.html", "study.json", "study.log", "trials.db"}
    assert names == {*files, "models", "trials"}
    assert {path.suffix for path in (story.folder / "models").iterdir()} == {".json", ".safetensors"}
    assert not list(story.folder.rglob("*.partial"))


@needs_signals
def test_asked_again_it_says_the_same_at_once(story: Story):
    said = f"read back from {story.folder}, nothing was trained\n"
    assert (story.again.returncode, story.again.stderr) == (0, said)
    assert story.again.stdout == story.resumed.stdout
    assert kept(story.folder) == story.after_resume


@needs_signals
def test_as_json_it_is_one_document(story: Story):
    done = labelsmooth(*SMALL, story.folder, "--json")
    assert done.stderr == story.again.stderr
    (setting,) = json.loads(done.stdout)["settings"]
    results = Results.load(story.folder)
    assert setting["answer"] == answer(results.settings[0])
    assert setting["verdict"] == verdict(results.settings[0])
    assert [arm["name"] for arm in setting["arms"]] == ["hard", "ls:eps=0.1"]


@needs_signals
def test_a_dry_run_tells_what_is_done(story: Story):
    done = labelsmooth(*SMALL, story.folder, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"All {RUNS} runs are done."


@needs_signals
def test_the_report_is_made_again_from_the_folder_alone(story: Story, tmp_path: Path):
    folder = tmp_path / "copy"
    shutil.copytree(story.folder, folder)
    for lost in ("results.json", "report.html", "trials.db"):
        (folder / lost).unlink()
    done = labelsmooth("report", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:-1] == story.again.stdout.splitlines()[:-1]
    assert Results.load(folder).settings == Results.load(story.folder).settings
    assert (folder / "report.html").stat().st_size > 0


@needs_signals
@pytest.mark.usefixtures("no_report")
def test_two_processes_and_an_interruption_change_no_number(story: Story, tmp_path: Path):
    name, fit = command.SETTINGS["scarce"]
    here = written(study({name: fit}, tmp_path, seeds=4))
    there = written(Results.load(story.folder))
    assert here.keys() == there.keys()
    assert [path for path in here if here[path] != there[path]] == ["report.html"]  # none was drawn here


@needs_signals
@pytest.mark.parametrize(
    "setting", [{"PYTHONIOENCODING": "ascii"}, {"COLUMNS": "40"}, {"TERM": "dumb", "NO_COLOR": "1"}]
)
def test_the_answer_survives_a_poor_terminal(setting: dict[str, str], story: Story):
    args = [*COMMAND, *SMALL, story.folder]
    env = {name: value for name, value in WIDE.items() if name != "COLUMNS"} | setting
    done = subprocess.run(args, capture_output=True, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    # Digits and what is to be pasted are whole, whatever the signs between them have become.
    numbers = re.findall(r"\d+\.\d+", story.again.stdout)
    assert re.findall(r"\d+\.\d+", text) == numbers
    assert "…" not in text
    assert ".softmax(-1)" in text
