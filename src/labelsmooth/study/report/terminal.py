"""The results on a terminal: the answer, the table, the promised effects, and the code."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelsmooth.study.analysis.figures import Arm, Estimate, Setting
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import (
    PROMISES,
    Effect,
    Promise,
    answer,
    at,
    criteria,
    effect,
    is_of_smoothing,
    recommended,
    trusted,
)

MARKS = {Effect.BETTER: ("▲", "green"), Effect.WORSE: ("▼", "red"), Effect.UNDECIDED: (" ", "")}
LEGEND = "▲ better, ▼ worse than {baseline}."
AT_T = " At T: with its temperature."
RANKING_LEGEND = (
    "Sorted by test {metric}{at}.{at_t} [ , ]: 95 % interval of the difference from {baseline}, "
    "uncorrected. ▲ better, ▼ worse than {baseline}. * chosen by {rows} {metric}{at}."
)
WIDTH = 80
COLOURS = {
    Promise.HELD: "green",
    Promise.NOT_HELD: "red",
    Promise.UNDECIDED: "yellow",
    Promise.NOTHING: "dim",
    Promise.NOT_TESTED: "dim",
}
COLUMNS: dict[str, str] = {
    "accuracy": "acc.\n%",
    "nll": "NLL\n",
    "nll_scaled": "NLL\nat T",
    "ece": "ECE\n%",
    "ece_scaled": "ECE\nat T",
    "confidence_gap": "conf.\n-acc.",
    "train_gap": "train\n-test",
    "memorised": "flips\nlearnt",
    "auroc": "AUROC\n%",
    "aurc": "AURC\n%",
    "aurc_scaled": "AURC\nat T",
    "mae": "MAE\n",
    "kappa": "kappa\n",
    "ood_auroc": "OOD\nAUROC",
}
USUAL = ("accuracy", "nll", "nll_scaled", "ece", "ece_scaled", "confidence_gap", "train_gap", "memorised")


def render(results: Results) -> RenderableType:
    """At most 30 lines of 80 columns for three settings."""
    answers = [Text.assemble((f"{s.name}: ", "bold"), answer(s)) for s in results.settings]
    first = results.settings[0]
    at_t = AT_T if first.validation_rows else ""
    figures: list[RenderableType] = [
        _figures(results.settings),
        Text(f"{LEGEND.format(baseline=first.baseline)}{at_t}"),
    ]
    if any(setting.ranked for setting in results.settings):
        legend = RANKING_LEGEND.format(
            metric=METRICS[first.by].short,
            at=at(first.by),
            at_t=at_t,
            baseline=first.baseline,
            rows="validation" if first.validation_rows else "test",
        )
        figures = [*map(_ranking, results.settings), Text(legend)]
    figures += dict.fromkeys(map(criteria, results.settings))
    promises = [_promises(results.settings)] if all(map(is_of_smoothing, results.settings)) else []
    return Group(*answers, *figures, *promises, _to_paste(results))


def _ranking(setting: Setting) -> Table:
    """The ranking of all arms, with hard targets in their place."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(Text(setting.name))
    ece = setting.at_best("ece")
    shown = [metric for metric in setting.judged if metric != ece]
    for metric in shown:
        name = "acc." if metric == "accuracy" else f"{METRICS[metric].short}{at(metric)}"
        points = ", points" if METRICS[metric].unit == "%" else ""
        table.add_column(f"{name}{points}", justify="right", no_wrap=True)
    table.add_column(f"ECE{at(ece)}, %", justify="right", no_wrap=True)
    columns = [_differences(setting, metric) for metric in shown]
    for arm, *cells in zip(setting.ranking, *columns, strict=True):
        chosen = arm is setting.chosen
        label = Text(f"{arm.label}*" if chosen else arm.label, style="bold" if chosen else "")
        table.add_row(label, *cells, number(ece, arm.values[ece].mean))
    return table


