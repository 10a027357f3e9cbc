"""How many epochs of a run are over, seen from any process: a file beside the run's that grows by a byte."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import nn

from labelsmooth.study.fits.criterion import Criterion


class Watched(Criterion):
    """A criterion that writes down each epoch."""

    def __init__(self, loss: nn.Module, arm: str, facts: Mapping[str, object], run: Path) -> None:
        super().__init__(loss, arm, facts)
        self._marks = _marks(run)
        self._marks.unlink(missing_ok=True)

    def end_epoch(self) -> None:
        super().end_epoch()
        with suppress(OSError), self._marks.open("ab") as marks:  # it is for show alone
            marks.write(b".")


def epochs_of(run: Path) -> int:
    """The epochs that are over of a run that is being trained, by the path that it will have."""
    try:
        return _marks(run).stat().st_size
    except OSError:
        return 0


def forget(run: Path) -> None:
    _marks(run).unlink(missing_ok=True)


def _marks(run: Path) -> Path:
    return run.with_name(f"{run.name}.epochs.partial")  # removed as what a killed process has left
