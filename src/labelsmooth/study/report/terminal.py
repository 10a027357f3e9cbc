"""The results on a terminal: the answer, the table, the promises, what to paste."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelsmooth.study.analysis.figures import JUDGED, METRICS, Arm, Estimate, Metric, Setting
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import (
    PROMISES,
    Effect,
    Promise,
    answer,
    criteria,
    effect,
    recommended,
    trusted,
)

MARKS = {Effect.BETTER: ("▲", "green"), Effect.WORSE: ("▼", "red"), Effect.UNDECIDED: (" ", "")}
LEGEND = "▲ better, ▼ worse than hard targets. At T: with its temperature."
RANKING_LEGEND = (
    "Sorted by test NLL with its temperature (at T). [ , ]: 95 % of the difference from hard targets, each "
    "by itself. ▲ better, ▼ worse than hard targets. * chosen by validation NLL at T."
)
WIDTH = 80
COLOURS = {
    Promise.HELD: "green",
    Promise.NOT_HELD: "red",
    Promise.UNDECIDED: "yellow",
    Promise.NOTHING: "dim",
    Promise.NOT_TESTED: "dim",
}
COLUMNS: dict[Metric, str] = {
    "accuracy": "acc.\n%",
    "nll": "NLL\n",
    "nll_scaled": "NLL\nat T",
    "ece": "ECE\n%",
    "ece_scaled": "ECE\nat T",
    "confidence_gap": "conf.\n-acc.",
    "train_gap": "train\n-test",
    "memorised": "flips\nlearnt",
}


def render(results: Results) -> RenderableType:
    """At most 30 lines of 80 columns for three settings."""
    answers = [Text.assemble((f"{s.name}: ", "bold"), answer(s)) for s in results.settings]
    figures: list[RenderableType] = [_figures(results.settings), LEGEND]
    if any(setting.ranked for setting in results.settings):
        figures = [*map(_ranking, results.settings), RANKING_LEGEND]
    figures += dict.fromkeys(map(criteria, results.settings))
    return Group(*answers, *figures, _promises(results.settings), _to_paste(results))


def _ranking(setting: Setting) -> Table:
    """Every arm, hard targets in their place among them."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(Text(setting.name))
    for title in ("acc., points", "NLL at T", "ECE at T, %"):
        table.add_column(title, justify="right", no_wrap=True)
    columns = [_differences(setting, metric) for metric in JUDGED]
    for arm, *cells in zip(setting.ranking, *columns, strict=True):
        chosen = arm is setting.chosen
        label = Text(f"{arm.label}*" if chosen else arm.label, style="bold" if chosen else "")
        table.add_row(label, *cells, number("ece_scaled", arm.values["ece_scaled"].mean))
    return table


def _differences(setting: Setting, metric: Metric) -> list[Text]:
    """A metric's differences with their marks, and the value of hard targets, from which they differ."""
    said = [
        number(metric, arm.values[metric].mean)
        if arm is setting.hard
        else interval(arm.differences[metric], metric)
        for arm in setting.ranking
    ]
    width = max(map(len, said))
    return [
        Text.assemble(f"{text.rjust(width)} ", _mark(arm, metric), justify="left")
        for text, arm in zip(said, setting.ranking, strict=True)
    ]


def _figures(settings: list[Setting]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("setting", min_width=13)
    table.add_column("eps", no_wrap=True)
    arms = [(setting, arm) for setting in settings for arm in (setting.hard, setting.chosen)]
    columns = []
    for metric, title in COLUMNS.items():
        if any(metric in setting.hard.values for setting in settings):
            table.add_column(title, justify="right", no_wrap=True)
            columns.append(_column([arm for _, arm in arms], metric))
    for (setting, arm), *cells in zip(arms, *columns, strict=True):
        hard = arm is setting.hard
        table.add_row(Text(setting.name if hard else ""), arm.label, *cells)
    return table


def _column(arms: Sequence[Arm], metric: Metric) -> list[Text]:
    """A metric's cells, with the digits below one another whether they are marked or not."""
    numbers = [number(metric, arm.values[metric].mean) if metric in arm.values else "-" for arm in arms]
    width = max(map(len, [*numbers, *(line[1:] for line in COLUMNS[metric].splitlines())]))
    return [
        # Right-justified, rich would strip the blank that stands for no mark.
        Text.assemble(n.rjust(width), _mark(arm, metric), justify="left")
        for n, arm in zip(numbers, arms, strict=True)
    ]


def _mark(arm: Arm, metric: Metric) -> tuple[str, str]:
    if metric not in arm.differences or not METRICS[metric].better:
        return MARKS[Effect.UNDECIDED]
    return MARKS[effect(arm, metric)]


def number(metric: Metric, value: float) -> str:
    info = METRICS[metric]
    match info.unit:
        case "%":
            return f"{value * info.factor:.1f}"
        case "points":
            return f"{value * info.factor:+.0f}"
        case _:
            return f"{value * info.factor:.3f}"


def change(metric: Metric, value: float) -> str:
    """A difference of two such values."""
    return f"{value * METRICS[metric].factor:+{'.3f' if METRICS[metric].unit == 'nats' else '.1f'}}"


def interval(difference: Estimate, metric: Metric) -> str:
    """A difference with its interval."""
    mean, low, high = (change(metric, v) for v in (difference.mean, difference.low, difference.high))
    return f"{mean} [{low}, {high}]"


def _promises(settings: list[Setting]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("promised effect")
    for setting in settings:
        table.add_column(Text(setting.name))
    for name, judge in PROMISES.items():
        promises = [judge(setting).promise for setting in settings]
        table.add_row(name, *(Text(p, style=COLOURS[p]) for p in promises))
    return table


def to_paste(arm: Arm) -> str:
    """What builds the loss, and what else training has to call."""
    return f"{arm.code}  # and criterion.end_epoch() after each epoch" if arm.by_epoch else arm.code


def probability(setting: Setting, arm: Arm) -> str:
    """What makes probabilities of logits."""
    return f"(logits / {arm.temperature:.2f}).softmax(-1)" if trusted(setting, arm) else "logits.softmax(-1)"


def _to_paste(results: Results) -> RenderableType:
    arms = [recommended(setting) for setting in results.settings]
    lines = [
        (s.name, to_paste(arm), probability(s, arm)) for s, arm in zip(results.settings, arms, strict=True)
    ]
    report = Text(f"report: {results.folder / 'report.html'}", no_wrap=True, overflow="ignore")
    if sum(max(map(len, column)) for column in zip(*lines, strict=True)) + 2 > WIDTH:
        # Below one another, since what is pasted is not to be broken.
        text = "\n".join(f"{name}\n  {loss}\n  {softmax}" for name, loss, softmax in lines)
        return Group(Text(text, no_wrap=True, overflow="ignore"), report)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for no_wrap in (False, True, True):
        table.add_column(no_wrap=no_wrap)
    for name, loss, softmax in lines:
        table.add_row(Text(name), loss, softmax)
    return Group(table, report)
