"""From training runs to numbers with intervals.

Every arm was trained with the same seeds and tested on the same rows, so arms are compared pair by pair.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from labelsmooth.calibration.metrics import Reliability
from labelsmooth.study.analysis.comparisons import adjust
from labelsmooth.study.analysis.figures import Arm, Difference, Metric, Setting
from labelsmooth.study.analysis.intervals import crossed
from labelsmooth.study.analysis.measures import Run, measure
from labelsmooth.study.arms.specs import by_epoch, parse
from labelsmooth.study.trials.files import Job, Outcome

ALIKE = 0.01  # two arms are copies if they differ by less than this part of what either differs from hard


@dataclass(frozen=True)
class Seen:
    """What the report draws of one run."""

    temperature: float
    predicted: Tensor  # (N,), int32
    reliability: Reliability
    reliability_scaled: Reliability
    history: Mapping[str, list[float]]


@dataclass(frozen=True)
class Analysis:
    """A setting's numbers, and what the report draws besides."""

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
) -> Analysis:
    """Compare each arm with the first, which has hard targets. Each outcome is looked up once.

    ``known`` are facts of the fit, which the code to paste holds.
    """
    compared: list[Arm] = []
    seen: dict[Job, Seen] = {}
    hard: dict[Metric, Tensor] = {}
    moved: dict[
        str, Tensor
    ] = {}  # of each arm but copies, how far each row's NLL is from that of hard targets
    shape, labels, flipped = (0, 0), torch.empty(0), None
    for arm in arms:
        runs = []
        for seed in seeds:
            outcome = outcomes[Job(arm, seed)]
            if not seen:
                shape, labels = (len(outcome.val[1]), outcome.test[0].size(1)), outcome.test[1]
            runs.append(run := measure(outcome))
            seen[Job(arm, seed)] = Seen(
                run.temperature,
                run.predicted,
                run.raw.reliability(run.right),
                run.scaled.reliability(run.right),
                run.history,
            )
        values, copied = _stacked(runs), None
        if not hard:
            hard, flipped = values, runs[0].flipped
        else:
            by = (values["nll_scaled"] - hard["nll_scaled"]).mean(0)
            if (copied := _original(by, moved)) is None:
                moved[arm] = by
        facts = {"num_classes": shape[1], **(known or {})}
        compared.append(_arm(arm, runs, values, hard, seeds, labels, facts, copied))
    setting = Setting(
        name=name,
        description=description,
        seeds=len(seeds),
        test_rows=len(labels),
        validation_rows=shape[0],
        num_classes=shape[1],
        flipped=flipped,
        arms=compared,
        class_names=None if class_names is None else list(class_names),
    )
    return Analysis(adjust(setting), labels, seen)


def _arm(
    name: str,
    runs: Sequence[Run],
    values: Mapping[Metric, Tensor],
    hard: Mapping[Metric, Tensor],
    seeds: Sequence[int],
    labels: Tensor,
    facts: Mapping[str, object],
    copied: str | None,
) -> Arm:
    spec = parse(name)
    differences: dict[Metric, Difference] = {}
    if values is not hard:
        differences = {m: crossed(x - hard[m]).difference() for m, x in values.items() if m in hard}
    validation = [run.validation_nll for run in runs]
    right, was_right = values["accuracy"], hard["accuracy"]
    able = not spec.loss.facts - facts.keys()
    return Arm(
        name=name,
        validation_nll=fmean(validation),
        temperature=math.exp(fmean(math.log(run.temperature) for run in runs)),
        noise_floor=fmean(run.raw.noise_floor for run in runs),
        noise_floor_scaled=fmean(run.scaled.noise_floor for run in runs),
        best_seed=seeds[min(range(len(seeds)), key=validation.__getitem__)],
        validation_accuracy=fmean(run.validation_accuracy for run in runs),
        code=spec.loss.written(facts),
        by_epoch=able and by_epoch(spec.loss(facts)),
        values={metric: crossed(x).estimate() for metric, x in values.items()},
        differences=differences,
        copy_of=copied,
        recall=_by_class(right.mean(0), labels),
        gained=(right > was_right).double().sum(1).mean().item(),
        lost=(right < was_right).double().sum(1).mean().item(),
    )


def _stacked(runs: Sequence[Run]) -> dict[Metric, Tensor]:
    """``(seeds, rows)`` of each metric that every run has."""
    every = [run.values for run in runs]
    return {m: torch.stack([x[m] for x in every]) for m in every[0] if all(m in x for x in every)}


def _original(by: Tensor, moved: Mapping[str, Tensor]) -> str | None:
    """The arm that gave the same, but for rounding: one with the same gradient, say."""
    alike = (arm for arm, x in moved.items() if (x - by).abs().mean() < ALIKE * x.abs().mean())
    return next(alike, None)


def _by_class(right: Tensor, labels: Tensor) -> list[float | None]:
    num_classes = int(labels.max()) + 1
    count = torch.bincount(labels, minlength=num_classes)
    share = right.new_zeros(num_classes).index_add_(0, labels, right) / count
    return [None if math.isnan(x) else x for x in share.tolist()]
