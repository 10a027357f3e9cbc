"""A fit that fails with a seed, and a process that is killed while it trains."""

import os
import signal
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.trials.workers import Pool, was_killed

from .made_up import Log, bare, counted, study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]


@pytest.mark.parametrize("bad", [0, 2])
def test_a_seed_that_fails_does_not_keep_the_answer_from_the_others(
    bad: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    fit, calls = counted()
    mended: list[bool] = Log()

    def failing(criterion: Criterion, seed: int) -> FitResult:
        if seed == bad and not mended:
            raise RuntimeError("no\nluck")
        return fit(criterion, seed)

    (setting,) = study({"mine": failing}, tmp_path, seeds=4, progress=True).settings
    assert setting.left_out == {str(bad): "hard: RuntimeError: no luck"}
    assert setting.seeds == 3
    assert (
        f"mine: seed {bad} is left out, hard failed with it: RuntimeError: no luck" in capfd.readouterr().err
    )
    assert {seed for _, seed in calls} == {0, 1, 2, 3} - {bad}
    # The numbers are those of a study without this seed.
    again = study({"mine": failing}, tmp_path, seeds=4)
    assert again.settings == [setting]
    calls.clear()
    mended.append(True)
    (setting,) = study({"mine": failing}, tmp_path, seeds=4).settings
    assert sorted(calls) == [(0, bad), (0.1, bad)]
    assert (setting.seeds, setting.left_out) == (4, {})
    assert setting == study({"mine": counted()[0]}, tmp_path / "new", seeds=4).settings[0]


@pytest.mark.parametrize("seeds", [2, 5])
def test_a_mistake_in_a_fit_says_where_it_was_and_is_not_made_with_every_seed_and_arm(
    seeds: int, tmp_path: Path
):
    calls = []

    def broken(criterion: Criterion, seed: int) -> FitResult:
        calls.append(seed)
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data") as caught:
        study({"mine": broken}, tmp_path, seeds=seeds, eps=[0.1, 0.2, 0.3])
    assert caught.value.__notes__ == ["in the fit of 'mine' with hard and seed 0"]
    assert calls == list(range(seeds - 1))


def dies(times: int, marks: Path, criterion: Criterion, seed: int) -> FitResult:
    if seed == 1 and len([*marks.iterdir()]) < times:
        (marks / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return bare(criterion, seed)


@pytest.mark.parametrize("times", [1, 2])
def test_a_run_whose_process_is_killed_is_tried_once_more(times: int, tmp_path: Path):
    marks = tmp_path / "marks"
    marks.mkdir()

    def fit(criterion: Criterion, seed: int) -> FitResult:
        return dies(times, marks, criterion, seed)

    if times == 1:
        assert study({"mine": fit}, tmp_path / "study", workers=1).settings[0].left_out == {}
    else:
        message = "a worker was killed twice in the fit of 'mine' with hard and seed 1: out of memory?"
        with pytest.raises(ChildProcessError, match=message):
            study({"mine": fit}, tmp_path / "study", workers=1)
    assert len([*marks.iterdir()]) == times


def load() -> float:
    rows = DataLoader(TensorDataset(torch.arange(6.0)), batch_size=2, num_workers=2)
    return sum(batch.sum().item() for (batch,) in rows)


def test_a_fit_in_a_worker_may_start_processes_itself_and_a_death_ends_no_other_work():
    with Pool(2) as pool:
        dead, alive = pool.submit(os._exit, 1), pool.submit(load)
        assert pool.is_full
        while not pool.is_empty:
            pool.wait(10)
        assert was_killed(dead)
        assert alive.result() == 15
