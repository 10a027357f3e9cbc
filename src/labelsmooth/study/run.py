"""Run a study: every arm with every seed, in pairs, and the comparison."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import joblib

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import summarise
from labelsmooth.study.analysis.verdict import recommended
from labelsmooth.study.arguments import check_arguments, check_keys
from labelsmooth.study.arms.specs import left_out
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.report.progress import Progress, say
from labelsmooth.study.trials.files import Job, load, save_model
from labelsmooth.study.trials.ledger import Ledger
from labelsmooth.study.trials.training import Summary, summarise_run, train
from labelsmooth.study.trials.watch import Watch, first_jobs, same_logits, warn
from labelsmooth.study.trials.workers import closing, deaf_workers

FEW_SEEDS = 3


def run(
    fit: Fit | Mapping[str, Fit],
    *,
    eps: Sequence[float] | None = None,
    arms: Sequence[str] | None = None,
    seeds: int = 5,
    output: str | Path = "labelsmooth-study",
    workers: int | None = None,
    storage: str | None = None,
    settings: Mapping[str, object] | None = None,
    key: str | Mapping[str, str] | None = None,
    check_deterministic: bool = False,
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
            by name are compared each in its own setting. After each epoch a fit calls
            ``criterion.end_epoch()``; arms that change with time need it. Some arms need to know more of a
            fit: its attributes ``num_classes``, ``epochs`` (how often it calls ``end_epoch()``), ``counts``
            (training rows of each class, ``(K,)``) and ``embeddings`` (a vector for each class, ``(K, D)``).
        eps: The smoothings to compare with hard targets, each in ``(0, 1]``; None is 0.05, 0.1 and 0.2,
            unless ``arms`` are given.
        arms: Other methods to compare, each as ``"name"`` or ``"name:option=value,option=value"``:
            ``["maxsup:eps=0.2", "ols"]``; ``["all"]`` is every one that the fits can serve. The command
            ``labelsmooth arms`` lists them.
        seeds: Number of pairs, at least 2; 5 or more tell something.
        output: The folder for the runs, ``results.json``, ``report.html`` and the recommended models.
        workers: None trains in this process; a number, in that many single-threaded processes.
        storage: A database URL for the runs instead of a file in ``output``, as Optuna takes it.
        settings: What else the numbers depend on and ``fit`` does not show, such as the version of files that
            it reads.
        key: A name for this version of ``fit``, or of each fit by its name. None recognises a fit by its
            content: its code, in which comments do not show, its arguments' defaults and fields, and all that
            it refers to, through modules of your own; of installed packages the version counts, and a list
            that it writes to is part of it as well. Where that cannot be compared, as of an open file, the
            study asks for a key. With ``settings``, the key alone then says which runs are those of this fit:
            give another when the fit changes.
        check_deterministic: Whether to train hard targets with seed 0 once more at the start, and to warn
            unless it gives the same logits to the bit.
        progress: Whether to show progress.

    Returns:
        The numbers; printed, the answer.

    Warns:
        UserWarning: if there are 2 seeds alone, or the validation rows are few, of one class, or the test
            rows once more.

    Raises:
        ValueError: naming the argument that is out of range, the arm that cannot be read or that needs what
            a fit does not know, or what ``fit`` returned, or did not call, instead; if a fit cannot be
            recognised, its rows differ between calls, or its logits are the same whatever the criterion.

    Example:
        >>> from labelsmooth.study import DigitsFit, run
        >>> results = run(DigitsFit(rows=100, epochs=2), eps=[0.1], seeds=3, output=folder, progress=False)
        >>> [arm.name for arm in results.settings[0].arms]
        ['hard', 'ls:eps=0.1']
    """
    fits = fit if isinstance(fit, Mapping) else {"your data": fit}
    compared = check_arguments(fits, arms, eps, seeds, workers)
    keys = check_keys(key, fits)
    folder = Path(output)
    ledgers = {
        name: Ledger(folder, name, f, settings or {}, storage, keys.get(name)) for name, f in fits.items()
    }
    digest = " ".join([*(ledger.digest for ledger in ledgers.values()), *compared, str(seeds)])
    jobs = first_jobs([Job(arm, seed) for seed in range(seeds) for arm in compared])
    if seeds < FEW_SEEDS:
        warn(f"seeds={seeds}: intervals from {seeds} pairs are very wide; 5 or more are advised")
    for name, ledger in ledgers.items():
        if why := ledger.why_anew():
            say(f"{name}: trained again, since {why}", shown=progress)
    if check_deterministic:
        _check_deterministic(fits, ledgers, jobs[0], workers is not None, progress)
    if results := _finished(folder, digest):
        say(f"read back from {folder}, nothing was trained", shown=progress)
        return results
    if arms is not None and "all" in arms:
        for arm, why in left_out(fits).items():
            say(f"{arm} is left out: {why}", shown=progress)
    _train_all(fits, ledgers, jobs, workers, progress)

    outcomes = {name: {job: load(ledger.path(job)) for job in jobs} for name, ledger in ledgers.items()}
    summaries = [
        summarise(name, getattr(f, "description", ""), outcomes[name], compared, range(seeds))
        for name, f in fits.items()
    ]
    results = Results(summaries, digest, folder)
    for setting in summaries:
        arm = recommended(setting)
        job = Job(arm.name, arm.best_seed)
        save_model(folder, setting.name, job, outcomes[setting.name][job], fits[setting.name])

    from labelsmooth.study.report.page import (
        write_report,  # matplotlib is slow to import, and not always needed
    )

    write_report(results, outcomes)
    results.save()
    return results


