"""The verdict in words. All functions are pure functions of the results."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from labelsmooth.study.analysis.figures import Arm, Estimate, Setting
from labelsmooth.study.analysis.intervals import LEVEL
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.trials.early import FEW_ROWS

FAR = 5.0  # standard errors between validation and test accuracy; at most 3 with clean labels in 15 data sets
FEW_SEEDS = 3  # fewer seeds give a warning
FEW_TEST_ROWS = 20  # fewer test rows give no verdict, whatever the interval
FAR_FROM_FLOOR = 0.05  # an ECE this far above its noise floor is not calibrated

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
    NOTHING = "not needed"
    NOT_TESTED = "not tested"


Verdict = Literal["helps", "harms", "mixed", "same", "undecided"]


def effect(setting: Setting, arm: Arm, metric: str) -> Effect:
    """Whether an arm is significantly better or worse than hard targets, by a relevant difference.

    A judged metric is corrected for all comparisons; any other metric is descriptive and uses its own
    interval.
    """
    difference, info = arm.differences[metric], METRICS[metric]
    judged = metric in setting.judged
    p = difference.adjusted if judged else difference.p
    too_few = setting.test_rows < FEW_TEST_ROWS
    if too_few or p >= LEVEL or (judged and abs(difference.mean) < info.smallest):
        return Effect.UNDECIDED
    return Effect.BETTER if difference.mean * info.better > 0 else Effect.WORSE


def verdict(setting: Setting) -> Verdict:
    """The verdict by the judged metrics, with probabilities after temperature."""
    effects = {effect(setting, setting.chosen, metric) for metric in setting.judged}
    if effects >= {Effect.BETTER, Effect.WORSE}:
        return "mixed"
    if Effect.BETTER in effects:
        return "helps"
    if Effect.WORSE in effects:
        return "harms"
    intervals = [(setting.chosen.differences[metric], METRICS[metric].smallest) for metric in setting.judged]
    negligible = all(max(abs(d.low), abs(d.high)) < smallest for d, smallest in intervals)
    return "same" if negligible and setting.test_rows >= FEW_TEST_ROWS else "undecided"


def recommended(setting: Setting) -> Arm:
    return setting.chosen if verdict(setting) == "helps" else setting.hard


def answer(setting: Setting) -> str:
    """The advice, and the figures behind it."""
    arm, chosen = recommended(setting), setting.chosen
    called = described(setting)
    changes = ", ".join(_changed(chosen, metric) for metric in setting.judged)
    match verdict(setting):
        case "helps":
            advice = f"Use {called}"
            change = f"{changes[0].upper()}{changes[1:]}."
        case "harms" | "mixed" | "same" | "undecided" as word:
            advice = f"Keep {named(setting.hard)}"
            subject = "smoothing" if all(arm.eps is not None for arm in setting.arms) else "the best arm"
            if len(setting.arms) == 2:
                subject = called
            judged = EFFECT_WORDS[word].format(subject)
            change = (
                f"{judged[0].upper()}{judged[1:]}: {'it' if subject == called else called} gave {changes}"
                f"{_not_sure(setting) if word == 'undecided' else ''}."
            )
    other = setting.hard if arm is chosen else chosen
    warned = "".join(f" {warning}" for warning in cautions(setting))
    if arm.temperature is None:
        return (
            f"{advice}. {change} {confidence(arm, scaled=False)}; {calibration(setting, arm, other)}.{warned}"
        )
    if not trusted(setting, arm):
        return f"{advice}. {change} {confidence(arm, scaled=False)}; {untrusted(arm)}.{warned}"
    return (
        f"{advice} and divide the logits by {arm.temperature:.2f}. {change} "
        f"{confidence(arm)}; {calibration(setting, arm, other)}.{warned}"
    )


def _changed(arm: Arm, metric: str) -> str:
    """A judged metric and its difference, within a sentence."""
    return f"{METRICS[metric].short} {said(arm.differences[metric], metric)}"


def _not_sure(setting: Setting) -> str:
    """The reason for an undecided verdict although an interval excludes 0."""
    differences = [setting.chosen.differences[metric] for metric in setting.judged]
    if all(d.p >= LEVEL for d in differences):
        return ""
    if any(d.adjusted < LEVEL for d in differences):
        return " (too small to matter)"
    return f" (not significant among {comparisons(setting)} comparisons)"


def comparisons(setting: Setting) -> int:
    """The number of judged comparisons."""
    return len(setting.judged) * sum(arm.copy_of is None for arm in setting.arms[1:])


def criteria(setting: Setting) -> str:
    """The basis of the verdict: the metrics, their smallest relevant differences, and the comparisons."""
    judged = ", ".join(_matters(metric) for metric in setting.judged)
    by = METRICS[setting.by]
    rows = "validation" if setting.validation_rows else "test"
    chosen = (
        ""
        if setting.care == "overall" and setting.validation_rows
        else (f" Chosen by {by.short}{at(setting.by)} on {rows} rows.")
    )
    count = comparisons(setting)
    among = f"at 95 % for {count} tests (Holm)" if count > 1 else "at 95 %"
    return f"Judged: {judged}; {among}.{chosen}"


def _matters(metric: str) -> str:
    info = METRICS[metric]
    unit = {"%": " points", "points": " points"}.get(info.unit, "")
    return f"{info.short}{at(metric)} by {info.smallest * info.factor:g}{unit}"


def at(metric: str) -> str:
    """A suffix for a metric after temperature, within a sentence."""
    return " at T" if metric.endswith("_scaled") else ""


def suspicion(setting: Setting) -> str:
    """A warning if validation and test rows differ in distribution; empty otherwise.

    The usual reason is wrong validation labels, which invalidate the temperature and the choice of the arm.
    """
    validated, tested = setting.hard.validation_accuracy, setting.hard.values["accuracy"].mean
    if validated is None:
        return ""
    rows = setting.validation_rows, setting.test_rows
    share = (validated * rows[0] + tested * rows[1]) / sum(rows)
    error = math.sqrt(share * (1 - share) * (1 / rows[0] + 1 / rows[1]))
    if abs(validated - tested) <= FAR * error:
        return ""
    return (
        f"Validation accuracy is {validated * 100:.0f} % but test accuracy is {tested * 100:.0f} %: the "
        "rows differ in kind, or validation labels are wrong. Check them first, since they determine the "
        "temperature and the choice of the arm."
    )


def cautions(setting: Setting) -> list[str]:
    """Cautions about the answer."""
    said = [
        suspicion(setting),
        _few_rows(setting),
        _few_test_rows(setting),
        _few_seeds(setting),
        missing(setting),
    ]
    return [caution for caution in said if caution]


def _few_rows(setting: Setting) -> str:
    if not setting.validation_rows:
        by_test = ", and the arm is the best one on the test rows" if len(setting.arms) > 2 else ""
        return (
            f"Without validation rows there is no temperature{by_test}: NLL and ECE are before temperature "
            "scaling, which may change them more than any arm does."
        )
    few = setting.validation_rows < FEW_ROWS
    return f"The {setting.validation_rows} validation rows are few to choose an arm by." if few else ""


def _few_test_rows(setting: Setting) -> str:
    if setting.test_rows >= FEW_ROWS:
        return ""
    rows = f"{setting.test_rows} test rows are" if setting.test_rows > 1 else "1 test row is"
    return f"{rows} few to judge by{'' if setting.test_rows >= FEW_TEST_ROWS else '; no verdict is given'}."


def _few_seeds(setting: Setting) -> str:
    if setting.seeds == 1:
        return "With one run of each arm, the intervals cover other test rows but not other runs."
    return f"{setting.seeds} seeds hardly tell how much runs vary." if setting.seeds < FEW_SEEDS else ""


def missing(setting: Setting) -> str:
    """The seeds that are left out, and the reasons; empty if all are included."""
    if not setting.left_out:
        return ""
    each = "; ".join(f"seed {seed} ({why})" for seed, why in setting.left_out.items())
    return f"Left out, since an arm failed: {each}."


def trusted(setting: Setting, arm: Arm) -> bool:
    """Whether the temperature is advised: the validation rows are sound, and the ECE after it is low."""
    if arm.temperature is None:
        return False
    far = arm.values["ece_scaled"].mean - arm.floors["ece_scaled"] > FAR_FROM_FLOOR
    return not suspicion(setting) and setting.validation_rows >= FEW_ROWS and not far


def untrusted(arm: Arm) -> str:
    return (
        f"no temperature is advised: with the one of the validation rows ECE is "
        f"{arm.values['ece_scaled'].mean * 100:.1f} % (noise floor {arm.floors['ece_scaled'] * 100:.1f} %)"
    )


def described(setting: Setting) -> str:
    """The chosen arm within a sentence, at its first mention."""
    chosen = setting.chosen
    tried = [arm.eps for arm in setting.arms[1:] if arm.eps is not None]
    largest = len(tried) > 1 and chosen.eps == max(tried)
    return f"{named(chosen)}{' (the largest tried)' if largest else ''}"


def named(arm: Arm) -> str:
    """An arm within a sentence; names given by the user are quoted."""
    if arm.spec is None:
        return f'"{arm.label}"'
    if arm.eps is None:
        return arm.label
    return f"eps = {arm.label}" if arm.eps else "hard targets"


def confidence(arm: Arm, *, scaled: bool = True) -> str:
    gap = arm.values["confidence_gap"].mean * 100
    if abs(gap) < 1:
        if not scaled:
            return "Raw confidence is within 1 point of accuracy on average"
        # The gap gives no reason for the temperature, so its effect on the NLL is shown.
        before, after = arm.values["nll"].mean, arm.values["nll_scaled"].mean
        return (
            "Raw confidence is within 1 point of accuracy on average; the temperature, fitted on the "
            f"validation rows, takes test NLL from {before:.3f} to {after:.3f}"
        )
    number = f"{abs(gap):.0f}"
    return (
        f"Raw confidence is {number} point{'' if number == '1' else 's'} too {'high' if gap > 0 else 'low'}"
    )


def calibration(setting: Setting, arm: Arm, other: Arm) -> str:
    metric = setting.at_best("ece")
    ece, against = arm.values[metric].mean, other.values[metric].mean
    after = "after temperature " if metric == "ece_scaled" else ""
    return (
        f"{after}ECE {ece * 100:.1f} % against {against * 100:.1f} % with {named(other)} "
        f"(noise floor {arm.floors[metric] * 100:.1f} %)"
    )


@dataclass(frozen=True)
class Judgement:
    """A promised effect of smoothing, and whether it held."""

    promise: Promise
    evidence: str


def less_confident(setting: Setting) -> Judgement:
    """Less over-confidence: mean confidence minus accuracy decreases, if it was above 0."""
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
    """Better generalisation: test accuracy increases."""
    return Judgement(
        _promise(effect(setting, setting.chosen, "accuracy")), points(setting.chosen.differences["accuracy"])
    )


def resists_noise(setting: Setting) -> Judgement:
    """Resilience to noise: test accuracy increases with wrong training labels."""
    if not setting.flipped:
        return Judgement(Promise.NOT_TESTED, "no wrong labels known")
    memorised = [arm.values.get("memorised") for arm in (setting.hard, setting.chosen)]
    evidence = points(setting.chosen.differences["accuracy"])
    if None not in memorised:
        before, after = (f"{m.mean * 100:.0f}" for m in memorised if m)
        evidence += f"; wrong labels memorised {before} to {after} %"
    return Judgement(_promise(effect(setting, setting.chosen, "accuracy")), evidence)


def is_of_smoothing(setting: Setting) -> bool:
    """Whether the training target of every arm is known; otherwise smoothing promises nothing."""
    return all(arm.spec is not None for arm in setting.arms)


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


def said(e: Estimate, metric: str) -> str:
    """A difference in the metric's unit."""
    return points(e) if METRICS[metric].factor == 100 else f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"
