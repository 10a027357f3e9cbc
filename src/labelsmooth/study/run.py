"""Run a study: every smoothing with every seed, in pairs, and the comparison."""

import random
import signal
import threading
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import joblib
import numpy as np
import torch

from labelsmooth.calibration import accuracy, fit_temperature
from labelsmooth.calibration.metrics import check_logits
from labelsmooth.checks import check_strength
from labelsmooth.losses import CrossEntropyLoss
from labelsmooth.study.fit import Fit, FitResult
from labelsmooth.study.progress import Progress, Summary
from labelsmooth.study.results import Results
from labelsmooth.study.statistics import summarise
from labelsmooth.study.trials import Job, Ledger, Outcome, load, save, save_model, slug
from labelsmooth.study.verdict import recommended


def run(
    fit: Fit | Mapping[str, Fit],
    *,
    eps: Sequence[float] = (0.05, 0.1, 0.2),
    seeds: int = 5,
    output: str | Path = "labelsmooth-study",
    workers: int | None = None,
    storage: str | None = None,
    settings: Mapping[str, object] | None = None,
    progress: bool = True,
) -> Results:
    """Train with hard and with smoothed targets, paired by seed, and tell whether smoothing helps.

    What is done is kept in ``output``: called again, the study goes on where it stopped, and one that is
    complete is read back. Runs of another fit, or other settings, are never mixed in.

    Args:
        fit: Trains one model:
            ``fit(criterion, seed) -> {"val": (logits, labels), "test": (logits, labels)}``. Logits are
            ``(N, K)``, labels ``(N,)``, and the rows the same in every call; more may be given
            (:class:`labelsmooth.study.FitResult`). All that is random in it must follow from ``seed``, or
            from torch's, NumPy's and Python's generators, which are seeded before each call. Several fits
            by name are compared each in its own setting.
        eps: The smoothings to compare with hard targets, each in ``(0, 1]``.
        seeds: Number of pairs, at least 2.
        output: The folder for the runs, ``results.json``, ``report.html`` and the recommended models.
        workers: None trains in this process; a number, in that many single-threaded processes.
        storage: A database URL for the runs instead of a file in ``output``, as Optuna takes it.
        settings: What else the numbers depend on and the source of ``fit`` does not show, such as the
            version of the data.
        progress: Whether to show progress.

    Returns:
        The numbers; printed, the answer.

    Raises:
        ValueError: naming the argument that is out of range, or what ``fit`` returned instead.

    Example:
        >>> from labelsmooth.study import DigitsFit, run
        >>> results = run(DigitsFit(rows=100, epochs=2), eps=[0.1], seeds=2, output=folder, progress=False)
        >>> [arm.eps for arm in results.settings[0].arms]
        [0.0, 0.1]
    """
    arms = _check_arms(eps)
    if seeds < 2:
        raise ValueError(f"seeds must be at least 2, got {seeds}")
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    fits = fit if isinstance(fit, Mapping) else {"your data": fit}
    if not fits:
        raise ValueError("fit must name at least one fit, got none")
    if len({slug(name) for name in fits} - {""}) < len(fits):
        raise ValueError(f"fit must have names that differ in letters or digits, got {', '.join(fits)}")
    folder = Path(output)
    ledgers = {name: Ledger(folder, name, f, settings or {}, storage) for name, f in fits.items()}
    digest = " ".join([*(ledger.digest for ledger in ledgers.values()), *map(str, arms), str(seeds)])
    if results := _finished(folder, digest):
        return results
    jobs = [(name, Job(e, seed)) for seed in range(seeds) for name in fits for e in arms]
    done = {(name, job) for name, ledger in ledgers.items() for job in ledger.done()}
    todo = [job for job in jobs if job not in done]
    with Progress(list(fits), arms, seeds, shown=progress) as shown:
        for name, job in jobs:
            if (name, job) in done:
                shown.update(name, job, _summarise_run(load(ledgers[name].path(job))))
        _train_all(fits, ledgers, todo, workers, shown)

    summaries = []
    outcomes: dict[str, dict[Job, Outcome]] = {}
    for name, f in fits.items():
        outcomes[name] = {job: load(ledgers[name].path(job)) for n, job in jobs if n == name}
        _check_same_rows(name, outcomes[name])
        summaries.append(summarise(name, getattr(f, "description", ""), outcomes[name], arms, range(seeds)))
    results = Results(summaries, digest, folder)
    for setting in summaries:
        arm = recommended(setting)
        job = Job(arm.eps, arm.best_seed)
        outcome = outcomes[setting.name][job]
        save_model(folder, setting.name, job, outcome, fit_temperature(*outcome.val), fits[setting.name])

    from labelsmooth.study.report import write_report  # matplotlib is slow to import, and not always needed

    write_report(results, outcomes)
    results.save()
    return results


def _check_arms(eps: Sequence[float]) -> list[float]:
    for e in eps:
        check_strength("eps", e)
    arms = sorted({float(e) for e in eps} - {0.0})
    if not arms:
        raise ValueError(f"eps must hold at least one smoothing above 0, got {list(eps)}")
    return [0.0, *arms]


def _finished(folder: Path, digest: str) -> Results | None:
    if not (folder / "results.json").exists() or not (folder / "report.html").exists():
        return None
    results = Results.load(folder)
    return results if results.digest == digest else None


