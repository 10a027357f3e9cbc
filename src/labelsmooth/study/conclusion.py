"""From finished runs to the results and the report, by what a study has kept: no fit is needed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import Analysis, analyse
from labelsmooth.study.trials.files import Stored
from labelsmooth.study.trials.record import Kept, Record

PAIRS = 2  # fewer say nothing


@dataclass(frozen=True)
class Conclusion:
    """What came of the runs, before it is written down."""

    results: Results
    analyses: list[Analysis]
    stored: Mapping[str, Stored]
    seconds: float
    rows: Mapping[str, Sequence[str | bytes]]  # what the test rows of a setting show

    def write(self) -> None:
        from labelsmooth.study.report.page import write_report  # matplotlib is slow to import

        write_report(self.results, self.analyses, self.stored, self.seconds, self.rows)
        self.results.save()


def conclude(record: Record, folder: Path) -> Conclusion:
    stored = {kept.name: kept.stored(folder) for kept in record.settings}
    for kept in record.settings:
        if (pairs := len({job.seed for job in stored[kept.name]})) < PAIRS:
            raise ValueError(
                f"folder must hold {PAIRS} seeds with which every arm is finished, got {pairs} of "
                f"{kept.name!r} in {folder}"
            )
    analyses = [_analysed(kept, stored[kept.name], record.care) for kept in record.settings]
    results = Results([analysis.setting for analysis in analyses], record.digest, folder)
    rows = {kept.name: kept.rows(folder) for kept in record.settings}
    return Conclusion(results, analyses, stored, record.seconds, rows)


def reopen(folder: str | Path) -> Results:
    """Make ``results.json`` and ``report.html`` of a study again from what is kept in its folder.

    Nothing is trained, and neither the fit nor its data are needed. Of a study that was interrupted, the
    seeds count that every arm was trained with.

    Args:
        folder: The ``output`` of a study.

    Returns:
        The numbers; printed, the answer.

    Raises:
        ValueError: if it is no folder of a study, a file is damaged, or fewer than 2 seeds are finished.

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
