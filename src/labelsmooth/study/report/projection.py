"""A projection of the penultimate layer."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from torch import Tensor

from labelsmooth.study.analysis.figures import Arm
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.report.pictures import (
    SHADES,
    STYLE,
    Outcomes,
    Picture,
    arm_name,
    class_name,
    strength,
    svg,
)
from labelsmooth.study.trials.files import Outcome

MARKERS = ["o", "^", "s"]


def projections(results: Results, outcomes: Mapping[str, Outcomes]) -> Picture | None:
    """The penultimate layer of three classes, on the plane through their templates (Müller et al., 2019)."""
    planes = {s.name: [_first(arm, outcomes[s.name]) for arm in (s.hard, s.chosen)] for s in results.settings}
    shown = [s for s in results.settings if all(map(_has_plane, planes[s.name]))]
    if not shown:
        return None
    rows = []
    with mpl.rc_context(STYLE):
        # One arm above the other, or side by side for a single setting.
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
                        [setting.name, strength(arm), str(k), f"{x:.3f}", f"{y:.3f}"]
                        for x, y in points[:20].tolist()
                    ]
                ax.set(title=f"{setting.name}, {arm_name(arm)}", aspect="equal", xticks=[], yticks=[])
                ax.margins(0.08)
            axes[0][j].legend(fontsize=7, markerscale=1.5)
    caption = (
        "The penultimate layer on the test rows of the three most confused classes, projected on "
        "the plane through their rows of the last layer; one seed, a separate scale for each panel."
    )
    columns = ["setting", "arm", "class", "x", "y (first 20 rows of each class)"]
    return Picture(svg(figure, caption), caption, columns, rows)


def _first(arm: Arm, outcomes: Outcomes) -> Outcome:
    return outcomes[min((job for job in outcomes if job.arm == arm.name), key=lambda job: job.seed)]


def _has_plane(run: Outcome) -> bool:
    """Whether the templates of the three classes span a plane."""
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
    """The three classes that give each other the most probability."""
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