def _train_all(
    fits: Mapping[str, Fit],
    ledgers: Mapping[str, Ledger],
    todo: Sequence[tuple[str, Job]],
    workers: int | None,
    shown: Progress,
) -> None:
    running = {}

    def started() -> Iterator:
        for name, job in todo:
            running[name, job] = ledgers[name].start(job)
            yield joblib.delayed(_train)(name, fits[name], job, ledgers[name].path(job), workers is not None)

    parallel = joblib.Parallel(n_jobs=workers or 1, return_as="generator_unordered", pre_dispatch="n_jobs")
    try:
        with joblib.parallel_config(backend="loky", inner_max_num_threads=1), _deaf_workers():
            trained = cast("Generator[tuple[str, Job, Summary]]", parallel(started()))
        with _closing(trained):
            for name, job, summary in trained:
                ledgers[name].finish(running.pop((name, job)), summary.validation_nll)
                shown.update(name, job, summary)
    finally:
        for (name, _), trial in running.items():
            ledgers[name].give_up(trial)


@contextmanager
def _deaf_workers() -> Iterator[None]:
    """Processes started in here do not hear Ctrl-C: this one does, and stops them, and they print nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _closing(generator: Generator[object]) -> Iterator[None]:
    """Stop what is still running at the end, and spare the reader joblib's warning that it was."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generator.close()


def _train(name: str, fit: Fit, job: Job, path: Path, single_threaded: bool) -> tuple[str, Job, Summary]:
    with _seeded(job.seed, single_threaded):
        result = fit(CrossEntropyLoss(label_smoothing=job.eps), job.seed)
    _check_result(name, result)
    save(path, result)
    return name, job, _summarise_run(load(path))


def _summarise_run(run: Outcome) -> Summary:
    temperature = fit_temperature(*run.val)
    nll = torch.nn.functional.cross_entropy(run.val[0] / temperature, run.val[1])
    return Summary(validation_nll=float(nll), test_accuracy=accuracy(*run.test))


@contextmanager
def _seeded(seed: int, single_threaded: bool) -> Iterator[None]:
    """Seed every common generator, and put them and torch's threads back afterwards."""
    threads, old, older = torch.get_num_threads(), random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        if single_threaded:
            torch.set_num_threads(1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002, a fit may use the old generator
            random.seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(old)
        np.random.set_state(older)  # noqa: NPY002


def _check_result(name: str, result: FitResult) -> None:
    form = 'fit must return {"val": (logits, labels), "test": (logits, labels)}'
    if not isinstance(result, Mapping):
        raise ValueError(f"{name}: {form}, got {type(result).__name__}")
    if missing := {"val", "test"} - result.keys():
        raise ValueError(f"{name}: {form}, got no {' and no '.join(sorted(missing))}")
    for split in ("val", "test", "train"):
        if (pair := result.get(split)) is None:
            continue
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not is_pair or not all(isinstance(t, torch.Tensor) for t in pair):
            raise ValueError(f"{name}: {form}, got {type(pair).__name__} for {split!r}")
        try:
            check_logits(*pair)
        except ValueError as error:
            raise ValueError(f"{name}: fit's {split!r}: {error}") from None
        if not bool(pair[0].isfinite().all()):
            raise ValueError(
                f"{name}: fit's {split!r}: logits must be finite, got {pair[0][~pair[0].isfinite()][0]}"
            )
    _check_extras(name, result)


def _check_extras(name: str, result: FitResult) -> None:
    """What a fit may return besides."""
    rows, num_classes = result["test"][0].shape
    train = result.get("train")
    shapes: dict[str, tuple[int | None, ...]] = {"features": (rows, None), "head": (num_classes, None)}
    if train is not None:
        shapes["clean"] = tuple(train[1].shape)
    for key, shape in shapes.items():
        if (value := result.get(key)) is None:
            continue
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else None
        if got is None or len(got) != len(shape) or got[0] != shape[0]:
            form = str(shape).replace("None", "D")
            raise ValueError(
                f"{name}: fit's {key!r} must be a tensor of shape {form}, got {got or type(value).__name__}"
            )
    features, head = result.get("features"), result.get("head")
    if features is not None and head is not None and features.size(1) != head.size(1):
        raise ValueError(
            f"{name}: fit's 'features' and 'head' must agree in D, got {features.size(1)} and {head.size(1)}"
        )
    history, state = result.get("history", {}), result.get("state", {})
    if not isinstance(history, Mapping) or not all(
        isinstance(curve, list | tuple) and all(isinstance(x, int | float) for x in curve)
        for curve in history.values()
    ):
        raise ValueError(f"{name}: fit's 'history' must hold lists of Python numbers by name")
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError(f"{name}: fit's 'state' must hold tensors by name, as a state_dict does")


def _check_same_rows(name: str, outcomes: Mapping[Job, Outcome]) -> None:
    first, *others = outcomes.values()
    for split in ("val", "test"):
        if any(not torch.equal(getattr(first, split)[1], getattr(o, split)[1]) for o in others):
            raise ValueError(f"{name}: fit must return the same {split!r} labels in every call")
    classes = sorted({logits.size(1) for o in outcomes.values() for logits, _ in (o.val, o.test)})
    if len(classes) > 1:
        raise ValueError(f"{name}: fit must return logits of the same K classes in every call, got {classes}")
