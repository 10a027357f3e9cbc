"""The common style and labels of the charts, and their embedding in a page."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from labelsmooth.study.analysis.figures import FEW, Arm, Setting
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import Effect
from labelsmooth.study.trials.files import Job, Outcome

Outcomes = Mapping[Job, Outcome]

STYLE: dict[RcKeyType, object] = {
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # a name may hold a dollar sign
}
SHADES = ["#1f2933", "#9ecae1", "#4292c6", "#08519c", "#54278f", "#d94801", "#238b45", "#c51b8a"]
COLOURS = {Effect.BETTER: "#1a7f37", Effect.WORSE: "#c0362c", Effect.UNDECIDED: "#7b8794"}


@dataclass(frozen=True)
class Picture:
    """An inline SVG, and its numbers."""

    svg: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def arm_name(arm: Arm) -> str:
    if arm.eps is None:
        return arm.label
    return f"eps {arm.label}" if arm.eps else "hard targets"


def featured(results: Results) -> list[int]:
    """The indices of the arms that are drawn: all if they are few; else hard targets, the arm that
    validation chose, and the arms of the best mean rank."""
    count = len(results.settings[0].arms)
    if count <= FEW:
        return list(range(count))
    places = [[setting.ranking.index(arm) for arm in setting.arms] for setting in results.settings]
    best = sorted(range(1, count), key=lambda j: sum(place[j] for place in places))
    chosen = {setting.arms.index(setting.chosen) for setting in results.settings}
    shown = list(dict.fromkeys([0, *sorted(chosen), *best]))
    return sorted(shown[: max(FEW, 1 + len(chosen))])


def class_name(setting: Setting, k: int) -> str:
    return setting.class_names[k] if setting.class_names else f"class {k}"


def strength(arm: Arm) -> str:
    return arm.label if arm.eps != 0 else "0"


def unit(metric: str) -> str:
    """The unit of a difference, after its label."""
    said = "points" if METRICS[metric].unit == "%" else METRICS[metric].unit
    return f", {said}" if said else ""


def panels(figure: Figure, count: int) -> list[Axes]:
    return figure.subplots(1, count, squeeze=False)[0].tolist()


def shade(k: int) -> str:
    return SHADES[k % len(SHADES)]


def some(length: int, count: int = 10) -> list[int]:
    """About ``count`` epochs, including the first and the last."""
    if not length:
        return []
    return sorted({round(i * (length - 1) / (count - 1)) for i in range(count)})


def svg(figure: Figure, label: str) -> str:
    """An SVG element that takes its size and font from the page, with unique identifiers."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    head, body = text[text.index("<svg") :].split(">", 1)
    view_box = head.split('viewBox="')[1].split('"')[0]
    # Groups are numbered in each chart, so several have a figure_1; nothing refers to them.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    return f'<svg viewBox="{view_box}" role="img" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
