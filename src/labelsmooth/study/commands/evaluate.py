"""``labelsmooth evaluate``: evaluate saved predictions."""

import json
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from rich.console import Group
from rich.text import Text

from labelsmooth.study.commands.output import show
from labelsmooth.study.evaluation.evaluate import evaluate
from labelsmooth.study.evaluation.figures import render


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate saved predictions: accuracy, calibration and its noise floor, the effect of a temperature, and
    each class.

    A file is .npz or .safetensors, with logits or probabilities and labels, and optionally val_logits and
    val_labels; or a table, .csv, .tsv or .parquet, with a column label and a column logit_<class> or
    probability_<class> for each class. A folder holds a file for each seed.
    """

    files: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE [FILE ...]")]
    """Files of predictions, or folders with one file for each seed; each is evaluated separately."""
    kind: Literal["logits", "probabilities"] | None = None
    """Contents of a table whose column names do not say it; all but label, id and split are classes."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column of the labels in a table, instead of "label"."""
    picture: Annotated[str | None, tyro.conf.arg(metavar="PATH")] = None
    """File for reliability diagrams, ending in .svg, .png or .pdf."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print every number as one JSON document instead."""

    def __call__(self) -> None:
        if not self.files:
            raise ValueError("evaluate needs at least one file or folder of predictions")
        if self.picture is not None:
            from labelsmooth.study.evaluation.picture import check_picture

            check_picture(self.picture)  # before the work
        evaluations = [evaluate(file, kind=self.kind, label=self.label) for file in self.files]
        if self.json:
            print(json.dumps({"evaluations": [each.as_json() for each in evaluations]}, indent=1))
        else:
            for i, each in enumerate(evaluations):
                if i:
                    show("")
                show(render(each))
        if self.picture is not None:
            from labelsmooth.study.evaluation.picture import save_picture

            save_picture(self.picture, evaluations)
            if not self.json:
                # In a group, so that a path is not wrapped.
                show(Group(Text(f"picture: {self.picture}", no_wrap=True, overflow="ignore")))
