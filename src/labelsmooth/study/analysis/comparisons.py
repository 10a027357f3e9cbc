"""Correction of the judged differences for multiple comparisons."""

from collections.abc import Sequence
from dataclasses import replace

from labelsmooth.study.analysis.figures import Setting


def holm(levels: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: an adjusted p below a level is significant at that level among all of them.

    Reference:
        Holm, *A simple sequentially rejective multiple test procedure*, Scand. J. Statist. 1979.
    """
    adjusted, largest = [0.0] * len(levels), 0.0
    for place, i in enumerate(sorted(range(len(levels)), key=levels.__getitem__)):
        largest = max(largest, min(1.0, (len(levels) - place) * levels[i]))
        adjusted[i] = largest
    return adjusted


def adjust(setting: Setting) -> Setting:
    """Set the adjusted p of each judged difference, among those of all arms and judged metrics.

    The recommended arm is chosen among them, so it is corrected for all of them. A copy of another arm does
    not count as a comparison.
    """
    judged: dict[tuple[str, str], float] = {
        (arm.name, metric): arm.differences[metric].p
        for arm in setting.arms[1:]
        if arm.copy_of is None
        for metric in setting.judged
    }
    adjusted = dict(zip(judged, holm([*judged.values()]), strict=True))
    arms = [
        replace(
            arm,
            differences={
                metric: replace(d, adjusted=adjusted.get((arm.copy_of or arm.name, metric), d.p))
                for metric, d in arm.differences.items()
            },
        )
        for arm in setting.arms
    ]
    return replace(setting, arms=arms)
