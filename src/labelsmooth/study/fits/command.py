"""A fit that starts a program, which loads its loss from a file and saves its predictions to another."""

import hashlib
import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from labelsmooth.study.arms.specs import facts_of
from labelsmooth.study.data.saved.predictions import TYPES, Kind, read_predictions
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.criterion_file import read_receipt, receipt_of, write_criterion

PLACEHOLDERS = {
    "{criterion}": "the file of the loss, for labelsmooth.load_criterion",
    "{seed}": "the seed",
    "{out}": "the file for the predictions",
}
FORM = "python train.py --loss {criterion} --seed {seed} --out {out}"
LAST = 5  # lines of a program's output in an error
LARGEST = 1 << 24  # bytes; larger files in a command are data and do not identify the fit


@dataclass(frozen=True, kw_only=True)
class CommandFit:
    """Train each run with a command: any program, of any framework.

    The program loads the file ``{criterion}`` with :func:`labelsmooth.load_criterion`, trains with the seed
    ``{seed}``, and saves its predictions for the validation and test rows to ``{out}``, in a format of
    :func:`labelsmooth.study.read_predictions`: an ``.npz`` file, or the type of the extension in the command,
    as in ``{out}.csv``. The command runs without a shell, in the current folder.

    Args:
        command: The command, with ``{criterion}``, ``{seed}`` and ``{out}``.
        num_classes: The number of classes, for arms that need it.
        epochs: The number of calls of ``criterion.end_epoch()``, for arms that need it.
        counts: The number of training rows of each class, K numbers, for arms that need it.
        kind: As in :func:`labelsmooth.study.read_predictions`.
        label: As in :func:`labelsmooth.study.read_predictions`.
        folder: A folder to keep the files and the output of each run; None keeps nothing.

    Raises:
        ValueError: if the command lacks a placeholder, or has no program.

    Example:
        >>> CommandFit(command="python train.py --loss {criterion} --seed {seed} --out {out}").description
        'python train.py --loss {criterion} --seed {seed} --out {out}'
    """

    command: str
    num_classes: int | None = None
    epochs: int | None = None
    counts: Tensor | Sequence[int] | None = field(default=None, compare=False)
    kind: Kind | None = None
    label: str | None = None
    folder: str | Path | None = None
    # The contents of the program's files identify the fit.
    programs: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if missing := [name for name in PLACEHOLDERS if name not in self.command]:
            said = " and ".join(f"{name}, {PLACEHOLDERS[name]}" for name in missing)
            raise ValueError(f"command must hold {said}, as in {FORM!r}, got {self.command!r}")
        if (ending := _ending(self.command)) not in TYPES:
            raise ValueError(f"command must have {{out}} end in {', '.join(TYPES)}, got {{out}}{ending}")
        for name, value in (("num_classes", self.num_classes), ("epochs", self.epochs)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
        if self.counts is not None:
            object.__setattr__(self, "counts", torch.as_tensor(self.counts))
        object.__setattr__(self, "programs", _programs(_words(self.command)))

    @property
    def description(self) -> str:
        return self.command

    def __call__(self, criterion: Criterion, seed: int) -> dict[str, object]:
        """Run the command.

        Raises:
            ValueError: if the program never called the criterion, or saved no valid predictions.
            OSError: if it cannot be started, or fails; the message has its exit code and its last output.
        """
        if not criterion.arm:
            raise ValueError("criterion must have an arm, as those of a study do")
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            return self._run(Path(self.folder), criterion, seed)
        with TemporaryDirectory(prefix="labelsmooth-") as folder:
            return self._run(Path(folder), criterion, seed)

    def _run(self, folder: Path, criterion: Criterion, seed: int) -> dict[str, object]:
        start = folder.absolute() / f"{_slug(criterion.arm)}-seed{seed}"
        loss, out = Path(f"{start}.json"), Path(f"{start}{_ending(self.command)}")
        for old in (out, receipt_of(loss)):
            old.unlink(missing_ok=True)
        write_criterion(loss, criterion.arm, criterion.facts or facts_of(self), receipt=True)
        given = {
            "{criterion}": str(loss),
            "{seed}": str(seed),
            f"{{out}}{_written_ending(self.command)}": str(out),
        }
        self._start([_filled(word, given) for word in _words(self.command)], start)
        criterion.called, criterion.epochs = read_receipt(loss)
        if not criterion.called:
            raise ValueError(
                f"the program must call the criterion in {{criterion}}: criterion = "
                f"labelsmooth.load_criterion(path), and loss = criterion(logits, labels) ({self.command})"
            )
        if not out.exists():
            raise ValueError(f"the program must save its predictions to {{out}}, {out.name} ({self.command})")
        return read_predictions(out, kind=self.kind, label=self.label).result

    def _start(self, words: Sequence[str], start: Path) -> None:
        said, cried = Path(f"{start}.stdout.log"), Path(f"{start}.stderr.log")
        # The study's number of threads, which is one if runs are trained in parallel.
        environment = {"OMP_NUM_THREADS": str(torch.get_num_threads()), **os.environ}
        try:
            with said.open("wb") as output, cried.open("wb") as errors:
                done = subprocess.run(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=errors,
                    env=environment,
                    check=False,
                )
        except (FileNotFoundError, PermissionError) as error:
            raise ValueError(
                f"command cannot be started: {words[0]!r}: {error.strerror} ({self.command})"
            ) from None
        if done.returncode:
            last = _last_lines(cried) or _last_lines(said) or "it printed nothing"
            kept = f"; its output is in {cried.name} and {said.name} in {self.folder}" if self.folder else ""
            code = done.returncode
            how = f"exit code {code}" if code > 0 else f"signal {-code}"
            raise ChildProcessError(f"the command failed with {how}: {last} ({shlex.join(words)}){kept}")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command, posix=os.name != "nt")
    except ValueError as error:
        raise ValueError(f"command must be words as a shell takes them ({error}), got {command!r}") from None


def _filled(word: str, given: dict[str, str]) -> str:
    for name, value in given.items():
        word = word.replace(name, value)
    return word


def _written_ending(command: str) -> str:
    found = re.search(r"\{out\}(\.\w+)?", command)
    return (found[1] or "") if found else ""


def _ending(command: str) -> str:
    """The extension of the predictions' file."""
    return _written_ending(command).lower() or ".npz"


def _programs(words: Sequence[str]) -> dict[str, str]:
    """The digests of the files that the command names, without the interpreter."""
    files = [word for word in words if os.path.isfile(word) and os.path.getsize(word) <= LARGEST]
    contents = {word: Path(word).read_bytes() for word in files}
    return {
        word: hashlib.sha256(content).hexdigest()
        for word, content in contents.items()
        if b"\0" not in content
    }


def _last_lines(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-LAST:])


def _slug(arm: str) -> str:
    return "-".join(re.findall(r"[\w.]+", arm))
