"""Runs that several processes train together, as under torchrun; the first process leads the study."""

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
    """Whether a process group existed before the study."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def lead_or_follow(fits: Mapping[str, Fit], study: Callable[[], Answer]) -> Answer:
    """Run the study in the first process; every process returns its result, or raises its error."""
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
        except Exception as error:  # the first process reports the error of the run
            logging.getLogger(__name__).warning("process %d of a run failed: %r", dist.get_rank(), error)
    if isinstance(said, BaseException):
        raise said
    return said


class Team(Here):
    """All processes together, as a pool with a single worker."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        name, _, job, *_ = args
        _share(_Run(name, job))
        return super().submit(function, *args, **options)


class _Run:
    """Asks every process to take part in a run."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.job = job


def _share(what: object = None) -> Any:
    """Broadcast an object from the first process."""
    said = [what]
    dist.broadcast_object_list(said)
    return said[0]
