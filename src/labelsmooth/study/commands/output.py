"""What a command prints, on any terminal."""

import codecs
import io
import sys

from rich.console import Console, RenderableType

SIGNS = "labelsmooth.signs"


def _sign(error: UnicodeError) -> tuple[str, int]:
    """For an old code page, which has no triangles: better is +, worse is -."""
    assert isinstance(error, UnicodeEncodeError)
    lost = error.object[error.start : error.end]
    return "".join({"▲": "+", "▼": "-"}.get(c, "?") for c in lost), error.end


codecs.register_error(SIGNS, _sign)


def show(what: RenderableType) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors=SIGNS)
    console = Console(highlight=False)
    console.width = max(console.width, 80)  # narrower, the table would lose its digits
    console.print(what, crop=False)  # or a long path would be cut
