"""Optuna chooses the options of an arm, on validation rows and on runs that are not judged."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from labelsmooth.study import FitResult
from labelsmooth.study.arms.options import Number
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.trials.course import SEARCH_SEEDS
from labelsmooth.study.trials.search import Family, Search, scale
from tests.study.made_up import Log, peaked, study

pytestmark = pytest.mark.usefixtures("no_report")


def searched(score: Any, suggestions: int, family: Family | None = None) -> tuple[Search, list[str]]:
    search, arms = Search(family or Family("ls"), suggestions), []
    while asked := search.ask():
        arms += asked
        search.tell({arm: score(arm) for arm in asked})
    return search, arms


@pytest.mark.slow
def test_the_best_joins_with_every_seed(tmp_path: Path):
    fit, calls = peaked(0.4)
    arms = ["maxsup", "mbls:margin=6"]
    (setting,) = study(fit, tmp_path, eps=None, arms=arms, search=12, seeds=3).settings
    names = [arm.name for arm in setting.arms]
    assert names[:3] == ["hard", "maxsup:eps=0.1", "mbls:eps=0.1,margin=6"]
    assert [name.partition(":")[0] for name in names[3:]] == ["maxsup", "mbls"]
    for name in names[3:]:
        assert abs(float(parse(name).options["eps"]) - 0.4) < 0.15
    assert names[4].endswith("margin=6")
    # What is judged was trained with the study's own seeds, and what was searched was not.
    assert {seed for arm, seed in calls if arm not in names} == {*SEARCH_SEEDS}
    assert sorted(call for call in calls if call[1] not in SEARCH_SEEDS) == sorted(
        (name, seed) for name in names for seed in range(3)
    )
    assert 12 < len([call for call in calls if call[1] == SEARCH_SEEDS[0]]) <= 24
    assert set(Counter(calls).values()) == {1}
    found = [note for note in setting.description.split("; ") if note]
    assert found == [
        f"12 suggestions for {family} (Optuna's TPE, by validation NLL at T of 2 runs each, with separate "
        f"seeds): the best was {best}"
        for family, best in zip(arms, names[3:], strict=True)
    ]


@pytest.mark.slow
def test_without_arms_plain_smoothing_is_searched_and_the_list_does_not_go_on(tmp_path: Path):
    fit, _ = peaked(0.4)
    (setting,) = study(fit, tmp_path, eps=None, search=8).settings
    assert [arm.eps for arm in setting.arms[:-1]] == [0, 0.05, 0.1, 0.2]
    assert setting.arms[-1].eps not in (0.3, None)


@pytest.mark.slow
@pytest.mark.parametrize("calls_before", [5, 9, 15])
def test_an_interrupted_search_takes_the_same_path(calls_before: int, tmp_path: Path):
    fit, calls = peaked(0.4)
    limit = Log([calls_before])

    def interrupted(criterion: Criterion, seed: int) -> FitResult:
        if len(calls) == limit[0]:
            raise KeyboardInterrupt
        return fit(criterion, seed)

    asked = {"eps": None, "arms": ["maxsup"], "search": 8}
    with pytest.raises(KeyboardInterrupt):
        study(interrupted, tmp_path, **asked)
    limit[0] = -1
    results = study(interrupted, tmp_path, **asked)
    assert set(Counter(calls).values()) == {1}
    assert results.settings == study(peaked(0.4)[0], tmp_path / "at once", **asked).settings
    calls.clear()
    assert study(interrupted, tmp_path, **asked) == results
    assert calls == []


@pytest.mark.slow
def test_a_suggestion_that_fails_is_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    fit, _ = peaked(0.4)

    def failing(criterion: Criterion, seed: int) -> FitResult:
        if seed in SEARCH_SEEDS and float(parse(criterion.arm).options["eps"]) > 0.2:
            raise RuntimeError("no luck")
        return fit(criterion, seed)

    (setting,) = study(failing, tmp_path, eps=None, arms=["maxsup"], search=8, progress=True).settings
    assert (setting.seeds, setting.left_out) == (2, {})
    assert 0.1 < float(parse(setting.arms[-1].name).options["eps"]) <= 0.2
    said = capfd.readouterr().err
    assert "failed, and the search continues: RuntimeError: no luck" in said


@pytest.mark.slow
def test_each_setting_has_a_search_of_its_own_and_all_of_them_the_arms(tmp_path: Path):
    fits = {"low": peaked(0.03)[0], "high": peaked(0.6)[0]}
    low, high = study(fits, tmp_path, eps=None, arms=["maxsup"], search=8).settings
    assert [arm.name for arm in low.arms] == [arm.name for arm in high.arms]
    found = sorted(float(parse(arm.name).options["eps"]) for arm in low.arms[2:])
    assert len(found) == 2
    assert found[0] < 0.1 < found[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": -1}, r"search must be an integer in \[0, 1000\], got -1"),
        ({"search": True}, r"search must be an integer in \[0, 1000\], got True"),
        (
            {"search": 4, "arms": ["maxsup:eps=0.1", "0.2"]},
            "search requires an arm with options that are not given, got maxsup:eps=0.1, 0.2",
        ),
    ],
)
def test_bad_arguments_are_named(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        study(peaked(0.1)[0], tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_a_search_starts_from_the_default_and_finds_what_is_better():
    search, arms = searched(lambda arm: (math.log(float(parse(arm).options["eps"]) / 0.03)) ** 2, 24)
    assert arms[0] == "ls:eps=0.1"
    assert len(arms) <= 24
    assert search.best is not None
    assert 0.02 < float(parse(search.best).options["eps"]) < 0.045


def test_a_search_is_the_same_for_the_same_scores_and_not_for_others():
    first, second = (searched(lambda arm: float(parse(arm).options["eps"]), 16)[1] for _ in range(2))
    assert first == second
    assert searched(lambda arm: -float(parse(arm).options["eps"]), 16)[1] != first


def test_a_search_of_which_nothing_can_be_trained_has_no_best():
    assert searched(lambda arm: None, 6)[0].best is None


@pytest.mark.parametrize("method", [name for name in ARMS if name != "hard"])
def test_every_suggestion_can_be_read(method: str):
    _, arms = searched(lambda arm: 0.0, 16, Family(method))
    options = ARMS[method].options
    for arm in arms:
        if "eps=1" not in arm.split(","):  # which a strength below 1 is rounded to
            assert parse(arm).method == method
    assert Family(method).defaults.keys() == {name for name, o in options.items() if o.default is not None}


@pytest.mark.parametrize(
    ("option", "low", "high", "log"),
    [
        (Number(0.1), 0.01, 1, True),
        (Number(0.5), 0.05, 1, True),
        (Number(0.0), 0, 1, False),
        (ARMS["mbls"].options["margin"], 1, 100, True),
        (ARMS["negative"].options["eps"], -4, -0.04, False),
    ],
)
def test_a_number_is_looked_for_around_its_default(option: Number, low: float, high: float, log: bool):
    found = scale(option)
    assert isinstance(found, FloatDistribution)
    assert (found.low, found.high, found.log) == (pytest.approx(low), pytest.approx(high), log)
