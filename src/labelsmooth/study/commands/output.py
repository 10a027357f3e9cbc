"""Printing of results on any terminal."""

import codecs
import io
import sys

from rich.console import Console, Group, RenderableType
from rich.text import Text

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.report.document import as_json
from labelsmooth.study.report.terminal import render
from labelsmooth.study.trials.record import notes_of

SIGNS = "labelsmooth.signs"


def _sign(error: UnicodeError) -> tuple[str, int]:
    """Replacements for code pages without triangles: better is +, worse is -."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join({"▲": "+", "▼": "-"}.get(c, "?") for c in lost), error.end


codecs.register_error(SIGNS, _sign)


def show(what: RenderableType) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=SIGNS)
    console = Console(highlight=False)
    console.width = max(console.width, 80)  # a narrower table would lose digits
    console.print(what, crop=False)  # keeps long paths


def show_results(results: Results, *, json: bool) -> None:
    """Print the notes on added arms, and the answer of a study."""
    if json:
        print(as_json(results))
        return
    notes = [f"{name}: {note}." for name, said in notes_of(results.folder).items() for note in said]
    show(Group(*map(Text, notes), render(results)))
