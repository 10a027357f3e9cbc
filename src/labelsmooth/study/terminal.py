"""The results on a terminal: the answer, the table, the promises, what to paste."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelsmooth.study.results import METRICS, Arm, Metric, Results, Setting
from labelsmooth.study.verdict import PROMISES, Effect, Promise, answer, effect, recommended

NO_MARK = ("\N{NO-BREAK SPACE}", "")
MARKS = {Effect.BETTER: ("▲", "green"), Effect.WORSE: ("▼", "red"), Effect.UNDECIDED: NO_MARK}
COLOURS = {
    Promise.HELD: "green",
    Promise.NOT_HELD: "red",
    Promise.UNDECIDED: "yellow",
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
    """Under 30 lines of 80 columns for three settings."""
    answers = [Text.assemble((f"{s.name}: ", "bold"), answer(s)) for s in results.settings]
    return Group(*answers, _figures(results.settings), _promises(results.settings), _to_paste(results))


def _figures(settings: list[Setting]) -> Table:
    table = Table(
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 0, 0, 1),
        caption="▲ better, ▼ worse than hard targets (95 %). At T: with its temperature.",
        caption_justify="left",
    )
    table.add_column("setting", min_width=13)
    table.add_column("eps", no_wrap=True)
    shown: list[Metric] = [m for m in COLUMNS if any(m in s.hard.values for s in settings)]
    for metric in shown:
        table.add_column(COLUMNS[metric], justify="right", no_wrap=True)
    for setting in settings:
        for arm in (setting.hard, setting.chosen):
            hard = arm is setting.hard
            table.add_row(
                Text(setting.name if hard else ""),  # never as markup
                "hard" if hard else f"{arm.eps:g}",
                *(_cell(arm, metric) for metric in shown),
            )
    return table


def _cell(arm: Arm, metric: Metric) -> Text:
    if metric not in arm.values:
        return Text.assemble("-", NO_MARK)
    mark, colour = MARKS[effect(arm, metric)] if arm.differences and METRICS[metric].better else NO_MARK
    return Text.assemble(number(metric, arm.values[metric].mean), (mark, colour))


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


def _promises(settings: list[Setting]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 1), header_style="bold")
    table.add_column("promised effect")
    for setting in settings:
        table.add_column(Text(setting.name))
    for name, judge in PROMISES.items():
        promises = [judge(setting).promise for setting in settings]
        table.add_row(name, *(Text(p, style=COLOURS[p]) for p in promises))
    return table


def _to_paste(results: Results) -> RenderableType:
    table = Table(box=None, padding=(0, 0, 0, 1), show_header=False)
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    for setting in results.settings:
        arm = recommended(setting)
        table.add_row(
            Text(setting.name),
            f"CrossEntropyLoss(label_smoothing={arm.eps:g})",
            f"(logits / {arm.temperature:.2f}).softmax(-1)",
        )
    report = Text(f"report: {results.folder / 'report.html'}", no_wrap=True, overflow="ignore")
    return Group(table, report)
