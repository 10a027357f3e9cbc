"""What cannot tell anything is refused after two or three runs, or warned of, and not after hours."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth.study import Criterion, FitResult
from labelsmooth.study.trials.early import first_jobs
from labelsmooth.study.trials.files import Job

from .made_up import LinearFit, Log, altered, bare, counted, hard, study

pytestmark = pytest.mark.usefixtures("no_report")


def test_the_first_jobs_are_a_pair_and_another_seed():
    jobs = [Job(arm, seed) for seed in range(3) for arm in ("hard", "a", "b")]
    order = first_jobs(jobs)
    assert order[:4] == [Job("hard", 0), Job("a", 0), Job("hard", 1), Job("b", 0)]
    assert sorted(order, key=jobs.index) == jobs


def without_effect(criterion: Criterion, seed: int) -> FitResult:
    """The loss is logged, and another trained with."""
    criterion(torch.zeros(2, 4), torch.tensor([0, 1]))
    return bare(hard(), seed)


def logged(fit: Callable[[Criterion, int], FitResult]) -> tuple[Any, list[int]]:
    calls: list[int] = Log()

    def counting(criterion: Criterion, seed: int) -> FitResult:
        calls.append(seed)
        return fit(criterion, seed)

    return counting, calls


def test_a_criterion_without_effect_is_refused_after_two_runs(tmp_path: Path):
    fit, calls = logged(without_effect)
    rule = r"^mine: ls:eps=0.1 and hard gave bitwise equal logits with seed 0: fit must train with"
    for _ in range(2):  # the second time from what is kept
        with pytest.raises(ValueError, match=rule):
            study({"mine": fit}, tmp_path, seeds=5, eps=[0.1, 0.2])
    assert calls == [0, 0]


@pytest.mark.slow
def test_two_arms_besides_hard_may_agree(tmp_path: Path):
    study(bare, tmp_path, eps=[0.1], arms=["maxsup:eps=0.1", "ls:eps=0.1"])


@pytest.mark.parametrize("split", ["val", "test"])
def test_rows_drawn_by_the_seed_are_refused_after_three_runs(split: str, tmp_path: Path):
    moved = altered(**{split: lambda seed, pair: (pair[0].roll(seed, 0), pair[1].roll(seed))})
    fit, calls = logged(moved)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="fit must return the same 'val' and 'test' labels"):
        study({"mine": fit}, tmp_path, seeds=5, eps=[0.1, 0.2, 0.3])
    assert calls == [0, 0, 1]


def of_class_0(seed: int, pair: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return pair[0].repeat(4, 1)[:64], torch.zeros(64, dtype=torch.int64)


def judged_by_itself(criterion: Criterion, seed: int) -> FitResult:
    result = bare(criterion, seed)
    return {"val": result["test"], "test": result["test"]}


WARNED: dict[str, tuple[Any, str]] = {
    "few rows": (bare, r"^mine: fit's 'val' has 30 rows, too few .* return 50 or more$"),
    "one class": (altered(val=of_class_0), r"^mine: fit's 'val' holds only class 0"),
    "the same rows": (judged_by_itself, r"^mine: fit's 'val' and 'test' are the same rows"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WARNED)
def test_rows_that_tell_little_are_warned_of_once(case: str, tmp_path: Path):
    fit, message = WARNED[case]
    with pytest.warns(UserWarning, match=message) as caught:
        study({"mine": fit}, tmp_path, seeds=3)
    said = [warning for warning in caught if "mine: " in str(warning.message)]
    assert len(said) == 1
    assert Path(said[0].filename).name == "made_up.py"  # which called the study


@pytest.mark.slow
def test_two_seeds_are_warned_of(tmp_path: Path):
    with pytest.warns(
        UserWarning, match="^seeds=2: intervals from 2 pairs are very wide; 5 or more are advised$"
    ):
        study(bare, tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        study(bare, tmp_path, seeds=3)
    assert not [warning for warning in caught if "seeds" in str(warning.message)]


@pytest.mark.slow
def test_whether_a_fit_is_deterministic_is_checked_when_asked_for(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    fit, calls = counted()
    first = study({"mine": fit}, tmp_path, seeds=3, check_deterministic=True, progress=True)
    said = "mine: hard with seed 0, trained once more, gave the same logits to the bit\n"
    assert said in capfd.readouterr().err
    assert sorted(calls) == [(0, 0), *sorted((eps, seed) for eps in (0, 0.1) for seed in range(3))]
    calls.clear()
    assert study({"mine": fit}, tmp_path, seeds=3, check_deterministic=True) == first
    assert calls == [(0, 0)]


@pytest.mark.slow
def test_a_fit_that_is_not_deterministic_is_warned_of(tmp_path: Path):
    _, calls = counted()

    def fit(criterion: Criterion, seed: int) -> FitResult:
        calls.append((0, seed))
        return bare(criterion, seed + len(calls))

    with pytest.warns(UserWarning, match="^mine: hard with seed 0 gave other logits when trained again, so"):
        study({"mine": fit}, tmp_path, seeds=3, check_deterministic=True)


@pytest.mark.parametrize(
    ("fit", "got"),
    [
        (lambda criterion: None, r"\(criterion\): too many positional arguments"),
        (lambda criterion, seed, epochs: None, r"\(criterion, seed, epochs\): missing .* 'epochs'"),
        (lambda criterion, *, seed: None, r"\(criterion, \*, seed\): "),
        (LinearFit, r"\(\*, steps: int = 3, .*: too many positional arguments"),
    ],
)
def test_a_fit_that_takes_something_else_is_named_at_once(fit: Any, got: str, tmp_path: Path):
    with pytest.raises(ValueError, match=rf"^mine: fit must take \(criterion, seed\), got {got}"):
        study({"mine": fit}, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_what_a_run_leaves_behind_for_the_next_is_warned_of(tmp_path: Path):
    model = torch.nn.Linear(5, 4)

    def trains_on(criterion: Criterion, seed: int) -> FitResult:
        result = bare(criterion, seed)
        with torch.no_grad():
            model.weight += 1
        return result

    said = r"^mine: training has changed an object that fit refers to \(.*weight.* changed from .*\), so"
    with pytest.warns(UserWarning, match=said):
        study({"mine": trains_on}, tmp_path / "model", seeds=3)

    history: list[int] = []

    def notes(criterion: Criterion, seed: int) -> FitResult:
        history.append(seed)
        return bare(criterion, seed)

    with pytest.warns(
        UserWarning, match=r"\(fit.s variable history changed from \[\] to \[0\]\).* if it is a log, pass"
    ):
        study({"mine": notes}, tmp_path / "log", seeds=3)
    # With a key it is a log, and the study is read back.
    study({"mine": notes}, tmp_path / "key", seeds=3, key="one")
    before = len(history)
    study({"mine": notes}, tmp_path / "key", seeds=3, key="one")
    assert len(history) == before


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_what_only_the_report_reads_trains_nothing_anew(tmp_path: Path):
    fit, calls = counted()
    study({"mine": fit}, tmp_path, seeds=3)
    calls.clear()
    named: Any = fit
    named.class_names, named.description = ["a", "b", "c", "d"], "made up"
    study({"mine": fit}, tmp_path, seeds=3)
    assert calls == []


@pytest.mark.usefixtures("no_report")
def test_an_interruption_says_what_is_kept(tmp_path: Path):
    def stopped(criterion: Criterion, seed: int) -> FitResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as stop:
        study({"mine": stopped}, tmp_path, seeds=3)
    assert stop.value.__notes__ == [f"finished runs are saved in {tmp_path}: the same call continues"]
