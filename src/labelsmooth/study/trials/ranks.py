"""One run over several processes, as torchrun starts them: the first keeps the study, all take part."""

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import torch.distributed as dist

from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.training import fit_once
from labelsmooth.study.trials.workers import Here

Answer = TypeVar("Answer")


def are_together() -> bool:
    """Whether a process group was made before the study was asked for."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def lead_or_follow(fits: Mapping[str, Fit], study: Callable[[], Answer]) -> Answer:
    """Make the study in the first process; each returns what it returns, or raises what it raises."""
    if not are_together():
        return study()
    if dist.get_rank() == 0:
        try:
            answer = study()
        except BaseException as error:
            _share(error)
            raise
        _share(answer)
        return answer
    while isinstance(said := _share(), _Run):
        try:
            fit_once(said.name, fits[said.name], said.job, single_threaded=False)
        except Exception as error:  # what the first process makes of the run is what counts
            logging.getLogger(__name__).warning("process %d of a run failed: %r", dist.get_rank(), error)
    if isinstance(said, BaseException):
        raise said
    return said


class Team(Here):
    """All processes together, as a pool that does one thing at a time."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future:
        name, _, job, *_ = args
        _share(_Run(name, job))
        return super().submit(function, *args, **options)


class _Run:
    """Asks every process to take part in a run."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.job = job


def _share(what: object = None) -> Any:
    """What the first process says, in each."""
    said = [what]
    dist.broadcast_object_list(said)
    return said[0]
