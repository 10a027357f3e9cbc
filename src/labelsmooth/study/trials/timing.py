"""Estimation of the time of a run from its first epochs."""

import time
from collections.abc import Mapping

from torch import nn

from labelsmooth.study.arms.specs import facts_of, parse
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.training import seeded

EPOCHS = 2  # at least, since the first epoch includes loading
SECONDS = 1.0  # at least, since the time of short epochs varies


class EnoughError(BaseException):
    """Ends a fit. It is not an ``Exception``, which the fit might catch."""


class Stopwatch(Criterion):
    """A criterion that ends the training after a few epochs."""

    def __init__(self, loss: nn.Module, arm: str, facts: Mapping[str, object], epochs: int) -> None:
        super().__init__(loss, arm, facts)
        self._most = epochs
        self.times: list[float] = [time.perf_counter()]

    def end_epoch(self) -> None:
        super().end_epoch()
        self.times.append(time.perf_counter())
        enough = self.epochs >= EPOCHS and self.times[-1] - self.times[0] > SECONDS
        if enough or self.epochs >= self._most:
            raise EnoughError


def time_run(fit: Fit, job: Job, *, single_threaded: bool) -> float | None:
    """The estimated seconds of a run, or None for a fit without the attribute ``epochs``.

    The training is discarded.
    """
    facts = facts_of(fit)
    epochs = facts.get("epochs")
    if not isinstance(epochs, int) or epochs < 1:
        return None
    criterion = Stopwatch(parse(job.arm).loss(facts), job.arm, facts, epochs)
    with seeded(job.seed, single_threaded):
        try:
            fit(criterion, job.seed)
        except EnoughError:
            start, first, *_, last = [*criterion.times, criterion.times[-1]]
            each = (last - first) / max(criterion.epochs - 1, 1)
            return last - start + (epochs - criterion.epochs) * each
    return time.perf_counter() - criterion.times[0]  # fewer calls of end_epoch() than fit.epochs
