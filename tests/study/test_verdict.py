"""The words follow from the numbers: made-up results that help, harm, are undecided, are mixed."""

from dataclasses import replace

import pytest

from labelsmooth.study.analysis import verdict
from labelsmooth.study.analysis.advice import next_steps
from labelsmooth.study.analysis.comparisons import adjust
from labelsmooth.study.analysis.figures import Difference, Setting
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.verdict import (
    Effect,
    answer,
    effect,
    recommended,
)

from . import made_up
from .made_up import Interval

UP, DOWN, UNCLEAR = (0.012, 0.003, 0.021), (-0.012, -0.021, -0.003), (0.001, -0.01, 0.012)
NLL_UP, NLL_DOWN = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.01)


# Accuracy is better up, NLL down; what either says alone, and what they say together.
@pytest.mark.parametrize(
    ("accuracy", "nll", "expected"),
    [
        (UP, NLL_DOWN, "helps"),
        (UP, UNCLEAR, "helps"),
        (UNCLEAR, NLL_DOWN, "helps"),
        (DOWN, NLL_UP, "harms"),
        (DOWN, UNCLEAR, "harms"),
        (UNCLEAR, NLL_UP, "harms"),
        (UP, NLL_UP, "mixed"),
        (DOWN, NLL_DOWN, "mixed"),
        (UNCLEAR, UNCLEAR, "undecided"),
    ],
)
def test_verdict(accuracy: Interval, nll: Interval, expected: str):
    setting = made_up.setting(changes={"accuracy": accuracy, "nll_scaled": nll})
    assert verdict.verdict(setting) == expected
    # Only what surely helps is recommended.
    assert recommended(setting) is (setting.chosen if expected == "helps" else setting.hard)


def test_what_a_temperature_repairs_does_not_count():
    worse_as_trained: dict[str, Interval] = {"nll": NLL_UP, "ece": UP, "confidence_gap": DOWN}
    assert verdict.verdict(made_up.setting(changes=worse_as_trained)) == "undecided"


def test_only_the_chosen_eps_is_judged():
    # The others carry no effect; choosing another leaves nothing to report.
    helping = made_up.setting(changes={"accuracy": UP}, chosen=0.1)
    assert verdict.verdict(helping) == "helps"
    hard, *arms = helping.arms
    other = [replace(arm, chosen_by=0.1 if arm.name == "ls:eps=0.2" else arm.chosen_by) for arm in arms]
    assert verdict.verdict(replace(helping, arms=[hard, *other])) == "undecided"


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        ((0.01, 0.001, 0.02), Effect.BETTER),
        ((-0.01, -0.02, -0.001), Effect.WORSE),
        ((0.01, -0.001, 0.02), Effect.UNDECIDED),
        ((0.01, 0.0, 0.02), Effect.UNDECIDED),  # an interval that touches 0 holds it
        ((0.0, 0.0, 0.0), Effect.UNDECIDED),
        # Sure, and too small to matter.
        ((METRICS["accuracy"].smallest * 0.99, 0.001, 0.003), Effect.UNDECIDED),
        ((-METRICS["accuracy"].smallest * 0.99, -0.003, -0.001), Effect.UNDECIDED),
        ((METRICS["accuracy"].smallest, 0.001, 0.003), Effect.BETTER),
    ],
)
def test_effect_on_accuracy(difference: Interval, expected: Effect):
    setting = made_up.setting(changes={"accuracy": difference})
    assert effect(setting, setting.chosen, "accuracy") is expected


def several(*ps: float) -> Setting:
    """As many arms, each as sure of its accuracy by itself, and without any change of NLL."""
    names = [f"ls:eps={0.1 + i / 100:g}" for i in range(len(ps))]
    setting = made_up.setting(tried=[float(name.removeprefix("ls:eps=")) for name in names])
    arms = [
        replace(
            arm,
            differences={
                "accuracy": Difference(0.01, 0.005, 0.015, p),
                "nll_scaled": Difference(0.0, -0.01, 0.01, 1.0),
            },
        )
        for arm, p in zip(setting.arms[1:], ps, strict=True)
    ]
    return adjust(replace(setting, arms=[setting.hard, *arms]))


@pytest.mark.parametrize(
    ("ps", "sure"),
    [
        # Two metrics are judged: 0.05 / 2.
        ([0.024], [True]),
        ([0.026], [False]),
        # 0.05 / 6, 0.05 / 5, 0.05 / 4: each by the number that are left.
        ([0.0083, 0.0099, 0.0124], [True, True, True]),
        ([0.0124, 0.0083, 0.0099], [True, True, True]),
        ([0.0084, 0.0084, 0.0084], [False, False, False]),
        # One that is not sure takes those after it along.
        ([0.0083, 0.0101, 0.0124], [True, False, False]),
    ],
)
def test_the_verdict_and_every_mark_are_holms(ps: list[float], sure: list[bool]):
    setting = several(*ps)
    assert [effect(setting, arm, "accuracy") is Effect.BETTER for arm in setting.arms[1:]] == sure
    # The headline has the level of its mark: it never says more than the table.
    for arm, helps in zip(setting.arms[1:], sure, strict=True):
        first = [replace(a, chosen_by=0.1 if a.name == arm.name else 1.0) for a in setting.arms]
        assert verdict.verdict(replace(setting, arms=first)) == ("helps" if helps else "undecided")


