"""Figures with intervals from training runs.

Every arm was trained with the same seeds and tested on the same rows, so the arms are compared in pairs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from labelsmooth.study.analysis.comparisons import adjust
from labelsmooth.study.analysis.figures import Arm, Difference, Estimate, Setting
from labelsmooth.study.analysis.intervals import crossed
from labelsmooth.study.analysis.measured import Run, Seen, measure
from labelsmooth.study.analysis.metrics import CARES, METRICS, as_trained
from labelsmooth.study.arms.specs import by_epoch, spelled_in_full
from labelsmooth.study.trials.files import Job, Outcome

ALIKE = 0.01  # arms are copies if their difference is below this share of their difference from hard targets


@dataclass(frozen=True)
class Analysis:
    """The figures of a setting, and the data of the report."""

    setting: Setting
    labels: Tensor  # of the test rows
    runs: Mapping[Job, Seen]

    def runs_of(self, arm: Arm) -> list[Seen]:
        return [run for job, run in self.runs.items() if job.arm == arm.name]


def analyse(
    name: str,
    description: str,
    outcomes: Mapping[Job, Outcome],
    arms: Sequence[str],
    seeds: Sequence[int],
    known: Mapping[str, object] | None = None,
    class_names: Sequence[str] | None = None,
    *,
    care: str = "overall",
    ordinal: bool = False,
) -> Analysis:
    """Compare each arm with the first, the baseline. Each outcome is read once.

    ``known`` are facts about the fit for the printed code; ``care`` is one of ``CARES``.

    Raises:
        ValueError: if the runs lack the inputs of the metrics of ``care``.
    """
    compared: list[Arm] = []
    seen: dict[Job, Seen] = {}
    hard: list[Run] = []
    values: dict[str, Tensor] = {}
    moved: dict[
        str, Tensor
    ] = {}  # for each arm except copies, the difference of each row's NLL from that of hard targets
    first = outcomes[Job(arms[0], seeds[0])]
    validation_rows = 0 if first.val is None else len(first.val[1])
    labels, num_classes = first.test[1], first.test[0].size(1)
    judged, by = (CARES[care].judged, CARES[care].by)
    if not validation_rows:
        judged, by = tuple(map(as_trained, judged)), as_trained(by)
    del first
    for arm in arms:
        runs, copied = [], None
        for seed in seeds:
            runs.append(run := measure(outcomes[Job(arm, seed)], by, ordinal=ordinal))
            seen[Job(arm, seed)] = run.seen
        if not hard:
            hard, values = runs, _stacked(runs)
            _check_known(name, care, judged, values)
        else:
            from_hard = [run.moved - other.moved for run, other in zip(runs, hard, strict=True)]
            distance = torch.stack(from_hard).mean(0)
            if (copied := _original(distance, moved)) is None:
                moved[arm] = distance
        facts = {"num_classes": num_classes, **(known or {})}
        compared.append(_arm(arm, runs, hard, values, seeds, labels, facts, copied, by))
    setting = Setting(
        name=name,
        description=description,
        seeds=len(seeds),
        test_rows=len(labels),
        validation_rows=validation_rows,
        num_classes=num_classes,
        flipped=hard[0].flipped,
        arms=compared,
        class_names=None if class_names is None else list(class_names),
        care=care,
        judged=judged,
        by=by,
    )
    return Analysis(adjust(setting), labels, seen)


def _arm(
    name: str,
    runs: Sequence[Run],
    hard: Sequence[Run],
    hard_values: Mapping[str, Tensor],
    seeds: Sequence[int],
    labels: Tensor,
    facts: Mapping[str, object],
    copied: str | None,
    by: str,
) -> Arm:
    spec = spelled_in_full(name)
    is_hard = runs is hard
    values = hard_values if is_hard else _stacked(runs)
    differences: dict[str, Difference] = {}
    if not is_hard:
        differences = {
            m: crossed(x - hard_values[m]).difference()
            for m, x in values.items()
            if m in hard_values and x.shape == hard_values[m].shape
        }
    estimates = {metric: _possible(crossed(x).estimate(), metric) for metric, x in values.items()}
    chosen_by = _mean([run.chosen_by for run in runs])
    temperature = _mean([run.seen.temperature and math.log(run.seen.temperature) for run in runs])
    validation = [run.validation_nll for run in runs]
    right, was_right = (torch.stack([run.right for run in several]) for several in (runs, hard))
    return Arm(
        name=name,
        chosen_by=estimates[by].mean if chosen_by is None else chosen_by,
        validation_nll=_mean(validation),
        temperature=None if temperature is None else math.exp(temperature),
        best_seed=seeds[min(range(len(seeds)), key=lambda i: validation[i] or 0.0)],
        validation_accuracy=_mean([run.validation_accuracy for run in runs]),
        code="" if spec is None else spec.loss.written(facts),
        by_epoch=spec is not None and not spec.loss.facts - facts.keys() and by_epoch(spec.loss(facts)),
        values=estimates,
        differences=differences,
        floors={m: fmean(run.floors[m] for run in runs) for m in runs[0].floors},
        copy_of=copied,
        recall=_by_class(right.mean(0), labels),
        gained=(right > was_right).double().sum(1).mean().item(),
        lost=(right < was_right).double().sum(1).mean().item(),
    )


def _check_known(name: str, care: str, judged: Sequence[str], values: Mapping[str, Tensor]) -> None:
    needs = {
        "ordinal": "ordinal labels (ordinal=True, --ordinal) of two classes or more",
        "ood": "the logits of out-of-distribution rows ('ood' of a fit, 'ood_logits' of a file)",
    }
    if missing := [METRICS[metric].short for metric in judged if metric not in values]:
        raise ValueError(
            f"{name}: care={care!r} judges by {' and '.join(missing)}, which requires "
            f"{needs.get(care, 'test rows of two classes or more')}"
        )


def _stacked(runs: Sequence[Run]) -> dict[str, Tensor]:
    """The values ``(seeds, rows)`` of each metric that every run has."""
    every = [run.values for run in runs]
    return {
        m: torch.stack([x[m] for x in every])
        for m, first in every[0].items()
        if all(m in x and x[m].shape == first.shape for x in every)
    }


def _possible(e: Estimate, metric: str) -> Estimate:
    """The interval of a share, limited to [0, 1]."""
    if METRICS[metric].unit != "%":
        return e
    return Estimate(e.mean, max(e.low, min(e.mean, 0.0)), min(e.high, max(e.mean, 1.0)))


def _mean(numbers: Sequence[float | None]) -> float | None:
    known = [x for x in numbers if x is not None]
    return fmean(known) if len(known) == len(numbers) else None


def _original(by: Tensor, moved: Mapping[str, Tensor]) -> str | None:
    """An earlier arm with the same results up to rounding, such as one with the same gradient."""
    alike = (arm for arm, x in moved.items() if (x - by).abs().mean() < ALIKE * x.abs().mean())
    return next(alike, None)


def _by_class(right: Tensor, labels: Tensor) -> list[float | None]:
    num_classes = int(labels.max()) + 1
    count = torch.bincount(labels, minlength=num_classes)
    share = right.new_zeros(num_classes).index_add_(0, labels, right) / count
    return [None if math.isnan(x) else x for x in share.tolist()]