def _finished(folder: Path, digest: str) -> Results | None:
    if not (folder / "results.json").exists() or not (folder / "report.html").exists():
        return None
    try:
        results = Results.load(folder)
    except (ValueError, LookupError, TypeError):  # damaged, or of another version: made again from the runs
        return None
    return results if results.digest == digest else None


def _check_deterministic(
    fits: Mapping[str, Fit], ledgers: Mapping[str, Ledger], job: Job, single_threaded: bool, progress: bool
) -> None:
    """Train one job of every setting twice, and keep the first of the two."""
    for name, fit in fits.items():
        ledger = ledgers[name]
        if job not in ledger.done():
            trial = ledger.start(job)
            try:
                *_, summary = train(name, fit, job, ledger.path(job), single_threaded)
            except BaseException:
                ledger.give_up(trial)
                raise
            ledger.finish(trial, summary.validation_nll)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "again.safetensors"
            train(name, fit, job, path, single_threaded)
            same = same_logits(load(ledger.path(job)), load(path))
        what = f"{name}: {job.arm} with seed {job.seed}, trained once more, gave"
        if same:
            say(f"{what} the same logits to the bit", shown=progress)
        else:
            warn(
                f"{what} other logits, so that a pair differs in more than its arm: let all that is random "
                "follow from seed, and see torch.use_deterministic_algorithms"
            )


def _train_all(
    fits: Mapping[str, Fit],
    ledgers: Mapping[str, Ledger],
    jobs: Sequence[Job],
    workers: int | None,
    progress: bool,
) -> None:
    """Train what is not done yet, every setting's first seed first."""
    every = [(name, job) for job in jobs for name in fits]
    done = {(name, job) for name, ledger in ledgers.items() for job in ledger.done()}
    running = {}
    rows: dict[str, str] = {}
    watch = Watch(jobs[0].arm)

    def started() -> Iterator:
        for name, job in every:
            if (name, job) not in done:
                running[name, job] = ledgers[name].start(job)
                path = ledgers[name].path(job)
                yield joblib.delayed(train)(name, fits[name], job, path, workers is not None)

    def finished(name: str, job: Job, summary: Summary) -> None:
        if rows.setdefault(name, summary.rows) != summary.rows:
            raise ValueError(
                f"{name}: fit must return the same 'val' and 'test' labels, and K, in every call"
            )
        watch.see(name, job, ledgers[name].path(job))
        shown.update(name, job, summary)

    parallel = joblib.Parallel(n_jobs=workers or 1, return_as="generator_unordered", pre_dispatch="n_jobs")
    try:
        with Progress(fits, list(dict.fromkeys(job.arm for job in jobs)), len(jobs), shown=progress) as shown:
            for name, job in every:
                if (name, job) in done:
                    finished(name, job, summarise_run(load(ledgers[name].path(job))))
            with joblib.parallel_config(backend="loky", inner_max_num_threads=1), deaf_workers():
                trained = cast("Generator[tuple[str, Job, Summary]]", parallel(started()))
            with closing(trained):
                for name, job, summary in trained:
                    ledgers[name].finish(running.pop((name, job)), summary.validation_nll)
                    finished(name, job, summary)
    finally:
        for (name, _), trial in running.items():
            ledgers[name].give_up(trial)
