"""The charts of the report: each is computed, drawn, and accompanied by a table of its numbers."""

from collections.abc import Mapping, Sequence
from statistics import median

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labelsmooth.calibration import ReliabilityDisplay
from labelsmooth.calibration._metrics import Reliability
from labelsmooth.study.analysis.figures import Arm, Difference, Setting
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.analysis.verdict import effect
from labelsmooth.study.report.pictures import (
    COLOURS,
    SHADES,
    STYLE,
    Picture,
    arm_name,
    featured,
    panels,
    shade,
    some,
    strength,
    svg,
    unit,
)


def reliability_picture(setting: Setting, arm: Arm, analysis: Analysis, *, scaled: bool) -> Picture:
    """Reliability diagrams of the test rows of all seeds, each seed with its own temperature."""
    runs = analysis.runs_of(arm)
    every = [run.reliability_scaled if scaled else run.reliability for run in runs]
    bins = _pooled([one for one in every if one is not None])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.4))
        ReliabilityDisplay(bins).plot(figure.add_axes((0.11, 0.09, 0.87, 0.9)))
    ece = "ece_scaled" if scaled else "ece"
    floor = arm.floors[ece]
    accuracy = arm.values["accuracy"].mean
    confidence = float((bins.confidence.nan_to_num() * bins.count).sum() / bins.count.sum())
    caption = (
        f"{setting.name}, {arm_name(arm)}, {'after' if scaled else 'before'} temperature: accuracy "
        f"{accuracy * 100:.1f} %, mean confidence {confidence * 100:.1f} %, "
        f"ECE {arm.values[ece].mean * 100:.1f} % (noise floor {floor * 100:.1f} %)"
    )
    edges = torch.linspace(0, 1, len(bins.count) + 1)
    rows = [
        [
            f"{edges[b]:.2f} to {edges[b + 1]:.2f}",
            f"{int(n)}",
            f"{bins.confidence[b]:.3f}",
            f"{bins.accuracy[b]:.3f}",
        ]
        for b, n in enumerate(bins.count)
        if n
    ]
    return Picture(
        svg(figure, caption),
        caption,
        ["confidence from, to", "test rows", "mean confidence", "accuracy"],
        rows,
    )


def _pooled(several: Sequence[Reliability]) -> Reliability:
    """The sum of the bins of all seeds."""
    count = torch.stack([bins.count for bins in several])
    confidence = torch.stack([bins.confidence.nan_to_num() for bins in several])
    accuracy = torch.stack([bins.accuracy.nan_to_num() for bins in several])
    total = count.sum(0)
    return Reliability(total, (count * confidence).sum(0) / total, (count * accuracy).sum(0) / total)


def against_eps(results: Results, metric: str) -> Picture | None:
    """A metric of every plain smoothing, with the interval of its difference from hard targets."""
    info = METRICS[metric]
    plain = {s.name: _by_eps(s) for s in results.settings}
    if any(len(plain[s.name]) < min(len(s.arms), 3) for s in results.settings):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.5), layout="constrained")
        for ax, setting in zip(panels(figure, len(results.settings)), results.settings, strict=True):
            hard = setting.hard.values[metric].mean * info.factor
            positions = range(len(plain[setting.name]))
            means = [arm.values[metric].mean * info.factor for arm in plain[setting.name]]
            ax.axhline(hard, color=SHADES[0], linewidth=0.7, linestyle=(0, (4, 3)))
            ax.plot(positions, means, color=SHADES[2], linewidth=1)
            for x, arm in enumerate(plain[setting.name]):
                d = arm.differences.get(metric)
                if d:
                    ax.plot(
                        [x, x],
                        [hard + d.low * info.factor, hard + d.high * info.factor],
                        color=SHADES[2],
                        linewidth=2,
                        alpha=0.6,
                    )
                chosen = arm is setting.chosen
                ax.plot(
                    x,
                    means[x],
                    "o",
                    color=SHADES[0] if x == 0 else SHADES[2],
                    markersize=7 if chosen else 4.5,
                )
            ax.set_xticks(positions, [strength(arm) for arm in plain[setting.name]])
            ax.set(title=setting.name, xlabel="eps")
        figure.axes[0].set_ylabel(f"{info.label}, {info.unit}" if info.unit else info.label)
    rows = [
        [
            setting.name,
            strength(arm),
            f"{arm.values[metric].mean * info.factor:.3f}",
            *(f"{v * info.factor:+.3f}" for v in (d.mean, d.low, d.high)),
        ]
        if (d := arm.differences.get(metric))
        else [setting.name, strength(arm), f"{arm.values[metric].mean * info.factor:.3f}", "", "", ""]
        for setting in results.settings
        for arm in plain[setting.name]
    ]
    caption = (
        f"{info.label[0].upper()}{info.label[1:]} on the test rows. Bars: 95 % interval of the paired "
        f"difference from {results.settings[0].baseline} (dashed). The larger dot is the eps that was chosen."
    )
    columns = [
        "setting",
        "eps",
        f"{info.label}, {info.unit}",
        f"less {results.settings[0].baseline}",
        "95 % from",
        "to",
    ]
    return Picture(svg(figure, caption), caption, columns, rows)


