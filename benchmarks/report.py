"""The results on a terminal."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from benchmarks.cases import Case
from benchmarks.results import Judged, Measurement, by_label, peak_ratio, quantiles, time_ratio

VERDICTS = {True: Text("met", "green"), False: Text("missed", "bold red"), None: Text("not judged", "dim")}


def case_table(case: Case, measurements: Sequence[Measurement]) -> Table:
    """Time and memory of each entrant, and the ratios to the baseline."""
    table = _table(case.name, "", "ms", "20 to 80 %", "ratio", "peak", "beyond gradients", "peak ratio")
    found = by_label(measurements)
    for m in measurements:
        if m.failure is not None:
            continue
        base = found.get(m.entrant.baseline)
        low, middle, high = quantiles(m.times)
        table.add_row(
            m.entrant.label,
            _number(middle),
            f"{_number(low)} to {_number(high)}",
            _ratio(base and time_ratio(m.times, base.times)),
            _bytes(m.peak),
            _bytes(m.peak - m.gradients),
            _ratio(base and peak_ratio(m.peak, base.peak)),
        )
    return table


def goal_table(judged: Sequence[Judged]) -> Table:
    table = _table("the goals", "case", "of", "", "to", "goal", "figure", "")
    for j in judged:
        goal = f"≤ {j.goal.most:.3g}"
        against = j.goal.against or "its gradients"
        table.add_row(
            j.case, j.goal.entrant, j.goal.quantity, against, goal, _ratio(j.figure), VERDICTS[j.met]
        )
    return table


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _ratio(value: float | None) -> str:
    return "-" if value is None else _number(value)


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{_number(value)} {unit}"
        value /= 1024
    return f"{_number(value)} GiB"
