"""Results and report from the saved runs of a study, without its fits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis, analyse
from labelsmooth.study.trials.files import Stored
from labelsmooth.study.trials.record import Kept, Record

PAIRS = 2  # the minimum for an interval


@dataclass(frozen=True)
class Conclusion:
    """The results of the runs, before they are written."""

    results: Results
    analyses: list[Analysis]
    stored: Mapping[str, Stored]
    seconds: float
    rows: Mapping[str, Sequence[str | bytes]]  # the texts or images of a setting's test rows

    def write(self) -> None:
        from labelsmooth.study.report.page import write_report  # matplotlib is slow to import

        write_report(self.results, self.analyses, self.stored, self.seconds, self.rows)
        self.results.save()


def conclude(record: Record, folder: Path) -> Conclusion:
    stored = {kept.name: kept.stored(folder) for kept in record.settings}
    for kept in record.settings:
        if (pairs := len({job.seed for job in stored[kept.name]})) < PAIRS:
            raise ValueError(
                f"folder must hold {PAIRS} seeds with runs of every arm, got {pairs} of "
                f"{kept.name!r} in {folder}"
            )
    analyses = [_analysed(kept, stored[kept.name], record.care) for kept in record.settings]
    results = Results([analysis.setting for analysis in analyses], record.digest, folder)
    rows = {kept.name: kept.rows(folder) for kept in record.settings}
    return Conclusion(results, analyses, stored, record.seconds, rows)


def reopen(folder: str | Path) -> Results:
    """Write ``results.json`` and ``report.html`` of a study again from its folder.

    This trains nothing and needs neither the fit nor its data. For an interrupted study it uses the seeds
    with which every arm was trained.

    Args:
        folder: The ``output`` of a study.

    Returns:
        The results; ``print`` shows the answer.

    Raises:
        ValueError: if the folder is not that of a study, a file is damaged, or fewer than 2 seeds are
            finished.

    Example:
        >>> from labelsmooth.study import DigitsFit, reopen, run
        >>> results = run(DigitsFit(rows=100, epochs=2), eps=[0.1], seeds=3, output=folder, progress=False)
        >>> reopen(folder) == results
        True
    """
    conclusion = conclude(Record.load(Path(folder)), Path(folder))
    conclusion.write()
    return conclusion.results


def _analysed(kept: Kept, stored: Stored, care: str) -> Analysis:
    seeds = sorted({job.seed for job in stored})
    analysis = analyse(
        kept.name,
        _described(kept),
        stored,
        kept.arms,
        seeds,
        kept.known,
        kept.class_names,
        care=care,
        ordinal=kept.ordinal,
    )
    left_out = {
        str(seed): kept.left_out.get(str(seed), "not finished") for seed in kept.seeds if seed not in seeds
    }
    return replace(analysis, setting=replace(analysis.setting, left_out=left_out))


def _described(kept: Kept) -> str:
    return "; ".join(filter(None, [kept.description, *kept.notes]))
