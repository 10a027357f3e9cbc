"""Compare given predictions of several arms, paired by run and by test row."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.summary import analyse
from labelsmooth.study.arguments import check_care, check_output
from labelsmooth.study.fits.checks import as_result
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.trials.files import Job, Outcome
from labelsmooth.study.trials.record import FILE

Given = FitResult | Mapping[str, Any]


def compare(
    arms: Mapping[str, Sequence[Given]],
    *,
    care: str = "overall",
    ordinal: bool = False,
    class_names: Sequence[str] | None = None,
    test_rows: Sequence[str | bytes] | None = None,
    output: str | Path | None = None,
    name: str = "your data",
) -> Results:
    """Judge given predictions as :func:`labelsmooth.study.run` judges the runs that it trains.

    Args:
        arms: The runs of each arm by its name, one for each seed, in the same order of seeds, as described by
            :class:`labelsmooth.study.FitResult`. The first arm is the baseline. ``"test"`` holds the same
            rows in the same order in every run. Without ``"val"`` no temperature is fitted, and the best arm
            on the test rows is judged. A name as in a study, such as ``"hard"`` or ``"ls:eps=0.1"``, also
            describes the training target of the arm; other names have no meaning.
        care: The metrics that judge an arm: ``"overall"`` (accuracy, and NLL after temperature),
            ``"accuracy"``, ``"calibration"``, ``"ranking"``, ``"selective"``, ``"ordinal"`` or ``"ood"``.
        ordinal: Whether the classes are ordered.
        class_names: The names of the classes in the report, K strings.
        test_rows: A text, or the bytes of a PNG, for each test row in the report.
        output: The folder for ``report.html`` and ``results.json``; None writes nothing.
        name: The name of the data.

    Returns:
        The results; ``print`` shows the answer. ``results.settings[0].arms[i].differences[metric]`` has
        ``mean``, ``low`` and ``high``.

    Raises:
        ValueError: if there are fewer than two arms, the arms differ in their number of runs, runs differ in
            their labels or classes, or logits are invalid. The message names the arm and the run.

    Example:
        >>> labels = torch.arange(60) % 3
        >>> sure = 4.0 * torch.nn.functional.one_hot(labels, 3)
        >>> guess = torch.zeros(60, 3)
        >>> results = compare({"guess": [{"test": (guess, labels)}], "sure": [{"test": (sure, labels)}]})
        >>> round(results.settings[0].arms[1].differences["accuracy"].mean, 3)
        0.667
    """
    check_care(care)
    folder = None if output is None else check_output(output)
    if folder is not None and (folder / FILE).exists():
        raise ValueError(
            f"output must be another folder than that of a study, got {str(output)!r} with a study's results"
        )
    outcomes, seeds = _outcomes(arms)
    num_classes = outcomes[Job(next(iter(arms)), 0)].test[0].size(1)
    names = _names(class_names, num_classes)
    analysis = analyse(
        name, "", outcomes, list(arms), range(seeds), class_names=names, care=care, ordinal=ordinal
    )
    results = Results([analysis.setting], "", folder)
    if folder is not None:
        from labelsmooth.study.report.page import write_report  # matplotlib is slow to import

        folder.mkdir(parents=True, exist_ok=True)
        write_report(results, [analysis], {name: outcomes}, None, {name: test_rows or ()})
        results.save()
    return results


def _outcomes(arms: Mapping[str, Sequence[Given]]) -> tuple[dict[Job, Outcome], int]:
    """The runs as tensors, and the number of runs of each arm."""
    if not isinstance(arms, Mapping) or len(arms) < 2:
        raise ValueError(
            "arms must map the names of two or more arms to their runs, the baseline first, got "
            f"{list(arms) if isinstance(arms, Mapping) else type(arms).__name__}"
        )
    baseline, *_ = arms
    outcomes: dict[Job, Outcome] = {}
    for arm, runs in arms.items():
        if not isinstance(arm, str) or not arm:
            raise ValueError(f"arms must have names, got {arm!r}")
        if isinstance(runs, Mapping) or not isinstance(runs, Sequence) or not runs:
            raise ValueError(
                f"{arm}: must be a list with one result for each seed, got "
                f"{'none' if isinstance(runs, Sequence) else type(runs).__name__}"
            )
        if len(runs) != len(arms[baseline]):
            raise ValueError(
                f"{arm}: must have a run for each of the {len(arms[baseline])} runs of {baseline}, "
                f"which it is paired with, got {len(runs)}"
            )
        for seed, run in enumerate(runs):
            job = Job(arm, seed)
            outcomes[job] = Outcome.of(as_result(_called(job), run, needed=("test",)))
            _check_same(job, outcomes[job], Job(baseline, 0), outcomes[Job(baseline, 0)])
    return outcomes, len(arms[baseline])


def _check_same(job: Job, run: Outcome, first_job: Job, first: Outcome) -> None:
    """Raise a ``ValueError`` unless two runs have the same classes and labels."""
    for split, (mine, others) in {"val": (run.val, first.val), "test": (run.test, first.test)}.items():
        if (mine is None) != (others is None):
            without = job if mine is None else first_job
            raise ValueError(f"{_called(without)}: must have 'val' like the other runs: give all or none")
        if mine is None or others is None:
            continue
        if mine[0].shape != others[0].shape:
            raise ValueError(
                f"{_called(job)}: must have the rows and classes of {_called(first_job)}, got {split} logits "
                f"{tuple(mine[0].shape)} and {tuple(others[0].shape)}"
            )
        if not torch.equal(mine[1], others[1]):
            row = int((mine[1] != others[1]).nonzero()[0])
            raise ValueError(
                f"{_called(job)}: must have the rows of {_called(first_job)} in the same order, got label "
                f"{int(mine[1][row])} instead of {int(others[1][row])} in {split} row {row}"
            )


def _called(job: Job) -> str:
    return f"{job.arm}, run {job.seed}"


def _names(class_names: Sequence[str] | None, num_classes: int) -> list[str] | None:
    if class_names is None:
        return None
    names = list(class_names)
    if (
        isinstance(class_names, str)
        or len(names) != num_classes
        or not all(isinstance(n, str) for n in names)
    ):
        raise ValueError(
            f"class_names must be {num_classes} strings, one for each class, got {class_names!r}"
        )
    return names
