"""Run a study: every arm with every seed, in pairs, and the comparison."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis, analyse
from labelsmooth.study.analysis.verdict import FEW_SEEDS, recommended
from labelsmooth.study.arguments import check_arguments, check_keys
from labelsmooth.study.arms.specs import facts_of, left_out
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.report.progress import Progress, say
from labelsmooth.study.trials.early import check_repeated, first_jobs, warn
from labelsmooth.study.trials.files import Job, Stored, save_model
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
            The report calls classes by its attribute ``class_names``, K strings.
        eps: The smoothings to compare with hard targets, each in ``(0, 1]``; None is 0.05, 0.1 and 0.2,
            unless ``arms`` are given.
        arms: Other methods to compare, each as ``"name"`` or ``"name:option=value,option=value"``:
            ``["maxsup:eps=0.2", "ols"]``; ``["all"]`` is every one that the fits can serve. The command
            ``labelsmooth arms`` lists them.
        seeds: Number of pairs, at least 2; 5 or more tell something.
        output: For the runs, ``results.json``, ``report.html`` and the recommended models. Machines that
            share a study need one on a file system that they share: the database holds no tensors.
        workers: None trains in this process; a number, in that many single-threaded processes.
        storage: A database URL, as Optuna takes it, instead of a file in ``output``: who trains what. Many
            machines need a server, ``"postgresql+psycopg://user@host/name"``; a process that shows no sign of
            life there for a minute is taken for dead.
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
        OSError: naming the file that could not be written, or the run whose process was killed twice.
        Exception: what ``fit`` raised, once fewer than 2 seeds are left.

    Example:
        >>> from labelsmooth.study import DigitsFit, run
        >>> results = run(DigitsFit(rows=100, epochs=2), eps=[0.1], seeds=3, output=folder, progress=False)
        >>> [arm.name for arm in results.settings[0].arms]
        ['hard', 'ls:eps=0.1']
    """
    if not isinstance(output, str | Path) or str(output) == "":
        raise ValueError(f"output must name a folder, got {output!r}")
    if settings is not None and not isinstance(settings, Mapping):
        raise ValueError(f"settings must be a mapping by name, got {settings!r}")
    fits = fit if isinstance(fit, Mapping) else {"your data": fit}
    compared = check_arguments(fits, arms, eps, seeds, workers)
    keys = check_keys(key, fits)
    folder = Path(output)
    if are_together():
        for name, asked in (("workers", workers), ("check_deterministic", check_deterministic)):
            if asked:
                raise ValueError(f"{name} must be left out where processes train together, got {asked}")

    def study() -> Results:
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
            for name, ledger in ledgers.items():
                if check_repeated(name, fits[name], ledger, jobs[0], single_threaded=workers is not None):
                    what = f"{name}: {jobs[0].arm} with seed {jobs[0].seed}, trained once more"
                    say(f"{what}, gave the same logits to the bit", shown=progress)
        if results := _finished(folder, digest):
            say(f"read back from {folder}, nothing was trained", shown=progress)
            return results
        if arms is not None and "all" in arms:
            for arm, why in left_out(fits).items():
                say(f"{arm} is left out: {why}", shown=progress)
        with Progress(fits, compared, len(jobs), shown=progress) as shown:
            training = Training(fits, ledgers, jobs, shown)
            try:
                training.run(workers)
            except KeyboardInterrupt as stop:
                stop.add_note(f"what is done is kept in {folder}: the same call goes on")
                raise
        say(f"all {len(jobs) * len(fits)} runs are done: comparing them, writing the report", shown=progress)
        failed = {name: training.left_out(name) for name in fits}
        stored = {
            name: Stored({job: ledger.path(job) for job in jobs if job.seed not in failed[name]})
            for name, ledger in ledgers.items()
        }
        analyses = [_analysed(name, fits[name], stored[name], compared, failed[name]) for name in fits]
        seconds = sum(ledger.seconds() for ledger in ledgers.values())
        return _concluded(fits, analyses, stored, digest, folder, seconds)

    return lead_or_follow(fits, study)


def _analysed(
    name: str, fit: Fit, stored: Stored, compared: Sequence[str], failed: Mapping[int, str]
) -> Analysis:
    analysis = analyse(
        name,
        getattr(fit, "description", ""),
        stored,
        compared,
        sorted({job.seed for job in stored}),
        facts_of(fit),
        getattr(fit, "class_names", None),
    )
    said = {str(seed): why for seed, why in failed.items()}
    return replace(analysis, setting=replace(analysis.setting, left_out=said))


def _concluded(
    fits: Mapping[str, Fit],
    analyses: Sequence[Analysis],
    stored: Mapping[str, Stored],
    digest: str,
    folder: Path,
    seconds: float,
) -> Results:
    """Write down what came of the runs: the numbers, the report, the recommended models."""
    results = Results([analysis.setting for analysis in analyses], digest, folder)
    for setting in results.settings:
        arm = recommended(setting)
        job = Job(arm.name, arm.best_seed)
        save_model(folder, setting.name, job, stored[setting.name][job], fits[setting.name])

    from labelsmooth.study.report.page import write_report  # matplotlib is slow to import, not always needed

    write_report(results, analyses, stored, seconds)
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
