"""``labelsmooth report``: write the report of a study again."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from labelsmooth.study.commands.output import show_results
from labelsmooth.study.conclusion import reopen


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the answer, results.json and report.html of a study again from the runs in its folder, without
    training, the fit and its data."""

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Output folder of a study."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the results as one JSON document."""

    def __call__(self) -> None:
        results = reopen(self.folder)
        show_results(results, json=self.json)
