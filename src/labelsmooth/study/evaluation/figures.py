"""The figures of an evaluation, and their text."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from labelsmooth.calibration._metrics import Reliability
from labelsmooth.study.analysis.figures import Estimate

MOST = 20  # the maximum number of classes that are shown
WIDTH = 80


@dataclass(frozen=True)
class Scores:
    """The metrics at one temperature; the mean over several runs."""

    nll: Estimate
    brier: Estimate  # summed over classes, in [0, 2]
    ece: Estimate
    noise_floor: float  # the mean ECE of a calibrated model
    chance: float  # the 95 % quantile of the ECE of a calibrated model
    confidence_gap: Estimate  # mean confidence minus accuracy
    reliability: Reliability = field(compare=False, repr=False)  # of all runs together

    @property
    def told(self) -> bool:
        """Whether the ECE is significantly above its noise floor."""
        return self.ece.mean > self.chance


@dataclass(frozen=True)
class ClassScores:
    """The figures of one class; None without rows."""

    name: str
    rows: int  # rows of the class
    recall: float | None  # the share of its rows that is predicted as the class
    precision: float | None  # the share of its predictions that is correct
    confidence: float | None  # the mean confidence of its predictions, equal to the precision if calibrated


@dataclass(frozen=True)
class Evaluation:
    """The figures of predictions; ``print`` shows them in words, ``as_json()`` has every number."""

    name: str
    files: list[str]
    test_rows: int
    validation_rows: int
    num_classes: int
    accuracy: Estimate
    impossible: float  # rows per run with probability 0 for the label, up to rounding
    raw: Scores
    scaled: Scores | None  # at the temperature
    temperature: float | None  # the geometric mean over several runs
    fitted_on: Literal["validation rows", "halves of the test rows"] | None
    nll_change: Estimate | None  # the change by the temperature, paired by row
    classes: list[ClassScores]

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None)
        console.print(render(self), crop=False)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().rstrip()

    def as_json(self) -> dict[str, Any]:
        """Every number, with None for undefined ones."""
        scores = {"raw": self.raw, "scaled": self.scaled}
        said = {key: value for key, value in vars(self).items() if key not in scores}
        return {
            **_plain(said),
            **{key: None if s is None else {**_plain(vars(s)), "told": s.told} for key, s in scores.items()},
        }


def render(evaluation: Evaluation) -> RenderableType:
    """The interpretation, the figures, and the classes."""
    parts: list[RenderableType] = [
        Text(f"{printable(evaluation.name)}: {extent(evaluation)}", style="bold"),
        Text(" ".join(said(evaluation))),
        "",
        _figures(evaluation),
        "",
        _classes(evaluation),
    ]
    return Group(*parts, Text(legend(evaluation)))


def printable(name: str) -> str:
    """Text without control characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def extent(e: Evaluation) -> str:
    runs = f" {len(e.files)} runs." if len(e.files) > 1 else ""
    validated = f"{e.validation_rows} validation rows" if e.validation_rows else "no validation rows"
    return f"{e.test_rows} test rows of {e.num_classes} classes, {validated}.{runs}"


def said(e: Evaluation) -> list[str]:
    parts = [f"Accuracy {percent(e.accuracy)}.", confidence(e.raw), calibration(e.raw), impossible(e)]
    return [part for part in (*parts, temperature(e)) if part]


def confidence(scores: Scores) -> str:
    """Whether the model is over- or under-confident."""
    gap = scores.confidence_gap
    if gap.low <= 0 <= gap.high:
        return f"Mean confidence agrees with accuracy within chance ({points(gap)})."
    low, high = sorted((abs(gap.low), abs(gap.high)))
    size = f"{abs(gap.mean) * 100:.1f} points [{low * 100:.1f}, {high * 100:.1f}]"
    return f"It is {'over' if gap.mean > 0 else 'under'}-confident by {size}."


def calibration(scores: Scores) -> str:
    ece, floor, chance = (f"{x * 100:.1f} %" for x in (scores.ece.mean, scores.noise_floor, scores.chance))
    if scores.told:
        return (
            f"Its ECE, {ece}, is more than chance explains: with so many rows a calibrated model has {floor} "
            f"on average (the noise floor), and rarely more than {chance}."
        )
    return (
        f"Its ECE, {ece}, is not significantly above the noise floor: with so many rows a calibrated model "
        f"has {floor} on average, and often up to {chance}."
    )


