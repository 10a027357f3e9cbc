"""Run a study: every arm with every seed, in pairs, and the comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import summarise
from labelsmooth.study.analysis.verdict import recommended
from labelsmooth.study.arguments import check_arguments
from labelsmooth.study.arms.specs import left_out
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.report.progress import Progress, say
from labelsmooth.study.trials.files import Job, Outcome, load, save_model
from labelsmooth.study.trials.ledger import Ledger
from labelsmooth.study.trials.loop import Training
from labelsmooth.study.trials.ranks import are_together, lead_or_follow


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
    progress: bool = True,
) -> Results:
    """Train with hard and with smoothed targets, paired by seed, and tell whether smoothing helps.

    What is done is kept in ``output``: called again, the study goes on where it stopped, and one that is
    complete is read back. Runs of another fit, or other settings, are never mixed in.

    Started several times at once, on one machine or on many, it shares the work: each run is trained by one
    process, what a dead process had begun is taken over, and all of them report when the last run is done.
    Many machines need a database server (``storage``) and an ``output`` that all of them see.

    Where each run takes several processes, as ``torchrun`` starts them, each makes the process group and then
    calls this function: all take part in every run, and what the first returns is kept.

    A seed with which a fit raises, or its process is killed twice, is left out
    (``Results.settings[...].left_out``), and tried again by the next call.

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
        seeds: Number of pairs, at least 2.
        output: For the runs, ``results.json``, ``report.html`` and the recommended models. Machines that
            share a study need one on a file system that they share: the database holds no tensors.
        workers: None trains in this process; a number, in that many single-threaded processes.
        storage: A database URL, as Optuna takes it, instead of a file in ``output``: who trains what. Many
            machines need a server, ``"postgresql+psycopg://user@host/name"``; a process that shows no sign of
            life there for a minute is taken for dead.
        settings: What else the numbers depend on and the source of ``fit`` does not show, such as the
            version of the data.
        progress: Whether to show progress.

    Returns:
        The numbers; printed, the answer.

    Raises:
        ValueError: naming the argument that is out of range, the arm that cannot be read or that needs what
            a fit does not know, or what ``fit`` returned, or did not call, instead.
        OSError: naming the file that could not be written, or the run whose process was killed twice.
        Exception: what ``fit`` raised, once fewer than 2 seeds are left.

    Example:
        >>> from labelsmooth.study import DigitsFit, run
        >>> results = run(DigitsFit(rows=100, epochs=2), eps=[0.1], seeds=2, output=folder, progress=False)
        >>> [arm.name for arm in results.settings[0].arms]
        ['hard', 'ls:eps=0.1']
    """
    if str(output) == "":
        raise ValueError("output must name a folder, got ''")
    fits = fit if isinstance(fit, Mapping) else {"your data": fit}
    compared = check_arguments(fits, arms, eps, seeds, workers)
    if workers is not None and are_together():
        raise ValueError(f"workers must be None where processes train together, got {workers}")

    def study() -> Results:
        return _study(fits, compared, arms, seeds, Path(output), workers, storage, settings or {}, progress)

    return lead_or_follow(fits, study)


def _study(
    fits: Mapping[str, Fit],
    compared: Sequence[str],
    arms: Sequence[str] | None,
    seeds: int,
    folder: Path,
    workers: int | None,
    storage: str | None,
    settings: Mapping[str, object],
    progress: bool,
) -> Results:
    ledgers = {name: Ledger(folder, name, f, settings, storage) for name, f in fits.items()}
    digest = " ".join([*(ledger.digest for ledger in ledgers.values()), *compared, str(seeds)])
    if results := _finished(folder, digest):
        say(f"read back from {folder}, nothing was trained", shown=progress)
        return results
    if arms is not None and "all" in arms:
        for arm, why in left_out(fits).items():
            say(f"{arm} is left out: {why}", shown=progress)
    jobs = [Job(arm, seed) for seed in range(seeds) for arm in compared]
    with Progress(fits, compared, len(jobs), shown=progress) as shown:
        training = Training(fits, ledgers, jobs, shown)
        training.run(workers)

    outcomes: dict[str, dict[Job, Outcome]] = {}
    summaries = []
    for name, f in fits.items():
        failed = training.left_out(name)
        kept = [seed for seed in range(seeds) if seed not in failed]
        outcomes[name] = {job: load(ledgers[name].path(job)) for job in jobs if job.seed in kept}
        setting = summarise(name, getattr(f, "description", ""), outcomes[name], compared, kept)
        summaries.append(replace(setting, left_out={str(seed): why for seed, why in failed.items()}))
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
    """The results, if there are any, whole and of this very study, with all its seeds."""
    try:
        results = Results.load(folder)
        written = (folder / "report.html").stat().st_size > 0
    except (OSError, ValueError, LookupError, TypeError):  # damaged, or of another version: made again
        return None
    whole = written and not any(setting.left_out for setting in results.settings)
    return results if whole and results.digest == digest else None
