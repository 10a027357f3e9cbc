"""The report's pictures: each is computed first, then drawn, and told again by a table of its numbers."""

import io
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType
from torch import Tensor

from labelsmooth.calibration import ReliabilityDisplay
from labelsmooth.calibration.metrics import Reliability
from labelsmooth.study.analysis.figures import FEW, JUDGED, METRICS, Arm, Difference, Metric, Setting
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.analysis.verdict import Effect, effect
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
MARKERS = ["o", "^", "s"]


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
    """The places of the arms that are drawn one by one: all if they are few; else hard targets, what
    validation chose, and those of the best mean rank."""
    count = len(results.settings[0].arms)
    if count <= FEW:
        return list(range(count))
    places = [[setting.ranking.index(arm) for arm in setting.arms] for setting in results.settings]
    best = sorted(range(1, count), key=lambda j: sum(place[j] for place in places))
    chosen = {setting.arms.index(setting.chosen) for setting in results.settings}
    shown = list(dict.fromkeys([0, *sorted(chosen), *best]))
    return sorted(shown[: max(FEW, 1 + len(chosen))])


def reliability_picture(setting: Setting, arm: Arm, analysis: Analysis, *, scaled: bool) -> Picture:
    """All seeds' test rows together, each seed with its own temperature."""
    runs = analysis.runs_of(arm)
    bins = _pooled([run.reliability_scaled if scaled else run.reliability for run in runs])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, 4.4))
        ReliabilityDisplay(bins).plot(figure.add_axes((0.11, 0.09, 0.87, 0.9)))
    ece: Metric = "ece_scaled" if scaled else "ece"
    floor = arm.noise_floor_scaled if scaled else arm.noise_floor
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
        _svg(figure, caption),
        caption,
        ["confidence from, to", "test rows", "mean confidence", "accuracy"],
        rows,
    )


def _pooled(several: Sequence[Reliability]) -> Reliability:
    """The bins of all rows together."""
    count = torch.stack([bins.count for bins in several])
    confidence = torch.stack([bins.confidence.nan_to_num() for bins in several])
    accuracy = torch.stack([bins.accuracy.nan_to_num() for bins in several])
    total = count.sum(0)
    return Reliability(total, (count * confidence).sum(0) / total, (count * accuracy).sum(0) / total)


def against_eps(results: Results, metric: Metric) -> Picture | None:
    """A metric of every plain smoothing, with the interval of its difference from hard targets."""
    info = METRICS[metric]
    plain = {s.name: _by_eps(s) for s in results.settings}
    if any(len(plain[s.name]) < min(len(s.arms), 3) for s in results.settings):
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.5), layout="constrained")
        for ax, setting in zip(_panels(figure, len(results.settings)), results.settings, strict=True):
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
            ax.set_xticks(positions, [_strength(arm) for arm in plain[setting.name]])
            ax.set(title=setting.name, xlabel="eps")
        figure.axes[0].set_ylabel(f"{info.label}, {info.unit}")
    rows = [
        [
            setting.name,
            _strength(arm),
            f"{arm.values[metric].mean * info.factor:.3f}",
            *(f"{v * info.factor:+.3f}" for v in (d.mean, d.low, d.high)),
        ]
        if (d := arm.differences.get(metric))
        else [setting.name, _strength(arm), f"{arm.values[metric].mean * info.factor:.3f}", "", "", ""]
        for setting in results.settings
        for arm in plain[setting.name]
    ]
    caption = (
        f"{info.label[0].upper()}{info.label[1:]} on the test rows. Bars: 95 % interval of the paired "
        "difference from hard targets (dashed). The larger dot is the eps chosen on validation."
    )
    columns = ["setting", "eps", f"{info.label}, {info.unit}", "less hard targets", "95 % from", "to"]
    return Picture(_svg(figure, caption), caption, columns, rows)


