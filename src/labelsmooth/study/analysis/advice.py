"""Advice on the next steps, as pure functions of the results."""

import math

from labelsmooth.study.analysis.figures import Setting
from labelsmooth.study.analysis.intervals import LEVEL
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.verdict import comparisons, suspicion, trusted, verdict

ENOUGH_SEEDS = 5
UNSURE = 0.2  # confidence this far below accuracy suggests too little training
MANY = 100  # an unrealistic number of seeds, or factor of test rows
POWER = 0.8  # the probability of detecting a true effect


def next_steps(setting: Setting) -> list[str]:
    """The next steps, the most useful first."""
    steps = []
    word, chosen = verdict(setting), setting.chosen
    if suspicion(setting):
        steps.append("Check the labels of the validation rows that every run gets wrong.")
    gap = setting.hard.values["confidence_gap"]
    if gap.high < -UNSURE:
        steps.append(
            f"Train longer first: with hard targets, mean confidence is {-gap.mean * 100:.0f} points below "
            "accuracy, as after a short training or with wrong labels."
        )
    if setting.seeds < ENOUGH_SEEDS:
        steps.append(
            f"Train with more seeds: {setting.seeds} give a poor estimate of how much runs vary; "
            f"{ENOUGH_SEEDS} or more narrow every interval."
        )
    elif word == "undecided":
        steps.append(_to_decide(setting))
    tried = [arm.eps for arm in setting.arms[1:] if arm.eps is not None]
    if word == "helps" and tried and chosen.eps == max(tried) and max(tried) < 1:
        steps.append(
            f"Try stronger smoothing: eps = {max(tried):g}, the largest tried, has the lowest validation NLL."
        )
    if word in ("harms", "same", "mixed"):
        steps.append(
            "Keep the loss, and use the temperature." if trusted(setting, setting.hard) else "Keep the loss."
        )
    return steps


def _to_decide(setting: Setting) -> str:
    """The number of seeds or test rows that would probably make the largest effect significant, if the true
    effect is as large as the estimate. Either reduces a part of the variance."""
    from scipy.stats import norm  # slow to import, and not needed to read results

    far = float(norm.ppf(1 - LEVEL / 2 / comparisons(setting)) + norm.ppf(POWER))
    by_seeds, by_rows = [], []
    for metric in setting.judged:
        d = setting.chosen.differences[metric]
        if abs(d.mean) < METRICS[metric].smallest:
            continue
        seeds, rows, both = d.parts
        allowed = (d.mean / far) ** 2
        if allowed > rows:
            by_seeds.append(math.ceil(setting.seeds * (seeds + both) / (allowed - rows)))
        if allowed > seeds:
            by_rows.append(math.ceil(setting.test_rows * (rows + both) / (allowed - seeds)))
    ways = [
        f"{needed:,} {what} instead of {now:,}"
        for needed, now, most, what in (
            (min(by_seeds, default=0), setting.seeds, MANY, "seeds"),
            (min(by_rows, default=0), setting.test_rows, MANY * setting.test_rows, "test rows"),
        )
        if now < needed <= most
    ]
    if not ways:
        return (
            "No realistic number of seeds or test rows would decide it: if there is a difference, it is "
            "small."
        )
    only = (
        ""
        if len(ways) == 2
        else (
            "; more test rows alone would not"
            if by_seeds and "seeds" in ways[0]
            else "; more seeds alone would not"
        )
    )
    return f"If the difference is as large as estimated, {' or '.join(ways)} would probably decide it{only}."