def test_what_is_sure_by_itself_and_not_among_all_is_said_to_be():
    assert "[+0.5, +1.5], NLL +0.000 [-0.010, +0.010] (not significant among 4 comparisons)." in answer(
        several(0.04, 0.9)
    )


def test_what_is_sure_and_too_small_to_matter_is_no_effect_and_says_so():
    setting = made_up.setting(changes={"accuracy": (0.001, 0.0005, 0.0015)})
    assert effect(setting, setting.chosen, "accuracy") is Effect.UNDECIDED
    assert "(too small to matter)" in answer(setting)


def test_what_cannot_matter_is_told_from_what_is_undecided():
    tiny: dict[str, Interval] = {
        "accuracy": (0.0001, -0.001, 0.0012),
        "nll_scaled": (-0.0002, -0.0012, 0.0008),
    }
    setting = made_up.setting(changes=tiny)
    assert verdict.verdict(setting) == "same"
    assert recommended(setting) is setting.hard
    assert "Smoothing makes no difference that matters: eps = 0.1 gave" in answer(setting)


def test_the_answer_says_what_it_was_judged_by():
    assert verdict.criteria(made_up.setting()) == (
        "Judged: accuracy by 0.2 points, NLL at T by 0.002; at 95 % for 6 tests (Holm)."
    )


@pytest.mark.parametrize("metric", ["nll", "nll_scaled", "ece", "ece_scaled"])
def test_less_is_better_but_for_accuracy(metric: str):
    by = max(METRICS[metric].smallest, 0.001)
    better = made_up.setting(changes={metric: (-by, -1.5 * by, -0.5 * by)})
    worse = made_up.setting(changes={metric: (by, 0.5 * by, 1.5 * by)})
    assert effect(better, better.chosen, metric) is Effect.BETTER
    assert effect(worse, worse.chosen, metric) is Effect.WORSE


# Validation labels that are wrong.


def with_validation(accuracy: float, *, rows: int = 300) -> Setting:
    setting = made_up.setting(changes={"accuracy": UP})
    hard = replace(setting.hard, validation_accuracy=accuracy)
    return replace(setting, arms=[hard, *setting.arms[1:]], validation_rows=rows)


def test_validation_rows_that_differ_from_the_test_rows_are_named_and_give_no_temperature():
    assert not verdict.suspicion(with_validation(0.9))
    assert not verdict.suspicion(with_validation(0.84))  # 3 standard errors
    setting = with_validation(0.55)
    assert verdict.suspicion(setting).startswith(
        "Validation accuracy is 55 % but test accuracy is 90 %: the rows differ in kind, or validation "
        "labels are wrong."
    )
    said = answer(setting)
    assert said.startswith("Use eps = 0.1. Accuracy")
    assert "divide the logits" not in said
    assert "no temperature is advised" in said
    assert said.endswith(verdict.suspicion(setting))
    # With as few rows as that it is chance.
    assert not verdict.suspicion(with_validation(0.7, rows=10))


def test_a_temperature_that_leaves_the_ece_far_from_its_floor_is_no_advice():
    setting = made_up.setting(hard={"ece_scaled": 0.38})
    assert not verdict.trusted(setting, setting.hard)
    assert answer(setting).startswith("Keep hard targets. It is undecided")
    assert "no temperature is advised: with the one of the validation rows ECE is 38.0 %" in answer(setting)


def test_few_validation_rows_and_few_seeds_are_a_caution_in_the_answer():
    setting = replace(made_up.setting(changes={"accuracy": UP}), validation_rows=30, seeds=2)
    said = answer(setting)
    assert said.startswith("Use eps = 0.1. Accuracy")  # and no temperature of 30 rows
    assert said.endswith(
        "The 30 validation rows are few to choose an arm by. 2 seeds hardly tell how much runs vary."
    )


def test_too_little_training_is_not_over_confidence_to_cure():
    unsure = made_up.setting(hard={"confidence_gap": -0.57})
    assert next_steps(unsure)[0].startswith(
        "Train longer first: with hard targets, mean confidence is 57 points below accuracy"
    )
    assert not any("Train longer" in step for step in next_steps(made_up.setting()))


def test_seeds_that_failed_are_named():
    setting = replace(made_up.setting(), left_out={"3": "ls:eps=0.1: RuntimeError: no"})
    assert answer(setting) == (
        f"{answer(made_up.setting())} Left out, since an arm failed: seed 3 (ls:eps=0.1: RuntimeError: no)."
    )


# The whole sentence, for each thing it can say. T is 2 with hard targets and 0.5 with smoothed ones.