def against_hard(results: Results) -> Picture | None:
    """Every arm's differences from hard targets with their intervals, best first; for a ranking alone."""
    if not any(setting.ranked for setting in results.settings):
        return None
    rows: list[list[str]] = []
    with mpl.rc_context(STYLE):
        heights = [len(setting.arms) + 2 for setting in results.settings]
        figure = Figure(figsize=(9, 0.17 * sum(heights) + 0.4), layout="constrained")
        axes = figure.subplots(len(heights), len(JUDGED), squeeze=False, height_ratios=heights)
        for setting, row in zip(results.settings, axes, strict=True):
            arms = [arm for arm in setting.ranking if arm is not setting.hard]
            for ax, metric in zip(row, JUDGED, strict=True):
                info = METRICS[metric]
                left, right = (edge * info.factor for edge in _span([a.differences[metric] for a in arms]))
                for y, arm in enumerate(arms):
                    d = arm.differences[metric]
                    mean, low, high = (v * info.factor for v in (d.mean, d.low, d.high))
                    color = COLOURS[effect(arm, metric)]
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
                ax.set_title(f"{setting.name}: {info.label}, {_unit(metric)}", loc="left")
    caption = (
        "The paired difference of each arm from hard targets (dashed) on the test rows, with its 95 % "
        "interval; sorted by NLL after temperature. Green: better, red: worse, sure among so many arms "
        "(Holm). The larger dot is the arm chosen on validation. A triangle is a dot farther out."
    )
    columns = ["setting", "arm", "metric", "less hard targets", "95 % from", "to", "p"]
    return Picture(_svg(figure, caption), caption, columns, rows)


def training_curves(results: Results, analyses: Mapping[str, Analysis]) -> Picture | None:
    """What the fit recorded each epoch, the mean over seeds."""
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
                    # As far as every seed was trained: one may have stopped early.
                    curve = [sum(values) / len(runs) for values in zip(*runs, strict=False)]
                    ax.plot(
                        range(1, len(curve) + 1),
                        curve,
                        color=_shade(k),
                        linewidth=1.2,
                        label=arm_name(arm),
                    )
                    rows += [
                        [setting.name, name, _strength(arm), str(epoch + 1), f"{curve[epoch]:.4f}"]
                        for epoch in _some(len(curve))
                    ]
                ax.set_title(name if i == 0 else "")
                ax.set_xlabel("epoch" if i == len(results.settings) - 1 else "")
            axes[i][0].set_ylabel(setting.name)
        axes[0][-1].legend(fontsize=7)
    caption = "Training, epoch by epoch, on hard labels whatever was trained on; the mean over seeds."
    return Picture(_svg(figure, caption), caption, ["setting", "curve", "arm", "epoch", "value"], rows)


def projections(results: Results, outcomes: Mapping[str, Outcomes]) -> Picture | None:
    """The penultimate layer of three classes, on the plane through their templates (Müller et al., 2019)."""
    planes = {s.name: [_first(arm, outcomes[s.name]) for arm in (s.hard, s.chosen)] for s in results.settings}
    shown = [s for s in results.settings if all(map(_has_plane, planes[s.name]))]
    if not shown:
        return None
    rows = []
    with mpl.rc_context(STYLE):
        # The two arms below one another, or side by side where there is only one setting.
        alone = len(shown) == 1
        figure = Figure(figsize=(9, 3.6) if alone else (3 * len(shown), 5.6), layout="constrained")
        grid = figure.subplots(*((1, 2) if alone else (2, len(shown))), squeeze=False)
        axes = grid.T if alone else grid
        for j, setting in enumerate(shown):
            classes = _most_confused(planes[setting.name][0])
            for i, arm in enumerate((setting.hard, setting.chosen)):
                run, ax = planes[setting.name][i], axes[i][j]
                for k, points in zip(classes, _project(run, classes), strict=True):
                    c = classes.index(k)
                    ax.scatter(
                        *points.T.tolist(),
                        s=7,
                        marker=MARKERS[c],
                        color=SHADES[[2, 5, 6][c]],
                        alpha=0.6,
                        linewidths=0,
                        label=class_name(setting, k),
                    )
                    rows += [
                        [setting.name, _strength(arm), str(k), f"{x:.3f}", f"{y:.3f}"]
                        for x, y in points[:20].tolist()
                    ]
                ax.set(title=f"{setting.name}, {arm_name(arm)}", aspect="equal", xticks=[], yticks=[])
                ax.margins(0.08)
            axes[0][j].legend(fontsize=7, markerscale=1.5)
    caption = (
        "The penultimate layer on the test rows of the three classes that hard targets confuse most, "
        "projected on the plane through their rows of the last layer; one seed, each panel to its own scale."
    )
    columns = ["setting", "arm", "class", "x", "y (first 20 rows of each class)"]
    return Picture(_svg(figure, caption), caption, columns, rows)


