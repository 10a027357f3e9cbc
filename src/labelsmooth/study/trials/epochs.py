"""How many epochs of a run are over, seen from any process: a file beside the run's holds when each ended."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torch import nn

from labelsmooth.study.fits.criterion import Criterion

WIDTH = 15  # bytes of one end, alike for all


class Pace(NamedTuple):
    """How far a run is, and how fast."""

    epochs: int  # that are over
    seconds: float | None  # that one takes, once there are two


class Watched(Criterion):
    """A criterion that writes down each epoch."""

    def __init__(self, loss: nn.Module, arm: str, facts: Mapping[str, object], run: Path) -> None:
        super().__init__(loss, arm, facts)
        self._marks = _marks(run)
        self._marks.unlink(missing_ok=True)

    def end_epoch(self) -> None:
        super().end_epoch()
        with suppress(OSError), self._marks.open("ab") as marks:  # it is for show alone
            marks.write(f"{time.time():014.3f}\n".encode())


def pace_of(run: Path) -> Pace:
    """Of a run that is being trained, by the path that it will have."""
    try:
        ends = _marks(run).read_bytes()
        epochs = len(ends) // WIDTH
        if epochs < 2:
            return Pace(epochs, None)
        first, last = float(ends[:WIDTH]), float(ends[(epochs - 1) * WIDTH : epochs * WIDTH])
    except (OSError, ValueError):  # it has just ended
        return Pace(0, None)
    return Pace(epochs, (last - first) / (epochs - 1))


def forget(run: Path) -> None:
    _marks(run).unlink(missing_ok=True)


def _marks(run: Path) -> Path:
    return run.with_name(f"{run.name}.epochs.partial")  # removed as what a killed process has left
