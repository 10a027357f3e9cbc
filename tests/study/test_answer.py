"""The answer in words, and the promised effects, of made-up results."""

import inspect
from dataclasses import asdict, replace

import pytest

from labelsmooth.study.analysis import verdict
from labelsmooth.study.analysis.verdict import (
    Promise,
    answer,
    generalises,
    less_confident,
    resists_noise,
)

from . import made_up
from .made_up import Interval

UP, DOWN, UNCLEAR = (0.012, 0.003, 0.021), (-0.012, -0.021, -0.003), (0.001, -0.01, 0.012)
NLL_UP, NLL_DOWN = (0.03, 0.01, 0.05), (-0.03, -0.05, -0.01)


def test_the_sentence_when_smoothing_helps():
    setting = made_up.setting(
        changes={
            "accuracy": (0.009, 0.001, 0.017),
            "nll_scaled": NLL_DOWN,
            "ece_scaled": (-0.004, -0.01, 0.002),
            "confidence_gap": (-0.19, -0.2, -0.18),
        },
    )
    assert answer(setting) == (
        "Use eps = 0.1 and divide the logits by 0.50. Accuracy +0.9 points [+0.1, +1.7], "
        "NLL -0.030 [-0.050, -0.010]. Raw confidence is 14 points too low; "
        "after temperature ECE 1.6 % against 2.0 % with hard targets (noise floor 1.2 %)."
    )


def test_the_sentence_when_smoothing_harms():
    setting = made_up.setting(
        changes={"accuracy": DOWN, "nll_scaled": NLL_UP, "ece_scaled": (0.005, 0.001, 0.009)},
        hard={"confidence_gap": 0.057},
    )
    # The confidence and the noise floor are those of what is recommended, hard targets.
    assert answer(setting) == (
        "Keep hard targets and divide the logits by 2.00. Smoothing harms: eps = 0.1 gave accuracy "
        "-1.2 points [-2.1, -0.3], NLL +0.030 [+0.010, +0.050]. Raw confidence is 6 points too high; "
        "after temperature ECE 2.0 % against 2.5 % with eps = 0.1 (noise floor 1.3 %)."
    )


def test_the_sentence_when_it_is_undecided():
    setting = made_up.setting(changes={"accuracy": UNCLEAR}, hard={"confidence_gap": -0.004})
    assert answer(setting) == (
        "Keep hard targets and divide the logits by 2.00. It is undecided whether smoothing helps: "
        "eps = 0.1 gave accuracy +0.1 points [-1.0, +1.2], NLL +0.000 [-0.010, +0.010]. "
        "Raw confidence is within 1 point of accuracy on average; "
        "the temperature, fitted on the validation rows, takes test NLL from 0.500 to 0.400; "
        "after temperature ECE 2.0 % against 2.0 % with eps = 0.1 (noise floor 1.3 %)."
    )


def test_the_sentence_when_it_is_mixed_and_the_largest():
    setting = made_up.setting(changes={"accuracy": UP, "nll_scaled": NLL_UP}, chosen=0.2)
    assert answer(setting) == (
        "Keep hard targets and divide the logits by 2.00. Smoothing has mixed effects: "
        "eps = 0.2 (the largest tried) gave accuracy +1.2 points [+0.3, +2.1], NLL +0.030 [+0.010, +0.050]. "
        "Raw confidence is 5 points too high; "
        "after temperature ECE 2.0 % against 2.0 % with eps = 0.2 (noise floor 1.3 %)."
    )


@pytest.mark.parametrize(
    ("chosen", "tried", "said"),
    [
        (0.2, (0.05, 0.1, 0.2), "Use eps = 0.2 (the largest tried) and"),
        (0.1, (0.1,), "Use eps = 0.1 and"),  # nor the smallest
        (0.05, (0.05, 0.1), "Use eps = 0.05 and"),
        (1.0, (0.5, 1.0), "Use eps = 1 (the largest tried) and"),
    ],
)
def test_the_largest_eps_is_said_to_be(chosen: float, tried: tuple[float, ...], said: str):
    assert answer(made_up.setting(changes={"accuracy": UP}, chosen=chosen, tried=tried)).startswith(said)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("maxsup:eps=0.1", "Use maxsup and divide"),
        ("mbls:eps=0.1,margin=6", "Use mbls:margin=6 and divide"),
        (0.2, "Use eps = 0.2 (the largest tried) and divide"),
    ],
)
def test_other_arms_are_called_by_their_label(chosen: float | str, said: str):
    tried = [0.1, "maxsup:eps=0.1", 0.2, "mbls:eps=0.1,margin=6"]
    assert answer(made_up.setting(changes={"accuracy": UP}, chosen=chosen, tried=tried)).startswith(said)


@pytest.mark.parametrize(("change", "other"), [(UP, "hard targets"), (DOWN, "maxsup")])
def test_the_other_ece_says_whose_it_is(change: Interval, other: str):
    setting = made_up.setting(
        changes={"accuracy": change}, chosen="maxsup:eps=0.1", tried=["maxsup:eps=0.1", 0.1]
    )
    assert f"ECE 2.0 % against 2.0 % with {other} (noise floor" in answer(setting)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (DOWN, "The best arm harms: maxsup gave accuracy"),
        (UNCLEAR, "It is undecided whether the best arm helps: maxsup gave accuracy"),
    ],
)
def test_what_may_not_be_smoothing_is_not_called_that(change: Interval, said: str):
    setting = made_up.setting(
        changes={"accuracy": change}, chosen="maxsup:eps=0.1", tried=["maxsup:eps=0.1", 0.1]
    )
    assert said in answer(setting)


