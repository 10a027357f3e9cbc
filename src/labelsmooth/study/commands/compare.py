"""``labelsmooth compare``: judge saved predictions as a study judges its runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from labelsmooth.study.commands.output import show_results
from labelsmooth.study.comparison import compare
from labelsmooth.study.data.saved.pairing import check_paired
from labelsmooth.study.data.saved.predictions import read_runs


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Judge saved predictions: whether an arm is better than the baseline and by how much, with the table and
    the report of a study.

    Each arm is a file, or a folder with one file for each seed; "labelsmooth evaluate --help" describes the
    files. Runs are paired by seed, in the order of their names, and test rows by their position, or by ids if
    files have them. Without validation rows there is no temperature.
    """

    baseline: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="BASELINE")]
    """File or folder of the baseline, such as hard targets."""
    others: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="OTHER [OTHER ...]")]
    """Files or folders of the other arms."""
    care: str = "overall"
    """Metrics of the verdict: overall (accuracy and NLL), accuracy, calibration, ranking, selective,
    ordinal or ood."""
    ordinal: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Whether the classes are ordered."""
    kind: Literal["logits", "probabilities"] | None = None
    """Contents of a table whose column names do not say it; all but label, id and split are classes."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column of the labels in a table, instead of "label"."""
    output: Annotated[str, tyro.conf.arg(aliases=["-o"], metavar="PATH")] = "labelsmooth-comparison"
    """Folder for the report and the numbers."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the results as one JSON document."""

    def __call__(self) -> None:
        if not self.others:
            raise ValueError("compare needs a baseline and at least one other file or folder")
        paths = [self.baseline, *self.others]
        names = _names(paths)
        arms = check_paired(
            {
                name: read_runs(path, kind=self.kind, label=self.label)
                for name, path in zip(names, paths, strict=True)
            }
        )
        _, first = arms[names[0]][0]
        results = compare(
            {name: [run.result for _, run in runs] for name, runs in arms.items()},
            care=self.care,
            ordinal=self.ordinal,
            class_names=first.class_names,
            test_rows=first.ids,
            output=self.output,
            name="predictions",
        )
        show_results(results, json=self.json)


def _names(paths: Sequence[str]) -> list[str]:
    """The names of the arms: their file names, or the whole paths if those are not unique."""
    places = [Path(path).resolve() for path in paths]
    if repeated := [place for place, count in Counter(places).items() if count > 1]:
        raise ValueError(f"compare must get each arm once, got {repeated[0]} twice")
    short = [place.stem if place.is_file() else place.name for place in places]
    return short if len({*short}) == len(short) else list(paths)
