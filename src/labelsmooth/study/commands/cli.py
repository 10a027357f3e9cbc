"""The command line: its commands, and messages for bad input."""

import contextlib
import io
import shutil
import sys
import textwrap
import warnings
from itertools import groupby

import tyro

from labelsmooth.study.commands.arms import Arms
from labelsmooth.study.commands.compare import Compare
from labelsmooth.study.commands.evaluate import Evaluate
from labelsmooth.study.commands.report import Report
from labelsmooth.study.commands.study import Study
from labelsmooth.study.trials.ledger import STORAGE_ERRORS

Command = Study | Compare | Evaluate | Report | Arms
COMMANDS: dict[str, type[Command]] = {
    "study": Study,
    "compare": Compare,
    "evaluate": Evaluate,
    "report": Report,
    "arms": Arms,
}


def main(args: list[str] | None = None) -> None:
    command = _parse(args)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            command()
    except (ValueError, OSError, *STORAGE_ERRORS) as error:
        _fail(str(error))
    except KeyboardInterrupt:
        if isinstance(command, Study):
            kept = f"finished runs are saved in {command.output}, and the same command continues"
            print(f"\nlabelsmooth: stopped; {kept}", file=sys.stderr)
        sys.exit(130)


def _parse(args: list[str] | None) -> Command:
    said, shown = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS,
                prog="labelsmooth",
                description="Label smoothing for PyTorch: does it help? With --version, its version.",
                args=args,
            )
    except SystemExit as error:
        if error.code == 2:
            _fail(_sentences(said.getvalue()))
        print(_wrapped(shown.getvalue()))
        raise


def _wrapped(help: str) -> str:
    """Wrap the description, which tyro leaves to the terminal."""
    width = shutil.get_terminal_size().columns
    return "\n".join(
        line if line.startswith(("│", "╭", "╰")) else textwrap.fill(line, width)
        for line in help.strip().splitlines()
    )


def _sentences(box: str) -> str:
    """The message in tyro's box, and the hints below it, without the help of an option."""
    _title, *lines = (line.strip("│ ") for line in box.splitlines())
    parts = [list(part) for rule, part in groupby(lines, lambda line: not line.strip("─-╰╯")) if not rule]
    message, *hints = parts
    named = [hint[:2] for hint in hints if hint[0] != "Argument helptext:"]
    return ". ".join(" ".join(part).removesuffix(".") for part in [message, *named])


def _warn(message: Warning | str, *_: object) -> None:
    print(f"labelsmooth: warning: {message}", file=sys.stderr)


def _fail(message: str) -> None:
    print(f"labelsmooth: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
