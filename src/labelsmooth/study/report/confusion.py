"""Confusion of classes: a matrix for few classes, the most frequent pairs for many."""

from collections.abc import Mapping

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from labelsmooth.study.analysis.figures import Arm
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.report.changes import Table
from labelsmooth.study.report.pictures import STYLE, Picture, arm_name, class_name, svg

FEW_CLASSES = 12
PAIRS = 20
LONGEST = 14  # the maximum length of a class name in a chart


def confusions(arm: Arm, analysis: Analysis) -> Tensor:
    """The confusion matrix, ``(K, K)``, in rows per seed."""
    num_classes = analysis.setting.num_classes
    runs = analysis.runs_of(arm)
    cells = torch.stack([analysis.labels * num_classes + run.predicted.long() for run in runs]).view(-1)
    count = torch.bincount(cells, minlength=num_classes**2)
    return count.view(num_classes, num_classes).double() / len(runs)


def confused_pairs(analysis: Analysis) -> Table:
    """The most frequent errors of either arm, and their frequency with each arm."""
    setting = analysis.setting
    before, after = (confusions(arm, analysis).fill_diagonal_(0) for arm in (setting.hard, setting.chosen))
    either = torch.maximum(before, after).view(-1)
    rows = []
    for cell in either.argsort(descending=True, stable=True)[:PAIRS].tolist():
        if not either[cell]:
            break
        label, predicted = divmod(cell, setting.num_classes)
        was, now = float(before.view(-1)[cell]), float(after.view(-1)[cell])
        rows.append(
            [
                class_name(setting, label),
                class_name(setting, predicted),
                f"{was:.1f}",
                f"{now:.1f}",
                f"{now - was:+.1f}",
            ]
        )
    return Table(
        ["label", "predicted", f"rows per seed, {setting.baseline}", "the chosen arm", "change"], rows
    )


def confusion_picture(results: Results, analyses: Mapping[str, Analysis]) -> Picture | None:
    """Normalised confusion matrices of hard targets and of the chosen arm."""
    shown = [setting for setting in results.settings if 2 <= setting.num_classes <= FEW_CLASSES]
    if not shown:
        return None
    rows: list[list[str]] = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.9 * len(shown)), layout="constrained")
        axes = figure.subplots(len(shown), 2, squeeze=False)
        for setting, pair in zip(shown, axes, strict=True):
            names = [_short(class_name(setting, k)) for k in range(setting.num_classes)]
            for ax, arm in zip(pair, (setting.hard, setting.chosen), strict=True):
                share = confusions(arm, analyses[setting.name])
                share = share / share.sum(1, keepdim=True) * 100
                # Drawn as vectors, since the page must not refer to image files.
                ax.pcolormesh(share.nan_to_num().numpy(), cmap="Blues", vmin=0, vmax=100)
                for k, line in enumerate(share.tolist()):
                    for j, x in enumerate(line):
                        if x == x and round(x, 1):
                            ax.text(
                                j + 0.5,
                                k + 0.5,
                                f"{x:.0f}" if x >= 1 else "<1",
                                ha="center",
                                va="center",
                                fontsize=6,
                                color="white" if x > 50 else "black",
                            )
                    rows.append([setting.name, arm_name(arm), class_name(setting, k), *_told(line)])
                places = [k + 0.5 for k in range(len(names))]
                ax.set_xticks(places, names, rotation=45, ha="right")
                ax.set_yticks(places, names)
                ax.invert_yaxis()
                ax.set_aspect("equal")
                ax.set(title=f"{setting.name}, {arm_name(arm)}", xlabel="predicted", ylabel="label")
    caption = (
        "The share of each label's test rows that is predicted as each class, in percent, over all seeds."
    )
    widest = max(setting.num_classes for setting in shown)
    rows = [[*row, *[""] * (widest + 3 - len(row))] for row in rows]
    columns = ["setting", "arm", "label", *(f"predicted {k}" for k in range(widest))]
    if len(shown) == 1:
        columns[3:] = [class_name(shown[0], k) for k in range(widest)]
    return Picture(svg(figure, caption), caption, columns, rows)


def _told(line: list[float]) -> list[str]:
    return [f"{x:.1f}" if x == x else "-" for x in line]


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
