"""One training run: seeded, checked, and saved."""

import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelsmooth.calibration import accuracy
from labelsmooth.study.arms.specs import facts_of, parse
from labelsmooth.study.fits.checks import as_result, check_calls, check_names
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.trials.epochs import Watched, forget
from labelsmooth.study.trials.files import Job, Outcome, load, save


@dataclass(frozen=True)
class Summary:
    """The figures of one run for the progress table."""

    validation_nll: float
    test_accuracy: float
    rows: str  # a digest of the labels, which must be the same in every run
    seconds: float | None = None  # the training time, if the run was just trained


def train(name: str, fit: Fit, job: Job, path: Path, single_threaded: bool) -> Summary:
    start = time.perf_counter()
    try:
        criterion, returned = fit_once(name, fit, job, single_threaded=single_threaded, path=path)
    finally:
        forget(path)
    result = as_result(name, returned)
    check_names(name, fit, result["test"][0].size(1))
    check_calls(name, fit, parse(job.arm), criterion)
    save(path, result)
    return replace(summarise_run(load(path)), seconds=time.perf_counter() - start)


def fit_once(
    name: str, fit: Fit, job: Job, *, single_threaded: bool, path: Path | None = None
) -> tuple[Criterion, Any]:
    """The criterion of a fit and its unchecked result; with a path, epochs are recorded beside it."""
    facts = facts_of(fit)
    loss = parse(job.arm).loss(facts)
    criterion = Watched(loss, job.arm, facts, path) if path else Criterion(loss, job.arm, facts)
    with seeded(job.seed, single_threaded):
        try:
            return criterion, fit(criterion, job.seed)
        except Exception as error:
            error.add_note(f"in the fit of {name!r} with {job.arm} and seed {job.seed}")
            raise


def summarise_run(run: Outcome) -> Summary:
    nll = torch.nn.functional.cross_entropy(run.validation[0] / (run.temperature or 1.0), run.validation[1])
    rows = hashlib.sha256()
    for logits, labels in (run.validation, run.test):
        rows.update(repr((logits.size(1), labels.tolist())).encode())
    return Summary(float(nll), accuracy(*run.test), rows.hexdigest())


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Set the number of torch's threads, or keep it, and restore it afterwards."""
    before = torch.get_num_threads()
    try:
        if number is not None:
            torch.set_num_threads(number)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int, single_threaded: bool) -> Iterator[None]:
    """Seed all common generators, and restore them and torch's threads afterwards."""
    old, older = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with threads(1 if single_threaded else None), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002, a fit may use the old generator
            random.seed(seed)
            yield
    finally:
        random.setstate(old)
        np.random.set_state(older)  # noqa: NPY002
