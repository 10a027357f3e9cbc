"""The risk-coverage curve of selective prediction."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.report.pictures import SHADES, STYLE, Picture, arm_name, panels, svg

STEPS = 100  # steps of coverage
TOLD = 10


def risk_coverage(results: Results, analyses: Mapping[str, Analysis]) -> Picture | None:
    """The curves of hard targets and the chosen arm, before and after temperature; the mean over seeds."""
    coverage = torch.linspace(1 / STEPS, 1, STEPS, dtype=torch.float64)
    rows: list[list[str]] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.8), layout="constrained")
        axes = panels(figure, len(results.settings))
        for ax, setting in zip(axes, results.settings, strict=True):
            for arm, color in ((setting.hard, SHADES[0]), (setting.chosen, SHADES[5])):
                runs = analyses[setting.name].runs_of(arm)
                for curves, style, when in (
                    ([run.risk for run in runs], (0, (4, 2)), "before temperature"),
                    ([run.risk_scaled for run in runs], "-", "after temperature"),
                ):
                    known = [curve for curve in curves if curve is not None]
                    if not known:
                        continue
                    risk = _mean(known, coverage) * 100
                    ax.plot(
                        (coverage * 100).tolist(),
                        risk.tolist(),
                        color=color,
                        linestyle=style,
                        linewidth=1.2,
                        label=f"{arm_name(arm)}, {when}",
                    )
                    rows += [
                        [setting.name, arm_name(arm), when, f"{coverage[i] * 100:.0f}", f"{risk[i]:.2f}"]
                        for i in range(STEPS // TOLD - 1, STEPS, STEPS // TOLD)
                    ]
            ax.set(title=setting.name, xlabel="coverage, %", xlim=(0, 100))
            ax.set_ylim(bottom=0)
        axes[0].set_ylabel("risk: errors among them, %")
        axes[0].legend(fontsize=7)
    caption = (
        "Risk, the share of errors among the most confident rows, against coverage, the share of rows that "
        "are answered; the mean over seeds. Lower is better. With two classes a temperature has no effect."
    )
    return Picture(
        svg(figure, caption), caption, ["setting", "arm", "when", "coverage, %", "errors, %"], rows
    )


def _mean(curves: Sequence[tuple[Tensor, Tensor]], coverage: Tensor) -> Tensor:
    """The risk at each coverage, for the smallest number of rows that reaches it."""
    return torch.stack(
        [
            risk[torch.searchsorted(reached, coverage - 1e-9).clamp_max(len(risk) - 1)]
            for reached, risk in curves
        ]
    ).mean(0)
