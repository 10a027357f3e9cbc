"""Rows and classes on which the chosen arm and hard targets differ."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from labelsmooth.study.analysis.figures import Arm
from labelsmooth.study.analysis.summary import Analysis
from labelsmooth.study.report.pictures import class_name

SHOWN = 10  # rows in each direction
CLASSES = 20


@dataclass(frozen=True)
class Thumbnail:
    """A data URL of an image."""

    png: bytes

    @property
    def address(self) -> str:
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


Cell = str | Thumbnail


@dataclass(frozen=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def changed_rows(analysis: Analysis, shown: Sequence[str | bytes] = ()) -> Table:
    """The test rows that change between correct and wrong in the most seeds, with their texts or images."""
    setting, labels = analysis.setting, analysis.labels
    before, after = (_predicted(arm, analysis) for arm in (setting.hard, setting.chosen))
    was_right, is_right = before == labels, after == labels
    rows: list[list[Cell]] = []
    for what, moved in (
        ("wrong to right", is_right & ~was_right),
        ("right to wrong", was_right & ~is_right),
    ):
        count = moved.sum(0)
        for row in count.argsort(descending=True, stable=True)[:SHOWN].tolist():
            if not count[row]:
                break
            rows.append(
                [
                    what,
                    str(row),
                    *(_shown(each) for each in shown[row : row + 1]),
                    class_name(setting, int(labels[row])),
                    class_name(setting, _usual(before[:, row])),
                    class_name(setting, _usual(after[:, row])),
                    f"{int(count[row])} of {setting.seeds}",
                ]
            )
    columns = [
        "change",
        "test row",
        "label",
        f"{setting.baseline} predict",
        "the chosen arm predicts",
        "seeds",
    ]
    if shown:
        columns.insert(2, "content")
    return Table(columns, rows)


def _shown(row: str | bytes) -> Cell:
    return Thumbnail(row) if isinstance(row, bytes) else row


def by_class(analysis: Analysis) -> Table:
    """The classes with the largest changes in accuracy; all classes if they are few."""
    setting = analysis.setting
    count = torch.bincount(analysis.labels, minlength=setting.num_classes).tolist()
    pairs = [
        (k, before, after)
        for k, (before, after) in enumerate(zip(setting.hard.recall, setting.chosen.recall, strict=True))
        if before is not None and after is not None
    ]
    if len(pairs) > CLASSES:
        pairs = sorted(pairs, key=lambda pair: -abs(pair[2] - pair[1]))[:CLASSES]
    rows = [
        [
            class_name(setting, k),
            str(count[k]),
            f"{before * 100:.1f}",
            f"{after * 100:.1f}",
            f"{(after - before) * 100:+.1f}",
        ]
        for k, before, after in pairs
    ]
    return Table(
        ["class", "test rows", f"{setting.baseline}, %", "the chosen arm, %", "change, points"], rows
    )


def _predicted(arm: Arm, analysis: Analysis) -> Tensor:
    """``(seeds, rows)``"""
    return torch.stack([run.predicted for run in analysis.runs_of(arm)])


def _usual(predicted: Tensor) -> int:
    return int(predicted.mode().values)
