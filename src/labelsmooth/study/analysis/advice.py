"""What to do after the answer. Pure functions of the results."""

from labelsmooth.study.analysis.figures import JUDGED, Setting
from labelsmooth.study.analysis.verdict import suspicion, trusted, verdict

ENOUGH_SEEDS = 5
UNSURE = 0.2  # confidence this far below accuracy is no over-confidence to cure, but too little training
MANY = 100  # seeds that nobody will train


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
    """How many seeds would make the largest effect sure, if it is as large as it looks."""
    needed = []
    for metric, smallest in JUDGED.items():
        d = setting.chosen.differences[metric]
        half = (d.high - d.low) / 2
        if abs(d.mean) >= smallest and half:
            needed.append(setting.seeds * (half / abs(d.mean)) ** 2)
    if not needed or min(needed) > MANY:
        return "More seeds will hardly decide it: whatever the difference is, it is small."
    return (
        f"If the difference is as large as it looks, some {max(round(min(needed) * 1.5), setting.seeds + 1)} "
        "seeds would make it sure; where more seeds do not narrow the interval, more test rows do."
    )
