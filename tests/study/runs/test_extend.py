"""A study goes on where validation chooses the largest strength that was tried."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from labelsmooth.study import FitResult, Results
from labelsmooth.study.analysis.verdict import comparisons
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.trials.course import largest_chosen, stronger
from tests.study.made_up import Log, peaked, study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("no_report")]
DEFAULTS = [0, 0.05, 0.1, 0.2]


def strengths(results: Results) -> list[list[float | None]]:
    return [[arm.eps for arm in setting.arms] for setting in results.settings]


@pytest.mark.parametrize(
    ("best", "options", "tried"),
    [
        (0.1, {"eps": None}, DEFAULTS),
        (0.21, {"eps": None}, [*DEFAULTS, 0.3]),
        (0.42, {"eps": None}, [*DEFAULTS, 0.3, 0.4, 0.5]),
        (2.0, {"eps": None}, [*DEFAULTS, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]),
        (0.42, {"eps": None, "extend": False}, DEFAULTS),
        (0.42, {"eps": [0.1, 0.25]}, [0, 0.1, 0.25]),
        (0.42, {"eps": [0.1, 0.25], "extend": True}, [0, 0.1, 0.25, 0.3, 0.4, 0.5]),
        (2.0, {"eps": [0.95], "extend": True}, [0, 0.95]),
    ],
)
def test_it_goes_on_until_the_chosen_one_is_not_the_largest(
    best: float, options: dict[str, Any], tried: list[float], tmp_path: Path
):
    fit, calls = peaked(best)
    results = study(fit, tmp_path, **options)
    assert strengths(results) == [tried]
    assert set(Counter(calls).values()) == {1}
    assert len(calls) == 2 * len(tried)
    assert comparisons(results.settings[0]) == 2 * (len(tried) - 1)
    calls.clear()
    assert study(fit, tmp_path, **options) == results
    assert calls == []


def test_other_arms_stay_behind_the_smoothings(tmp_path: Path):
    fit, _ = peaked(0.42)
    results = study(fit, tmp_path, eps=[0.4], arms=["maxsup"], extend=True)
    assert [arm.label for arm in results.settings[0].arms] == ["hard", "0.4", "0.5", "maxsup"]


def test_it_says_that_it_went_on_and_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    fit, _ = peaked(0.42)
    results = study({"mine": fit}, tmp_path, eps=None, progress=True)
    said = capfd.readouterr().err.splitlines()
    why = "mine: validation chose eps = {}, the largest tried, so it goes on with {}"
    assert [line for line in said if "largest" in line] == [
        why.format(*pair) for pair in ((0.2, 0.3), (0.3, 0.4), (0.4, 0.5))
    ]
    assert "14 of 14 runs done, mine ls:eps=0.5 seed 1" in said
    assert said[-1] == "all 14 runs are done: comparing them, writing the report"
    note = "validation chose eps = 0.2, the largest tried, so the study went on with 0.3, 0.4 and 0.5"
    assert results.settings[0].description == note
    assert json.loads((tmp_path / "study.json").read_text())["settings"][0]["notes"] == [note]


def test_every_setting_has_the_same_arms(tmp_path: Path):
    fits = {"low": peaked(0.1)[0], "high": peaked(0.3)[0]}
    results = study(fits, tmp_path, eps=None)
    assert strengths(results) == [[*DEFAULTS, 0.3, 0.4]] * 2
    assert [setting.description.startswith("validation chose") for setting in results.settings] == [
        False,
        True,
    ]


@pytest.mark.parametrize("calls_before", [3, 8, 9, 11])
def test_an_interrupted_study_takes_the_same_path(calls_before: int, tmp_path: Path):
    fit, calls = peaked(0.42)
    limit = Log([calls_before])

    def interrupted(criterion: Criterion, seed: int) -> FitResult:
        if len(calls) == limit[0]:
            raise KeyboardInterrupt
        return fit(criterion, seed)

    with pytest.raises(KeyboardInterrupt):
        study(interrupted, tmp_path, eps=None)
    assert not (tmp_path / "results.json").exists()
    limit[0] = -1
    results = study(interrupted, tmp_path, eps=None)
    assert set(Counter(calls).values()) == {1}
    assert results.settings == study(peaked(0.42)[0], tmp_path / "at once", eps=None).settings


def test_processes_side_by_side_take_the_same_path(tmp_path: Path):
    fit, _ = peaked(0.3)
    here = study(fit, tmp_path / "here", eps=None)
    assert study(fit, tmp_path / "there", eps=None, workers=2).settings == here.settings


def test_a_seed_that_fails_late_is_left_out_of_all_arms(tmp_path: Path):
    fit, _ = peaked(0.42)

    def failing(criterion: Criterion, seed: int) -> FitResult:
        if criterion.arm == "ls:eps=0.3" and seed == 1:
            raise RuntimeError("no luck")
        return fit(criterion, seed)

    (setting,) = study(failing, tmp_path, eps=None, seeds=3).settings
    assert [arm.eps for arm in setting.arms] == [*DEFAULTS, 0.3, 0.4, 0.5]
    assert (setting.seeds, setting.left_out) == (2, {"1": "ls:eps=0.3: RuntimeError: no luck"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"extend": "yes"}, "extend must be True, False or None, got 'yes'"),
        (
            {"eps": None, "arms": ["ols"], "extend": True},
            "extend requires a plain smoothing among the arms, got hard, ols:eps=0.5",
        ),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str, tmp_path: Path):
    fit = peaked(0.1)[0]
    fit.__dict__["num_classes"] = 4
    with pytest.raises(ValueError, match=message):
        study(fit, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_the_largest_is_chosen_among_smoothings_alone():
    means = {"hard": 0.1, "ls:eps=0.1": 0.5, "ls:eps=0.3": 0.4, "maxsup:eps=0.9": 0.2}
    assert largest_chosen(means) == 0.3
    assert largest_chosen({**means, "ls:eps=0.1": 0.3}) is None
    assert largest_chosen({"hard": 0.1, "maxsup:eps=0.9": 0.2}) is None


def test_the_next_strength_is_a_tenth():
    eps, passed = 0.05, []
    while eps < 0.9:
        passed.append(eps := stronger(eps))
    assert passed == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
