"""The finished epochs of a run, for other processes: a file beside the run holds the time of each."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import nn

from labelsmooth.study.fits.criterion import Criterion

WIDTH = 15  # bytes of one time, the same for all


class Pace(NamedTuple):
    """The progress and the speed of a run."""

    epochs: int  # finished epochs
    seconds: float | None  # seconds per epoch, from two epochs on


class Watched(Criterion):
    """A criterion that records each epoch."""

    def __init__(self, loss: nn.Module, arm: str, facts: Mapping[str, object], run: Path) -> None:
        super().__init__(loss, arm, facts)
        self._marks = _marks(run)
        self._marks.unlink(missing_ok=True)

    def end_epoch(self) -> None:
        super().end_epoch()
        with suppress(OSError), self._marks.open("ab") as marks:  # for display only
            marks.write(f"{time.time():014.3f}\n".encode())


def pace_of(run: Path) -> Pace:
    """The progress of a current run, by its future path."""
    try:
        ends = _marks(run).read_bytes()
        epochs = len(ends) // WIDTH
        if epochs < 2:
            return Pace(epochs, None)
        first, last = float(ends[:WIDTH]), float(ends[(epochs - 1) * WIDTH : epochs * WIDTH])
    except (OSError, ValueError):  # the run has just ended
        return Pace(0, None)
    return Pace(epochs, (last - first) / (epochs - 1))


def forget(run: Path) -> None:
    _marks(run).unlink(missing_ok=True)


def _marks(run: Path) -> Path:
    return run.with_name(f"{run.name}.epochs.partial")  # removed like other files of a killed process
