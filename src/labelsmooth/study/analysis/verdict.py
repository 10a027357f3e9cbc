"""From numbers to words. Everything here is a pure function of the results."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from labelsmooth.study.analysis.figures import JUDGED, METRICS, Arm, Estimate, Metric, Setting
from labelsmooth.study.analysis.intervals import LEVEL
from labelsmooth.study.trials.early import FEW_ROWS

FAR = 5.0  # standard errors between validation and test accuracy: clean labels gave at most 3 in 15 data sets
FEW_SEEDS = 3  # fewer are a reason for caution
FAR_FROM_FLOOR = 0.05  # an ECE so far above its noise floor is no calibration

EFFECT_WORDS = {
    "harms": "{} harms",
    "mixed": "{} has mixed effects",
    "same": "{} makes no difference that matters",
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
    NOTHING = "nothing to cure"
    NOT_TESTED = "not tested"


Verdict = Literal["helps", "harms", "mixed", "same", "undecided"]


def effect(arm: Arm, metric: Metric) -> Effect:
    """Whether an arm is better than hard targets: surely, and by enough to matter.

    A judged metric is sure among all that is judged; any other, which describes, by its own interval.
    """
    difference, better = arm.differences[metric], METRICS[metric].better
    p = difference.adjusted if metric in JUDGED else difference.p
    if p >= LEVEL or abs(difference.mean) < JUDGED.get(metric, 0.0):
        return Effect.UNDECIDED
    return Effect.BETTER if difference.mean * better > 0 else Effect.WORSE


def verdict(setting: Setting) -> Verdict:
    """By accuracy, and by NLL once both have their temperature: what a temperature repairs does not count."""
    effects = {effect(setting.chosen, metric) for metric in JUDGED}
    if effects >= {Effect.BETTER, Effect.WORSE}:
        return "mixed"
    if Effect.BETTER in effects:
        return "helps"
    if Effect.WORSE in effects:
        return "harms"
    intervals = [(setting.chosen.differences[metric], smallest) for metric, smallest in JUDGED.items()]
    negligible = all(max(abs(d.low), abs(d.high)) < smallest for d, smallest in intervals)
    return "same" if negligible else "undecided"


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
            advice, change = f"Use {called}", f"Accuracy {accuracy}, NLL {nll}."
        case "harms" | "mixed" | "same" | "undecided" as word:
            advice = "Keep hard targets"
            subject = "smoothing" if all(arm.eps is not None for arm in setting.arms) else "the best arm"
            judged = EFFECT_WORDS[word].format(subject)
            change = (
                f"{judged[0].upper()}{judged[1:]}: {called} gave accuracy {accuracy}, NLL {nll}"
                f"{_not_sure(setting) if word == 'undecided' else ''}."
            )
    other = setting.hard if arm is chosen else chosen
    warned = "".join(f" {warning}" for warning in cautions(setting))
    if not trusted(setting, arm):
        return f"{advice}. {change} {confidence(arm, scaled=False)}; {untrusted(arm)}.{warned}"
    return (
        f"{advice} and divide the logits by {arm.temperature:.2f}. {change} "
        f"{confidence(arm)}; {calibration(arm, other)}.{warned}"
    )


def _not_sure(setting: Setting) -> str:
    """Why it is undecided although an interval of its own excludes 0."""
    differences = [setting.chosen.differences[metric] for metric in JUDGED]
    if all(d.p >= LEVEL for d in differences):
        return ""
    if any(d.adjusted < LEVEL for d in differences):
        return " (too small to matter)"
    return f" (not sure among {comparisons(setting)} comparisons)"


def comparisons(setting: Setting) -> int:
    """How many are judged."""
    return len(JUDGED) * sum(arm.copy_of is None for arm in setting.arms[1:])


def criteria(setting: Setting) -> str:
    """What the verdict goes by: the metrics, what matters of each, and among how many comparisons."""
    accuracy, nll = JUDGED["accuracy"] * 100, JUDGED["nll_scaled"]
    return (
        f"Judged: accuracy by {accuracy:g} points, NLL at T by {nll:g}; "
        f"sure among {comparisons(setting)} (Holm, 95 %)."
    )


def suspicion(setting: Setting) -> str:
    """A warning where validation and test rows cannot be of one kind; empty where they may be.

    Wrong validation labels are the usual reason: they mislead the temperature and the choice of the arm.
    """
    validated, tested = setting.hard.validation_accuracy, setting.hard.values["accuracy"].mean
    rows = setting.validation_rows, setting.test_rows
    share = (validated * rows[0] + tested * rows[1]) / sum(rows)
    error = math.sqrt(share * (1 - share) * (1 / rows[0] + 1 / rows[1]))
    if abs(validated - tested) <= FAR * error:
        return ""
    return (
        f"Validation accuracy is {validated * 100:.0f} % where test accuracy is {tested * 100:.0f} %: their "
        "rows differ in kind, or validation labels are wrong. The temperature and the choice of the arm rest "
        "on them; check them first."
    )


def cautions(setting: Setting) -> list[str]:
    """What to bear in mind of the answer."""
    few_rows = setting.validation_rows < FEW_ROWS
    said = [
        suspicion(setting),
        f"The {setting.validation_rows} validation rows are few to choose an arm by." if few_rows else "",
        f"{setting.seeds} seeds hardly tell how much runs vary." if setting.seeds < FEW_SEEDS else "",
        missing(setting),
    ]
    return [caution for caution in said if caution]


def missing(setting: Setting) -> str:
    """Which seeds are not in the numbers, and why; empty where all are."""
    if not setting.left_out:
        return ""
    each = "; ".join(f"seed {seed} ({why})" for seed, why in setting.left_out.items())
    return f"Left out, since an arm failed: {each}."


def trusted(setting: Setting, arm: Arm) -> bool:
    """Whether the temperature is an advice: fitted on sound rows, and the ECE after it near its floor."""
    far = arm.values["ece_scaled"].mean - arm.noise_floor_scaled > FAR_FROM_FLOOR
    return not suspicion(setting) and setting.validation_rows >= FEW_ROWS and not far


def untrusted(arm: Arm) -> str:
    return (
        f"no temperature is advised: with the one of the validation rows ECE is "
        f"{arm.values['ece_scaled'].mean * 100:.1f} % (noise floor {arm.noise_floor_scaled * 100:.1f} %)"
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


def confidence(arm: Arm, *, scaled: bool = True) -> str:
    gap = arm.values["confidence_gap"].mean * 100
    if abs(gap) < 1:
        if not scaled:
            return "Raw confidence is within 1 point of accuracy on average"
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
    change = setting.chosen.differences["confidence_gap"]
    evidence = f"{before.mean * 100:+.0f} to {after.mean * 100:+.0f} points ({points(change, unit='')})"
    if before.high <= 0:
        return Judgement(Promise.NOTHING, evidence)
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


def points(e: Estimate, unit: str = " points") -> str:
    """A difference of shares, in percentage points."""
    return f"{e.mean * 100:+.1f}{unit} [{e.low * 100:+.1f}, {e.high * 100:+.1f}]"


def signed(e: Estimate) -> str:
    return f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"
