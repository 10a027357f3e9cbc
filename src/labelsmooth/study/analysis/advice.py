"""What to do after the answer. Pure functions of the results."""

import math

from labelsmooth.study.analysis.figures import Setting
from labelsmooth.study.analysis.intervals import LEVEL
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.verdict import comparisons, suspicion, trusted, verdict

ENOUGH_SEEDS = 5
UNSURE = 0.2  # confidence this far below accuracy is no over-confidence to cure, but too little training
MANY = 100  # seeds, or times the test rows, that nobody will have
POWER = 0.8  # how likely an effect that is there is found


def next_steps(setting: Setting) -> list[str]:
    """In the order in which they are worth doing."""
    steps = []
    word, chosen = verdict(setting), setting.chosen
    if suspicion(setting):
        steps.append("Look at validation rows that every run gets wrong: their labels may be.")
    gap = setting.hard.values["confidence_gap"]
    if gap.high < -UNSURE:
        steps.append(
            f"Train longer first: hard targets alone are {-gap.mean * 100:.0f} points less sure than right, "
            "as models are that stopped early, or whose labels are wrong."
        )
    if setting.seeds < ENOUGH_SEEDS:
        steps.append(
            f"Train with more seeds: {setting.seeds} say little, since how much runs vary is hardly known; "
            f"{ENOUGH_SEEDS} or more narrow every interval."
        )
    elif word == "undecided":
        steps.append(_to_decide(setting))
    tried = [arm.eps for arm in setting.arms[1:] if arm.eps is not None]
    if word == "helps" and tried and chosen.eps == max(tried) and max(tried) < 1:
        steps.append(
            f"Try stronger smoothing: eps = {max(tried):g}, the largest tried, has the least validation NLL."
        )
    if word in ("harms", "same", "mixed"):
        steps.append(
            "Keep the loss, and use the temperature." if trusted(setting, setting.hard) else "Keep the loss."
        )
    return steps


def _to_decide(setting: Setting) -> str:
    """How many seeds or test rows would most likely make the largest effect sure, if it is as large as it
    looks: its variance is in parts that either makes smaller."""
    from scipy.stats import norm  # slow to import, and not needed to read results back

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
            "Neither more seeds nor more test rows will decide it within reason: whatever the difference is, "
            "it is small."
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
    return (
        f"If the difference is as large as it looks, {' or '.join(ways)} would most likely decide it{only}."
    )