# Why there is a temperature all the same, and what it does.
RIGHT_ON_AVERAGE = (
    "Raw confidence is within 1 point of accuracy on average; the temperature, fitted on the validation "
    "rows, takes test NLL from 0.500 to 0.400"
)


@pytest.mark.parametrize(
    ("gap", "said"),
    [
        (0.204, "Raw confidence is 20 points too high"),
        (-0.204, "Raw confidence is 20 points too low"),
        (0.0101, "Raw confidence is 1 point too high"),
        (-0.0149, "Raw confidence is 1 point too low"),
        (0.0099, RIGHT_ON_AVERAGE),
        (-0.0099, RIGHT_ON_AVERAGE),
        (0.0, RIGHT_ON_AVERAGE),
    ],
)
def test_raw_confidence(gap: float, said: str):
    assert verdict.confidence(made_up.setting(hard={"confidence_gap": gap}).hard) == said


# before: (mean, low, high) of confidence less accuracy with hard targets; change: what smoothing did to it.
TOO_HIGH, FELL, FELL_FAR, ROSE = (0.1, 0.08, 0.12), (-0.06, -0.08, -0.04), (-0.25, -0.3, -0.2), UP


@pytest.mark.parametrize(
    ("before", "change", "promise", "evidence"),
    [
        (TOO_HIGH, FELL, Promise.HELD, "+10 to +4 points"),
        (TOO_HIGH, FELL_FAR, Promise.HELD, "+10 to -15 points, overshot"),
        (TOO_HIGH, UNCLEAR, Promise.UNDECIDED, "+10 to +10 points"),
        (TOO_HIGH, ROSE, Promise.NOT_HELD, "+10 to +11 points"),
        ((-0.1, -0.12, -0.08), FELL, Promise.NOTHING, "-10 to -16 points"),
        # Perhaps there was some to lessen, perhaps not.
        ((0.01, -0.01, 0.03), FELL, Promise.UNDECIDED, "+1 to -5 points"),
        ((0.01, -0.01, 0.03), ROSE, Promise.NOT_HELD, "+1 to +2 points"),
    ],
)
def test_less_over_confidence(before: Interval, change: Interval, promise: Promise, evidence: str):
    judgement = less_confident(
        made_up.setting(hard={"confidence_gap": before}, changes={"confidence_gap": change})
    )
    mean, low, high = (f"{100 * v:+.1f}" for v in change)
    said = evidence.replace("points", f"points ({mean} [{low}, {high}])")
    assert (judgement.promise, judgement.evidence) == (promise, said)


OUTCOMES = [(UP, Promise.HELD), (DOWN, Promise.NOT_HELD), (UNCLEAR, Promise.UNDECIDED)]


@pytest.mark.parametrize(("accuracy", "promise"), OUTCOMES)
def test_better_generalisation(accuracy: Interval, promise: Promise):
    judgement = generalises(made_up.setting(changes={"accuracy": accuracy, "nll_scaled": NLL_DOWN}))
    assert judgement.promise is promise
    mean, low, high = (f"{100 * v:+.1f}" for v in accuracy)
    assert judgement.evidence == f"{mean} points [{low}, {high}]"


@pytest.mark.parametrize(("accuracy", "promise"), OUTCOMES)
def test_resilience_to_noise(accuracy: Interval, promise: Promise):
    learnt: dict[str, Interval] = {"accuracy": accuracy, "memorised": (-0.3, -0.4, -0.2)}
    judgement = resists_noise(made_up.setting(changes=learnt, hard={"memorised": 0.95}, flipped=0.2))
    mean, low, high = (f"{100 * v:+.1f}" for v in accuracy)
    evidence = f"{mean} points [{low}, {high}]; wrong labels memorised 95 to 65 %"
    assert (judgement.promise, judgement.evidence) == (promise, evidence)


@pytest.mark.parametrize("flipped", [None, 0.0])
def test_resilience_to_noise_is_not_tested_without_noise(flipped: float | None):
    judgement = resists_noise(made_up.setting(changes={"accuracy": UP}, flipped=flipped))
    assert (judgement.promise, judgement.evidence) == (Promise.NOT_TESTED, "no wrong labels known")


def test_resilience_to_noise_where_memorising_is_unknown():
    judgement = resists_noise(made_up.setting(changes={"accuracy": UP}, flipped=0.2))
    assert (judgement.promise, judgement.evidence) == (Promise.HELD, "+1.2 points [+0.3, +2.1]")


def test_words_depend_on_the_results_alone():
    setting = made_up.setting(changes={"accuracy": UP}, flipped=0.2)
    before = asdict(setting)
    first = answer(setting), [judge(setting) for judge in verdict.PROMISES.values()]
    assert first == (answer(setting), [judge(setting) for judge in verdict.PROMISES.values()])
    assert asdict(setting) == before
    assert answer(replace(setting, name="other", description="other")) == first[0]


def test_nothing_about_one_data_set_is_written_in():
    text = inspect.getsource(verdict).lower()
    assert [word for word in ("digit", "sklearn", "mnist", "scarce", "plenty", "noisy") if word in text] == []


def test_printed_results_answer_for_each_setting():
    first, second = made_up.setting("a", changes={"accuracy": UP}), made_up.setting("b")
    assert str(made_up.results(first, second)) == f"a: {answer(first)}\nb: {answer(second)}"
