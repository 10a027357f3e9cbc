"""What is seen of a run before it is over: its epochs, from any process, and the time that is left."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from labelsmooth import CrossEntropyLoss
from labelsmooth.study import Criterion, FitResult
from labelsmooth.study.report.progress import Progress
from labelsmooth.study.trials import epochs
from labelsmooth.study.trials.epochs import Pace, Watched, pace_of
from labelsmooth.study.trials.files import Job, remove_partials
from tests.study.made_up import LinearFit, study

HARD = Job("hard", 0)


def watched(run: Path) -> Watched:
    return Watched(CrossEntropyLoss(), "hard", {}, run)


def shown(progress: Progress) -> str:
    file = io.StringIO()
    Console(file=file, width=80).print(progress)
    return file.getvalue()


def test_epochs_are_seen_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, now = tmp_path / "run", [1e9]
    monkeypatch.setattr(epochs.time, "time", lambda: now[0])
    assert pace_of(run) == Pace(0, None)
    criterion = watched(run)
    for n in range(1, 5):
        criterion.end_epoch()
        assert pace_of(run) == Pace(n, None if n == 1 else 2.5)
        now[0] += 2.5
    assert criterion.epochs == 4
    # The next attempt starts anew, and a claim removes what a killed process has left.
    watched(run).end_epoch()
    assert pace_of(run).epochs == 1
    remove_partials(run)
    assert pace_of(run) == Pace(0, None)


def test_a_folder_that_cannot_be_written_to_stops_no_training(tmp_path: Path):
    criterion = watched(tmp_path / "gone" / "run")
    criterion.end_epoch()
    assert criterion.epochs == 1


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("workers", [None, 1])
def test_a_fit_is_told_its_arm_and_its_facts_and_leaves_no_marks(workers: int | None, tmp_path: Path):
    def fit(criterion: Criterion, seed: int) -> FitResult:
        assert criterion.arm in ("hard", "ls:eps=0.1")
        assert criterion.facts == {"epochs": 3}
        result = LinearFit()(criterion, seed)
        (marks,) = tmp_path.rglob("*.epochs.partial")
        assert len(marks.read_text().splitlines()) == 3
        return result

    fit.epochs = 3  # type: ignore[attr-defined]
    study(fit, tmp_path, workers=workers)
    assert not [*tmp_path.rglob("*.partial")]


def test_a_criterion_of_ones_own_has_no_arm():
    criterion = Criterion(CrossEntropyLoss())
    assert (criterion.arm, criterion.facts) == ("", {})


def test_the_epochs_of_what_is_trained_are_shown_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [1e9]
    monkeypatch.setattr(epochs.time, "time", lambda: now[0])
    monkeypatch.setattr("labelsmooth.study.report.progress.time.monotonic", lambda: 0.0)
    progress = Progress(["[b]a", "b"], ["hard", "ls:eps=0.1"], 4, shown=False, epochs={"[b]a": 10, "b": None})
    progress.begin("[b]a", HARD, tmp_path / "a")
    progress.begin("b", HARD, tmp_path / "b")
    text = shown(progress)
    assert "[b]a hard seed 0: epoch 0 of 10" in text
    assert "b hard seed 0: epoch 0\n" in text.replace(" \n", "\n")
    assert "left" not in text
    criterion = watched(tmp_path / "a")
    for _ in range(4):
        criterion.end_epoch()
        now[0] += 6
    text = shown(progress)
    assert "[b]a hard seed 0: epoch 4 of 10" in text
    # 6 epochs of 6 s are left of one run, and 7 runs of 60 s, two of them at a time.
    assert "about 4 min left" in text
    progress.end("[b]a", HARD)
    assert "[b]a hard seed 0" not in shown(progress)


def test_of_many_runs_at_work_a_few_are_shown(tmp_path: Path):
    progress = Progress(["a"], ["hard"], 9, shown=False)
    for seed in range(6):
        progress.begin("a", Job("hard", seed), tmp_path / str(seed))
    text = shown(progress)
    assert [f"seed {seed}:" in text for seed in range(6)] == [True] * 4 + [False] * 2
    assert "and 2 more" in text
