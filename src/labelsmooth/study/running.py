"""Run a study: train every arm with every seed, and compare the paired runs."""

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

UNFINISHED = " (unfinished)"  # the suffix of the digest of an unfinished study


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
    """Train with hard and with smoothed targets, paired by seed, and judge whether smoothing helps.

    Finished runs are saved in ``output``. When called again, an interrupted study continues, and a complete
    one is read back. Runs of another fit or other settings are never reused.

    Args:
        fit: A function that trains one model:
            ``fit(criterion, seed) -> {"val": (logits, labels), "test": (logits, labels)}``. Logits are
            ``(N, K)``, labels ``(N,)``, and the rows must be the same in every call;
            :class:`labelsmooth.study.FitResult` lists optional entries. All randomness must come from
            ``seed``, or from torch's, NumPy's and Python's generators, which the study seeds before each
            call. A mapping of several fits compares each in its own setting. A fit calls
            ``criterion.end_epoch()`` after each epoch, for arms that change over time. Some arms need
            attributes of the fit: ``num_classes``, ``epochs`` (the number of calls of ``end_epoch()``),
            ``counts`` (training rows of each class, ``(K,)``) and ``embeddings`` (a vector for each class,
            ``(K, D)``). The report uses the attributes ``class_names``, K strings, and ``test_rows``, a text
            or the bytes of a PNG for each test row.
        eps: The smoothings to compare with hard targets, each in ``(0, 1]``. None is 0.05, 0.1 and 0.2, or
            none if ``arms`` are given.
        arms: Other methods to compare, each as ``"name"`` or ``"name:option=value,option=value"``:
            ``["maxsup:eps=0.2", "ols"]``; ``["all"]`` is every arm that the fits support. The command
            ``labelsmooth arms`` lists them.
        seeds: The number of pairs, at least 2; 5 or more are advised.
        output: The folder for the runs, ``results.json``, ``report.html`` and the recommended models.
            Machines that share a study need it on a shared file system, since the database holds no tensors.
        workers: The number of single-threaded training processes. None trains in this process.
        storage: The database URL, as in Optuna, that records which process trains which run, instead of a
            file in ``output``. Several machines need a server, ``"postgresql+psycopg://user@host/name"``; a
            process without a heartbeat for a minute is considered dead.
        settings: Anything else that the results depend on, such as the version of files that ``fit`` reads.
        key: A name for this version of ``fit``, or a mapping with a name for each fit. None recognises a fit
            by its content: its code without comments, its default arguments and fields, and every object that
            it refers to, through your own modules; installed packages are recognised by their version. A list
            that the fit writes to is part of its content. If an object cannot be compared, such as an open
            file, the study asks for a key. The key and ``settings`` then identify the runs: change the key
            when the fit changes.
        care: The metrics that judge an arm: ``"overall"`` (accuracy, and NLL after temperature),
            ``"accuracy"``, ``"calibration"``, ``"ranking"``, ``"selective"``, ``"ordinal"`` (for a fit with
            the attribute ``ordinal = True``) or ``"ood"`` (for a fit that returns ``"ood"``).
        extend: Whether to add the next tenth to ``eps``, up to 0.9, as long as validation chooses the largest
            smoothing; all settings get the additional arms. None extends if none of ``eps``, ``arms`` and
            ``search`` is given.
        search: The number of option values to try for each of the ``arms``, or for ``"ls"`` without arms;
            given options are fixed. Optuna suggests the values by the validation NLL at T of two runs with
            separate seeds; the best in each setting joins the comparison with all seeds.
        check_deterministic: Whether to train hard targets with seed 0 twice at the start, and to warn unless
            both give bitwise equal logits.
        progress: Whether to show progress.

    Returns:
        The results; ``print`` shows the answer.

    Warns:
        UserWarning: if there are only 2 seeds, or if the validation rows are few, of a single class, or equal
            to the test rows.

    Raises:
        ValueError: if an argument is out of range, an arm is invalid or needs a missing attribute of a fit,
            or ``fit`` returns something else or never calls the criterion; if a fit cannot be recognised,
            its rows differ between calls, or its logits do not depend on the criterion.
        OSError: if a file cannot be written, or the process of a run was killed twice.
        Exception: the error of ``fit``, once fewer than 2 seeds are left.

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
        raise ValueError("check_deterministic must be False if several processes train each run, got True")
    rows = {name: kept for name, fit in asked.fits.items() if (kept := rows_of(name, fit))}

    def study() -> Results:
        ledgers = asked.ledgers()
        digest = asked.digest(ledgers)
        if seeds < FEW_SEEDS:
            warn(f"seeds={seeds}: intervals from {seeds} pairs are very wide; 5 or more are advised")
        for name, ledger in ledgers.items():
            if why := ledger.why_anew():
                say(f"{name}: training again, since {why}", shown=progress)
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
            stop.add_note(f"finished runs are saved in {asked.folder}: the same call continues")
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
    """Save the texts or images of a setting's test rows beside its runs."""
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
    """The saved results if they are complete and belong to this study with all its seeds, else None."""
    try:
        results = Results.load(folder)
        Record.load(folder)
        written = (folder / "report.html").stat().st_size > 0
    except (OSError, ValueError, LookupError, TypeError):  # damaged or of another version: computed again
        return None
    whole = written and not any(setting.left_out for setting in results.settings)
    return results if whole and results.digest == digest else None
