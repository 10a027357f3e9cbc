"""What a study would train, told before it does."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth.study import Criterion, FitResult, plan
from labelsmooth.study.planning import Plan, Trial
from labelsmooth.study.trials.timing import EPOCHS
from tests.study.made_up import Log, bare, counted, study

pytestmark = pytest.mark.usefixtures("no_report")


@dataclass(frozen=True)
class Slow:
    """A fit that sleeps in each epoch, and that an Exception does not end."""

    calls: list[int]
    epochs: int = 100
    seconds: float = 0.6

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        for epoch in range(self.epochs):
            self.calls.append(epoch)
            criterion(torch.zeros(2, 4), torch.tensor([0, 1]))
            time.sleep(self.seconds)
            try:
                criterion.end_epoch()
            except Exception:
                self.calls.append(-1)
        return bare(criterion, seed)


def test_it_lists_what_is_to_be_trained_and_writes_nothing(tmp_path: Path):
    planned = plan(bare, eps=[0.1], seeds=3, output=tmp_path / "new")
    assert planned.trials == [
        Trial("your data", arm, seed, done=False) for arm in ("hard", "ls:eps=0.1") for seed in range(3)
    ]
    assert (planned.seconds, planned.notes) == (None, [])
    assert "0 of 6 runs are done; time for the others: unknown until the first run is trained." in str(
        planned
    )
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_it_tells_what_is_done_and_takes_the_time_of_that(tmp_path: Path):
    fit, calls = counted()
    study(fit, tmp_path)
    calls.clear()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    planned = plan(fit, eps=[0.1, 0.2], output=tmp_path, seeds=2)
    assert [trial.arm for trial in planned.trials if not trial.done] == ["ls:eps=0.2"] * 2
    assert planned.seconds is not None
    assert 0 < planned.seconds < 10
    assert planned.notes == ["Estimated by the runs in study.log, 1 at a time."]
    assert plan(fit, eps=[0.1], output=tmp_path, seeds=2).seconds == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert calls == []


@pytest.mark.parametrize(("workers", "side_by_side"), [(None, 1), (3, 3), (50, 8)])
def test_the_time_is_shared_by_those_who_train(workers: int | None, side_by_side: int, tmp_path: Path):
    line = (
        "2026-01-01 00:00:00+00:00\tyour data\thard\tseed 0\t{} s\tvalidation NLL at T 1\ttest accuracy 1\n"
    )
    lines = [line.format(seconds) for seconds in (30, 60, 500)]
    (tmp_path / "study.log").write_text("cut off\n" + "".join(lines) + "2026\tyour data\thard\tseed 0\tlong")
    planned = plan(bare, eps=[0.1], seeds=4, workers=workers, output=tmp_path)
    assert planned.seconds == pytest.approx(8 * 60 / side_by_side)


@pytest.mark.slow
def test_where_no_run_is_there_a_few_epochs_are_timed(tmp_path: Path):
    calls: list[int] = Log()
    planned = plan(Slow(calls), eps=[0.1], seeds=3, output=tmp_path / "new")
    assert calls == [*range(EPOCHS)]
    assert planned.seconds is not None
    assert 6 * 60 <= planned.seconds < 6 * 120
    assert planned.notes == ["Estimated by the first epochs of one run, 1 at a time."]
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_run_of_few_epochs_is_timed_as_a_whole(epochs: int, tmp_path: Path):
    calls: list[int] = Log()
    planned = plan(Slow(calls, epochs, 0.01), eps=[0.1], seeds=2, output=tmp_path)
    assert calls == [*range(epochs)]
    assert planned.seconds is not None
    assert 4 * 0.01 * epochs <= planned.seconds < 4


def test_it_says_what_may_follow(tmp_path: Path):
    assert plan(bare, seeds=2, output=tmp_path).notes == [
        "If validation chooses the largest eps, larger ones follow, up to 0.9: 2 runs each."
    ]
    assert plan(bare, arms=["mbls:margin=6", "maxsup"], search=20, output=tmp_path).notes == [
        "A search for mbls:margin=6, maxsup takes up to 80 more runs, and adds up to 2 arms."
    ]


def test_it_prints_a_table():
    trials = [
        Trial(name, arm, s, done=s == 0) for name in ("[b]a", "b") for arm in ("hard", "0.1") for s in (0, 1)
    ]
    assert str(Plan(trials, 100.0, ["A note."])).splitlines() == [
        "setting  arm   runs  done",
        "[b]a     hard     2     1",
        "         0.1      2     1",
        "b        hard     2     1",
        "         0.1      2     1",
        "4 of 8 runs are done; time for the others: 2 min.",
        "A note.",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": [2]}, r"eps must lie in \[0, 1\], got 2"),
        ({"seeds": 1}, r"seeds must be an integer in \[2, 1000\], got 1"),
        ({"output": ""}, "output must name a folder, got ''"),
        ({"settings": 3}, "settings must be a mapping by name, got 3"),
    ],
)
def test_its_arguments_are_those_of_the_study(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        plan(bare, **options)
