"""Reliability diagrams of an evaluation, before and after temperature."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from labelsmooth.calibration import ReliabilityDisplay
from labelsmooth.study.evaluation.figures import Evaluation, printable

SIDE = 4.2  # inches
TYPES = (".svg", ".png", ".pdf")
STYLE: dict[str, object] = {"svg.fonttype": "none", "text.parse_math": False}  # a name may hold a dollar sign


def check_picture(path: str | Path) -> None:
    if Path(path).suffix.lower() not in TYPES:
        raise ValueError(f"picture must end in {', '.join(TYPES[:-1])} or {TYPES[-1]}, got {str(path)!r}")


def save_picture(path: str | Path, evaluations: Sequence[Evaluation]) -> None:
    """Draw each evaluation in one row, and save the figure in the format of the extension."""
    check_picture(path)
    with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        figure = Figure(figsize=(2 * SIDE, (SIDE + 0.4) * len(evaluations)), layout="constrained")
        axes = figure.subplots(len(evaluations), 2, squeeze=False)
        for (left, right), e in zip(axes, evaluations, strict=True):
            ReliabilityDisplay(e.raw.reliability).plot(left)
            left.set_title(f"{_short(e.name)}, as given", fontsize=9)
            if e.scaled is None:
                right.set_axis_off()
                continue
            ReliabilityDisplay(e.scaled.reliability).plot(right)
            right.set_title(f"at T = {e.temperature:.2f}", fontsize=9)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if str(path).lower().endswith(".svg") else None)


def _short(name: str, most: int = 48) -> str:
    """The end of a long path."""
    name = printable(name)
    return name if len(name) <= most else f"…{name[1 - most :]}"