def _first(arm: Arm, outcomes: Outcomes) -> Outcome:
    return outcomes[min((job for job in outcomes if job.arm == arm.name), key=lambda job: job.seed)]


def class_name(setting: Setting, k: int) -> str:
    return setting.class_names[k] if setting.class_names else f"class {k}"


def _has_plane(run: Outcome) -> bool:
    """Whether three classes have templates that span one."""
    return (
        run.features is not None and run.head is not None and min(run.head.size(0) - 1, run.head.size(1)) >= 2
    )


def _project(run: Outcome, classes: Sequence[int]) -> list[Tensor]:
    """Each class's rows, ``(n, 2)``, on an orthonormal basis of the plane through the three templates."""
    assert run.features is not None
    assert run.head is not None
    a, b, c = run.head[list(classes)].double()
    basis = torch.linalg.qr(torch.stack([b - a, c - a], 1)).Q
    return [(run.features[run.test[1] == k].double() - a) @ basis for k in classes]


def _most_confused(run: Outcome) -> list[int]:
    """The three classes whose probability goes to one another most."""
    logits, labels = run.test
    num_classes = logits.size(1)
    mass = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    mass.index_add_(0, labels, logits.double().softmax(-1))
    mass = mass + mass.T
    return list(
        max(
            itertools.combinations(range(min(num_classes, 50)), 3),
            key=lambda c: float(mass[c[0], c[1]] + mass[c[0], c[2]] + mass[c[1], c[2]]),
        )
    )


def _span(differences: Sequence[Difference]) -> tuple[float, float]:
    """From where to where a forest is drawn: one arm far out is not to flatten all others."""
    far = 4 * median(max(abs(d.low), abs(d.high)) for d in differences)
    low, high = min(d.low for d in differences), max(d.high for d in differences)
    low, high = max(min(low, 0.0), -far), min(max(high, 0.0), far)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _by_eps(setting: Setting) -> list[Arm]:
    """Hard targets and the plain smoothings, in order."""
    strengths = {arm.name: arm.eps for arm in setting.arms if arm.eps is not None}
    return sorted((arm for arm in setting.arms if arm.name in strengths), key=lambda arm: strengths[arm.name])


def _strength(arm: Arm) -> str:
    return arm.label if arm.eps != 0 else "0"


def _unit(metric: Metric) -> str:
    """Of a difference."""
    return "points" if METRICS[metric].unit == "%" else METRICS[metric].unit


def _panels(figure: Figure, count: int) -> list[Axes]:
    return figure.subplots(1, count, squeeze=False)[0].tolist()


def _shade(k: int) -> str:
    return SHADES[k % len(SHADES)]


def _some(length: int, count: int = 10) -> list[int]:
    """About ``count`` epochs, the first and the last among them."""
    if not length:
        return []
    return sorted({round(i * (length - 1) / (count - 1)) for i in range(count)})


def _svg(figure: Figure, label: str) -> str:
    """An element to stand in a page: sized by it, in its font, with identifiers of its own."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    text = buffer.getvalue()
    head, body = text[text.index("<svg") :].split(">", 1)
    view_box = head.split('viewBox="')[1].split('"')[0]
    # Groups are named by their order in the picture, so each picture has a figure_1; none is referred to.
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    return f'<svg viewBox="{view_box}" role="img" xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
