"""Run a study: every arm with every seed, in pairs, and the comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import FEW_SEEDS, recommended
from labelsmooth.study.arguments import Asked, ask
from labelsmooth.study.arms.specs import left_out
from labelsmooth.study.conclusion import Conclusion, conclude
from labelsmooth.study.fits.result import Fit
from labelsmooth.study.report.progress import Progress, say
from labelsmooth.study.trials.course import Course
from labelsmooth.study.trials.early import check_repeated, warn
from labelsmooth.study.trials.files import Job, save_model
from labelsmooth.study.trials.ledger import Ledger
from labelsmooth.study.trials.loop import Training
from labelsmooth.study.trials.ranks import are_together, lead_or_follow
from labelsmooth.study.trials.record import Kept, Record, keep_rows, rows_of, said_of

UNFINISHED = " (unfinished)"  # what a digest ends with that is no study's


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
    care: str = "overall",
    extend: bool | None = None,
    search: int = 0,
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
            The report calls classes by its attribute ``class_names``, K strings, and shows rows by
            ``test_rows``, a text or the bytes of a PNG for each test row.
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
        care: What somebody cares about, and the arm is judged by: ``"overall"`` (accuracy, and NLL after
            temperature), ``"accuracy"``, ``"calibration"``, ``"ranking"``, ``"selective"``, ``"ordinal"`` (of
            a fit whose attribute ``ordinal`` is True) or ``"ood"`` (a fit that returns ``"ood"``).
        extend: Whether to go on with the next tenth of ``eps``, 0.9 at most, as long as the smoothing that
            validation chooses is the largest tried; a setting that needs it takes the others with it. None
            does so where neither ``eps`` nor ``arms`` nor ``search`` is given.
        search: How many values of its options to try for each of the ``arms``, for ``"ls"`` where there are
            none; options that are given stay. Optuna suggests them, by the validation NLL at T of two runs
            each, with seeds of their own; the best in each setting joins the comparison with all seeds.
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
    asked = ask(
        fit,
        eps=eps,
        arms=arms,
        seeds=seeds,
        output=output,
        workers=workers,
        storage=storage,
        settings=settings,
        key=key,
        care=care,
        extend=extend,
        search=search,
    )
    if are_together() and check_deterministic:
        raise ValueError("check_deterministic must be left out where processes train together, got True")
    rows = {name: kept for name, fit in asked.fits.items() if (kept := rows_of(name, fit))}

    def study() -> Results:
        ledgers = asked.ledgers()
        digest = asked.digest(ledgers)
        if seeds < FEW_SEEDS:
            warn(f"seeds={seeds}: intervals from {seeds} pairs are very wide; 5 or more are advised")
        for name, ledger in ledgers.items():
            if why := ledger.why_anew():
                say(f"{name}: trained again, since {why}", shown=progress)
        if check_deterministic:
            _check_deterministic(asked, ledgers, shown=progress)
        if results := _finished(asked.folder, digest):
            say(f"read back from {asked.folder}, nothing was trained", shown=progress)
            return results
        if arms is not None and "all" in arms:
            for arm, why in left_out(asked.fits).items():
                say(f"{arm} is left out: {why}", shown=progress)
        course = asked.course()
        _record(asked, ledgers, course, digest + UNFINISHED).save(asked.folder)
        training = _trained(asked, ledgers, course, shown=progress)
        say(f"all {len(training.scores)} runs are done: comparing them, writing the report", shown=progress)
        record = _record(asked, ledgers, course, digest, training)
        conclusion = conclude(record, asked.folder)
        for kept in record.settings:
            _keep_rows(asked.folder / kept.folder, kept.name, rows.get(kept.name), conclusion)
        _save_models(asked, conclusion)
        record.save(asked.folder)
        conclusion.write()
        return conclusion.results

    return lead_or_follow(asked.fits, study)


def _check_deterministic(asked: Asked, ledgers: Mapping[str, Ledger], *, shown: bool) -> None:
    job = asked.jobs[0]
    for name, ledger in ledgers.items():
        single = asked.workers is not None
        if check_repeated(name, asked.fits[name], ledger, job, single_threaded=single):
            what = f"{name}: {job.arm} with seed {job.seed}, trained once more"
            say(f"{what}, gave the same logits to the bit", shown=shown)


def _trained(asked: Asked, ledgers: Mapping[str, Ledger], course: Course, *, shown: bool) -> Training:
    epochs = {name: getattr(fit, "epochs", None) for name, fit in asked.fits.items()}
    jobs = asked.jobs
    with Progress(asked.fits, asked.arms, len(jobs), shown=shown, epochs=epochs, log=asked.folder) as seen:
        training = Training(asked.fits, ledgers, jobs, seen, ood=asked.care == "ood")
        try:
            training.run(asked.workers, course.further)
        except KeyboardInterrupt as stop:
            stop.add_note(f"what is done is kept in {asked.folder}: the same call goes on")
            raise
    return training


def _record(
    asked: Asked, ledgers: Mapping[str, Ledger], course: Course, digest: str, training: Training | None = None
) -> Record:
    settings = [
        Kept(
            name=name,
            folder=ledgers[name].folder.relative_to(asked.folder).as_posix(),
            arms=[*course.arms],
            seeds=[*range(asked.seeds)],
            left_out={str(seed): why for seed, why in training.left_out(name).items()} if training else {},
            notes=course.notes.get(name, []),
            **said_of(fit),
        )
        for name, fit in asked.fits.items()
    ]
    seconds = sum(ledger.seconds() for ledger in ledgers.values()) if training else 0.0
    return Record(digest, seconds, settings, asked.care)


def _keep_rows(folder: Path, name: str, rows: Mapping[str, object] | None, conclusion: Conclusion) -> None:
    """Beside the runs of a setting, what its test rows are."""
    (setting,) = (setting for setting in conclusion.results.settings if setting.name == name)
    if rows is None:
        return
    if rows["of"] != setting.test_rows:
        rule = f"test_rows must be one for each of the {setting.test_rows} test rows"
        warn(f"{name}: {rule}, got {rows['of']}: left out")
        return
    keep_rows(folder, rows)


def _save_models(asked: Asked, conclusion: Conclusion) -> None:
    for setting in conclusion.results.settings:
        arm = recommended(setting)
        job = Job(arm.name, arm.best_seed)
        outcome = conclusion.stored[setting.name][job]
        save_model(asked.folder, setting.name, job, outcome, asked.fits[setting.name])


def _finished(folder: Path, digest: str) -> Results | None:
    """The results, if there are any, whole and of this very study, with all its seeds."""
    try:
        results = Results.load(folder)
        Record.load(folder)
        written = (folder / "report.html").stat().st_size > 0
    except (OSError, ValueError, LookupError, TypeError):  # damaged, or of another version: made again
        return None
    whole = written and not any(setting.left_out for setting in results.settings)
    return results if whole and results.digest == digest else None