def against_hard(results: Results) -> Picture | None:
    """The differences of every arm from hard targets with their intervals, best first, for a ranking."""
    if not any(setting.ranked for setting in results.settings):
        return None
    rows: list[list[str]] = []
    judged = results.settings[0].judged
    with mpl.rc_context(STYLE):
        heights = [len(setting.arms) + 2 for setting in results.settings]
        figure = Figure(figsize=(9, 0.17 * sum(heights) + 0.4), layout="constrained")
        axes = figure.subplots(len(heights), len(judged), squeeze=False, height_ratios=heights)
        for setting, row in zip(results.settings, axes, strict=True):
            arms = [arm for arm in setting.ranking if arm is not setting.hard]
            for ax, metric in zip(row, judged, strict=True):
                info = METRICS[metric]
                left, right = (edge * info.factor for edge in _span([a.differences[metric] for a in arms]))
                for y, arm in enumerate(arms):
                    d = arm.differences[metric]
                    mean, low, high = (v * info.factor for v in (d.mean, d.low, d.high))
                    color = COLOURS[effect(setting, arm, metric)]
                    ax.plot([low, high], [y, y], color=color, linewidth=1.6, alpha=0.6)
                    ax.plot(
                        min(max(mean, left), right),
                        y,
                        "<" if mean < left else ">" if mean > right else "o",
                        color=color,
                        markersize=6 if arm is setting.chosen else 3.5,
                        clip_on=False,
                    )
                    rows.append(
                        [
                            setting.name,
                            arm_name(arm),
                            info.label,
                            *(f"{v:+.3f}" for v in (mean, low, high)),
                            f"{d.p:.2g}",
                        ]
                    )
                ax.axvline(0, color=SHADES[0], linewidth=0.7, linestyle=(0, (4, 3)))
                ax.set(xlim=(left, right), ylim=(len(arms) - 0.4, -0.6))
                ax.set_yticks(range(len(arms)), map(arm_name, arms) if ax is row[0] else [])
                ax.set_title(f"{setting.name}: {info.label}{unit(metric)}", loc="left")
    caption = (
        f"The paired difference of each arm from {results.settings[0].baseline} (dashed) on the test rows, "
        f"with its 95 % interval; sorted by {METRICS[results.settings[0].by].label}. Green: better, red: "
        "worse, significant after Holm's correction. The larger dot is the chosen arm. A triangle is a dot "
        "farther out."
    )
    columns = ["setting", "arm", "metric", f"minus {results.settings[0].baseline}", "95 % from", "to", "p"]
    return Picture(svg(figure, caption), caption, columns, rows)


def training_curves(results: Results, analyses: Mapping[str, Analysis]) -> Picture | None:
    """The curves that the fit recorded, the mean over seeds."""
    every = [run for setting in results.settings for run in analyses[setting.name].runs.values()]
    names = list(dict.fromkeys(name for run in every for name, curve in run.history.items() if curve))
    if not names:
        return None
    rows, shown = [], featured(results)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.1 * len(results.settings)), layout="constrained")
        axes = figure.subplots(len(results.settings), len(names), squeeze=False)
        for i, setting in enumerate(results.settings):
            for j, name in enumerate(names):
                ax: Axes = axes[i][j]
                for k, arm in enumerate(setting.arms[place] for place in shown):
                    runs = [run.history.get(name, []) for run in analyses[setting.name].runs_of(arm)]
                    # Up to the last epoch of every seed, since a seed may stop early.
                    curve = [sum(values) / len(runs) for values in zip(*runs, strict=False)]
                    ax.plot(
                        range(1, len(curve) + 1),
                        curve,
                        color=shade(k),
                        linewidth=1.2,
                        label=arm_name(arm),
                    )
                    rows += [
                        [setting.name, name, strength(arm), str(epoch + 1), f"{curve[epoch]:.4f}"]
                        for epoch in some(len(curve))
                    ]
                ax.set_title(name if i == 0 else "")
                ax.set_xlabel("epoch" if i == len(results.settings) - 1 else "")
            axes[i][0].set_ylabel(setting.name)
        axes[0][-1].legend(fontsize=7)
    caption = "Training by epoch, measured on hard labels for every arm; the mean over seeds."
    return Picture(svg(figure, caption), caption, ["setting", "curve", "arm", "epoch", "value"], rows)


def _span(differences: Sequence[Difference]) -> tuple[float, float]:
    """The limits of a forest plot, so that one outlying arm does not compress all others."""
    far = 4 * median(max(abs(d.low), abs(d.high)) for d in differences)
    low, high = min(d.low for d in differences), max(d.high for d in differences)
    low, high = max(min(low, 0.0), -far), min(max(high, 0.0), far)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _by_eps(setting: Setting) -> list[Arm]:
    """Hard targets and the plain smoothings, in order."""
    strengths = {arm.name: arm.eps for arm in setting.arms if arm.eps is not None}
    return sorted((arm for arm in setting.arms if arm.name in strengths), key=lambda arm: strengths[arm.name])