def impossible(e: Evaluation) -> str:
    """A warning if a few rows dominate the NLL."""
    if not e.impossible:
        return ""
    each = " per run" if len(e.files) > 1 else ""
    return (
        f"{e.impossible:.3g} rows{each} have probability 0 for their class, replaced by about 1e-38: they "
        "dominate the NLL and the temperature."
    )


def temperature(e: Evaluation) -> str:
    """The effect of a temperature, and the rows that it was fitted on."""
    if e.temperature is None or e.scaled is None or e.nll_change is None:
        return "No temperature: there are no validation rows, and the test rows are too few to fit one."
    where = f"the {e.fitted_on}"
    if e.fitted_on != "validation rows":
        where = "each half of the test rows for the other half, since there are no validation rows"
    change = f"NLL {signed(e.nll_change)}, ECE {e.raw.ece.mean * 100:.1f} to {e.scaled.ece.mean * 100:.1f} %"
    worse = e.scaled.told and e.scaled.ece.mean > e.raw.ece.mean
    if e.nll_change.high < 0 and not worse:
        return f"Divide the logits by {e.temperature:.2f}: {change} (fitted on {where})."
    if e.nll_change.low > 0:
        word = "It harms"
    else:
        word = "It improves NLL but not ECE" if e.nll_change.high < 0 else "It does not clearly help"
    return f"A temperature of {e.temperature:.2f} was fitted on {where}. {word}: {change}."


def legend(e: Evaluation) -> str:
    over = "test rows and runs" if len(e.files) > 1 else "test rows"
    return (
        f"[ , ]: 95 % interval over {over}. Brier: summed over classes, 0 to 2. Confidence of a class: "
        "the mean over its predictions, equal to the precision if calibrated."
    )


def percent(e: Estimate) -> str:
    return f"{e.mean * 100:.1f} % [{e.low * 100:.1f}, {e.high * 100:.1f}]"


def points(e: Estimate) -> str:
    return f"{e.mean * 100:+.1f} points [{e.low * 100:+.1f}, {e.high * 100:+.1f}]"


def signed(e: Estimate) -> str:
    return f"{e.mean:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def _figures(e: Evaluation) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("")
    columns = [("as given", e.raw)]
    if e.scaled is not None:
        columns.append((f"at T = {e.temperature:.2f}", e.scaled))
    for title, _ in columns:
        table.add_column(title, no_wrap=True)
    scores = [scores for _, scores in columns]
    table.add_row("NLL", *(_plainly(s.nll, 1, 3) for s in scores))
    table.add_row("Brier", *(_plainly(s.brier, 1, 3) for s in scores))
    table.add_row("ECE, %", *(_plainly(s.ece, 100, 1) for s in scores))
    table.add_row("  noise floor", *(f"{s.noise_floor * 100:.1f}" for s in scores))
    gaps = (s.confidence_gap for s in scores)
    table.add_row("confidence - accuracy", *(points(gap).replace(" points", "") for gap in gaps))
    return table


def _plainly(e: Estimate, factor: float, digits: int) -> Text:
    mean, low, high = (f"{x * factor:.{digits}f}" for x in (e.mean, e.low, e.high))
    return Text(f"{mean} [{low}, {high}]")


def _classes(e: Evaluation) -> Table:
    shown: Sequence[ClassScores] = e.classes
    title = "class"
    if len(shown) > MOST:
        shown = sorted(shown, key=lambda c: math.inf if c.recall is None else c.recall)[:MOST]
        title = f"class ({MOST} of {len(e.classes)}, by recall)"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(title, overflow="fold")
    for column in ("rows", "recall\n%", "precision\n%", "confidence\n%"):
        table.add_column(column, justify="right", no_wrap=True)
    for c in shown:
        shares = (c.recall, c.precision, c.confidence)
        table.add_row(
            Text(printable(c.name)), str(c.rows), *("-" if x is None else f"{x * 100:.1f}" for x in shares)
        )
    return table


def _plain(value: Any) -> Any:
    """A value for JSON, with None for NaN."""
    match value:
        case Estimate() | ClassScores() | Reliability():
            return _plain(vars(value))
        case dict():
            return {key: _plain(x) for key, x in value.items()}
        case list():
            return [_plain(x) for x in value]
        case float():
            return value if math.isfinite(value) else None
    return _plain(value.tolist()) if hasattr(value, "tolist") else value
