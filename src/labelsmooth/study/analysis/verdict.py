"""From numbers to words. Everything here is a pure function of the results."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from labelsmooth.study.analysis.figures import METRICS, Arm, Estimate, Metric, Setting

SMALLEST_ACCURACY_EFFECT = 0.002  # a fifth of a point: less is not worth a change of loss
LEVEL = 0.05

EFFECT_WORDS = {
    "harms": "{} harms",
    "mixed": "{} has mixed effects",
    "undecided": "It is undecided whether {} helps",
}


class Effect(StrEnum):
    BETTER = "better"
    WORSE = "worse"
    UNDECIDED = "undecided"


class Promise(StrEnum):
    HELD = "held"
    NOT_HELD = "not held"
    UNDECIDED = "undecided"
    NOT_TESTED = "not tested"


Verdict = Literal["helps", "harms", "mixed", "undecided"]


def effect(arm: Arm, metric: Metric) -> Effect:
    """Whether an arm is better than hard targets, if its interval excludes 0."""
    difference, better = arm.differences[metric], METRICS[metric].better
    small = metric == "accuracy" and abs(difference.mean) < SMALLEST_ACCURACY_EFFECT
    if small or difference.low <= 0 <= difference.high:
        return Effect.UNDECIDED
    return Effect.BETTER if difference.mean * better > 0 else Effect.WORSE


def effects(setting: Setting, metric: Metric) -> dict[str, Effect]:
    """Each arm's effect by its name, as far as it is sure among so many (Holm, 1979)."""
    arms = sorted(setting.arms[1:], key=lambda arm: arm.differences[metric].p)
    found, sure = {}, True
    for i, arm in enumerate(arms):
        sure = sure and arm.differences[metric].p <= LEVEL / (len(arms) - i)
        found[arm.name] = effect(arm, metric) if sure else Effect.UNDECIDED
    return found


def verdict(setting: Setting) -> Verdict:
    """By accuracy, and by NLL once both have their temperature: what a temperature repairs does not count."""
    effects = {effect(setting.chosen, "accuracy"), effect(setting.chosen, "nll_scaled")}
    if effects >= {Effect.BETTER, Effect.WORSE}:
        return "mixed"
    if Effect.BETTER in effects:
        return "helps"
    return "harms" if Effect.WORSE in effects else "undecided"


def recommended(setting: Setting) -> Arm:
    return setting.chosen if verdict(setting) == "helps" else setting.hard


def answer(setting: Setting) -> str:
    """What to do, and the numbers it rests on."""
    arm, chosen = recommended(setting), setting.chosen
    called = described(setting)
    accuracy = points(chosen.differences["accuracy"])
    nll = signed(chosen.differences["nll_scaled"])
    match verdict(setting):
        case "helps":
            advice, change = f"Use {called}", f"Accuracy {accuracy}."
            if effect(chosen, "accuracy") is not Effect.BETTER:
                change = f"NLL {nll}, accuracy {accuracy}."
        case "harms" | "mixed" | "undecided" as word:
            advice = "Keep hard targets"
            subject = "smoothing" if all(arm.eps is not None for arm in setting.arms) else "the best arm"
            judged = EFFECT_WORDS[word].format(subject)
            change = f"{judged[0].upper()}{judged[1:]}: {called} gave accuracy {accuracy}, NLL {nll}."
    other = setting.hard if arm is chosen else chosen
    return (
        f"{advice} and divide the logits by {arm.temperature:.2f}. {change} "
        f"{confidence(arm)}; {calibration(arm, other)}."
    )


def described(setting: Setting) -> str:
    """The chosen arm within a sentence, where it is named first."""
    chosen = setting.chosen
    tried = [arm.eps for arm in setting.arms[1:] if arm.eps is not None]
    largest = len(tried) > 1 and chosen.eps == max(tried)
    return f"{named(chosen)}{' (the largest tried)' if largest else ''}"


def named(arm: Arm) -> str:
    """An arm within a sentence."""
    if arm.eps is None:
        return arm.label
    return f"eps = {arm.label}" if arm.eps else "hard targets"


def confidence(arm: Arm) -> str:
    gap = arm.values["confidence_gap"].mean * 100
    if abs(gap) < 1:
        # No reason to divide by anything: so what the temperature rests on, and what it is worth.
        before, after = arm.values["nll"].mean, arm.values["nll_scaled"].mean
        return (
            "Raw confidence is within 1 point of accuracy on average; the temperature, fitted on the "
            f"validation rows, takes test NLL from {before:.3f} to {after:.3f}"
        )
    number = f"{abs(gap):.0f}"
    return (
        f"Raw confidence is {number} point{'' if number == '1' else 's'} too {'high' if gap > 0 else 'low'}"
    )


def calibration(arm: Arm, other: Arm) -> str:
    ece, against = arm.values["ece_scaled"].mean, other.values["ece_scaled"].mean
    return (
        f"after temperature ECE {ece * 100:.1f} % against {against * 100:.1f} % with {named(other)} "
        f"(noise floor {arm.noise_floor_scaled * 100:.1f} %)"
    )


@dataclass(frozen=True)
class Judgement:
    """A promised effect of smoothing, and whether it showed."""

    promise: Promise
    evidence: str


def less_confident(setting: Setting) -> Judgement:
    """Less over-confidence: mean confidence less accuracy falls, where it was too high."""
    before = setting.hard.values["confidence_gap"]
    after = setting.chosen.values["confidence_gap"]
    evidence = f"{before.mean * 100:+.0f} to {after.mean * 100:+.0f} points"
    if before.high <= 0:
        return Judgement(Promise.NOT_HELD, f"{evidence}: none to lessen")
    change = setting.chosen.differences["confidence_gap"]
    if before.low > 0 and change.high < 0:
        return Judgement(Promise.HELD, evidence + (", overshot" if after.high < 0 else ""))
    return Judgement(Promise.NOT_HELD if change.low > 0 else Promise.UNDECIDED, evidence)


def generalises(setting: Setting) -> Judgement:
    """Better generalisation: test accuracy rises."""
    return Judgement(
        _promise(effect(setting.chosen, "accuracy")), points(setting.chosen.differences["accuracy"])
    )


def resists_noise(setting: Setting) -> Judgement:
    """Resilience to noise: test accuracy rises where training labels are wrong."""
    if not setting.flipped:
        return Judgement(Promise.NOT_TESTED, "no wrong labels known")
    memorised = [arm.values.get("memorised") for arm in (setting.hard, setting.chosen)]
    evidence = points(setting.chosen.differences["accuracy"])
    if None not in memorised:
        before, after = (f"{m.mean * 100:.0f}" for m in memorised if m)
        evidence += f"; flips learnt {before} to {after} %"
    return Judgement(_promise(effect(setting.chosen, "accuracy")), evidence)


PROMISES = {
    "less over-confidence": less_confident,
    "better generalisation": generalises,
    "resilience to noise": resists_noise,
}


def _promise(effect: Effect) -> Promise:
    match effect:
        case Effect.BETTER:
            return Promise.HELD
        case Effect.WORSE:
            return Promise.NOT_HELD
        case Effect.UNDECIDED:
            return Promise.UNDECIDED


def points(e: Estimate) -> str:
    """A difference of shares, in percentage points."""
    return f"{e.mean * 100:+.1f} points [{e.low * 100:+.1f}, {e.high * 100:+.1f}]"


def signed(e: Estimate) -> str:
    return f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"