def _differences(setting: Setting, metric: str) -> list[Text]:
    """The differences of a metric with their marks, and the value of hard targets."""
    said = [
        number(metric, arm.values[metric].mean)
        if arm is setting.hard
        else interval(arm.differences[metric], metric)
        for arm in setting.ranking
    ]
    width = max(map(len, said))
    return [
        Text.assemble(f"{text.rjust(width)} ", _mark(setting, arm, metric), justify="left")
        for text, arm in zip(said, setting.ranking, strict=True)
    ]


def _figures(settings: list[Setting]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("setting", min_width=13)
    arms = [(setting, arm) for setting in settings for arm in (setting.hard, setting.chosen)]
    table.add_column("eps" if all(arm.eps is not None for _, arm in arms) else "arm", no_wrap=True)
    columns = []
    for metric in _shown(settings):
        table.add_column(COLUMNS[metric], justify="right", no_wrap=True)
        columns.append(_column(arms, metric))
    for (setting, arm), *cells in zip(arms, *columns, strict=True):
        hard = arm is setting.hard
        table.add_row(Text(setting.name if hard else ""), Text(arm.label), *cells)
    return table


def _shown(settings: Sequence[Setting]) -> list[str]:
    """The judged metrics, and as many of the usual columns as fit."""
    judged = [metric for metric in settings[0].judged if metric not in USUAL]
    there = [m for m in USUAL if any(m in setting.hard.values for setting in settings)]
    return [*there[:1], *judged, *there[1 : len(USUAL) - len(judged)]]


def _column(arms: Sequence[tuple[Setting, Arm]], metric: str) -> list[Text]:
    """The cells of a metric, with aligned digits whether they are marked or not."""
    numbers = [number(metric, arm.values[metric].mean) if metric in arm.values else "-" for _, arm in arms]
    width = max(map(len, [*numbers, *(line[1:] for line in COLUMNS[metric].splitlines())]))
    return [
        # Left-justified, since rich would strip the space for a missing mark.
        Text.assemble(n.rjust(width), _mark(setting, arm, metric), justify="left")
        for n, (setting, arm) in zip(numbers, arms, strict=True)
    ]


def _mark(setting: Setting, arm: Arm, metric: str) -> tuple[str, str]:
    if metric not in arm.differences or not METRICS[metric].better:
        return MARKS[Effect.UNDECIDED]
    return MARKS[effect(setting, arm, metric)]


def number(metric: str, value: float) -> str:
    info = METRICS[metric]
    match info.unit:
        case "%":
            return f"{value * info.factor:.1f}"
        case "points":
            return f"{value * info.factor:+.0f}"
        case _:
            return f"{value * info.factor:.3f}"


def change(metric: str, value: float) -> str:
    """A difference of two values."""
    return f"{value * METRICS[metric].factor:+{'.1f' if METRICS[metric].factor == 100 else '.3f'}}"


def interval(difference: Estimate, metric: str) -> str:
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
    """The code of the loss, with a comment if training must call ``end_epoch()``."""
    return f"{arm.code}  # and criterion.end_epoch() after each epoch" if arm.by_epoch else arm.code


def probability(setting: Setting, arm: Arm) -> str:
    """The code that turns logits into probabilities."""
    return f"(logits / {arm.temperature:.2f}).softmax(-1)" if trusted(setting, arm) else "logits.softmax(-1)"


def _to_paste(results: Results) -> RenderableType:
    lines = [
        (setting.name, to_paste(arm), probability(setting, arm))
        for setting in results.settings
        if (arm := recommended(setting)).code
    ]
    where = [] if results.output is None else [f"report: {results.output / 'report.html'}"]
    report = Text("\n".join(where), no_wrap=True, overflow="ignore")
    if not lines:
        return report if where else Group()
    if sum(max(map(len, column)) for column in zip(*lines, strict=True)) + 2 > WIDTH:
        # On separate lines, so that code is not broken.
        text = "\n".join(f"{name}\n  {loss}\n  {softmax}" for name, loss, softmax in lines)
        return Group(Text(text, no_wrap=True, overflow="ignore"), report)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    for no_wrap in (False, True, True):
        table.add_column(no_wrap=no_wrap)
    for name, loss, softmax in lines:
        table.add_row(Text(name), loss, softmax)
    return Group(table, report)
