"""The figures of one run, computed from its logits."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from labelsmooth.calibration._metrics import Reliability, binned, correct
from labelsmooth.study.analysis.evidence import NUM_BINS, Evidence
from labelsmooth.study.analysis.measures.ranks import curve
from labelsmooth.study.analysis.measures.training import wrong_labels
from labelsmooth.study.analysis.metrics import METRICS, as_trained
from labelsmooth.study.trials.files import Outcome
from labelsmooth.study.trials.training import threads


@dataclass(frozen=True)
class Seen:
    """The data of one run for the report. Fields that need a temperature are None without validation rows."""

    temperature: float | None
    predicted: Tensor  # (N,), int32
    reliability: Reliability
    reliability_scaled: Reliability | None
    risk: tuple[Tensor, Tensor]  # coverage and risk, at every level of confidence
    risk_scaled: tuple[Tensor, Tensor] | None
    history: Mapping[str, list[float]]


@dataclass(frozen=True)
class Run:
    """One run's figures."""

    values: Mapping[str, Tensor]  # for each metric, the numbers whose mean it is
    floors: Mapping[str, float]
    right: Tensor  # (N,), 1.0 or 0.0
    moved: Tensor  # (N,), the NLL, which detects copies of an arm
    chosen_by: float | None  # the metric that chooses an arm, on the validation rows
    validation_nll: float | None
    validation_accuracy: float | None
    flipped: float | None  # the share of wrong training labels
    seen: Seen


# Rows are read in chunks that fit into a core's cache, so more threads would not be faster.
@threads(1)
def measure(outcome: Outcome, by: str, *, ordinal: bool = False) -> Run:
    """The figures of a run; ``by`` is the metric that chooses an arm."""
    temperature = outcome.temperature
    run = Evidence(*outcome.test, temperature, outcome, ordinal, wide=as_trained(by) == "auroc")
    found = {name: metric.of(run) for name, metric in METRICS.items()}
    floors = {name: metric.floor(run) for name, metric in METRICS.items() if metric.floor is not None}
    wrong = wrong_labels(run)
    chosen_by = validation_nll = validation_accuracy = None
    if outcome.val is not None:
        validation = Evidence(*outcome.val, temperature, outcome, ordinal, run.wide, chooses=True)
        chooses = METRICS[by].of(validation)
        chosen_by = None if chooses is None else chooses.mean().item()
        validation_nll = validation.best.nll.mean().item()
        validation_accuracy = correct(*outcome.val).mean().item()
    return Run(
        values={name: value for name, value in found.items() if value is not None},
        floors={name: floor for name, floor in floors.items() if floor is not None},
        right=run.right,
        moved=run.best.nll,
        chosen_by=chosen_by,
        validation_nll=validation_nll,
        validation_accuracy=validation_accuracy,
        flipped=None if wrong is None else wrong.double().mean().item(),
        seen=_seen(run),
    )


def _seen(run: Evidence) -> Seen:
    at = [run.raw, run.scaled]
    reliability = [None if x is None else binned(x.confidence, run.right, NUM_BINS) for x in at]
    risk = [None if x is None else curve(x.confidence, run.right) for x in at]
    assert reliability[0] is not None
    assert risk[0] is not None
    return Seen(
        temperature=run.temperature,
        predicted=run.predicted.int(),
        reliability=reliability[0],
        reliability_scaled=reliability[1],
        risk=risk[0],
        risk_scaled=risk[1],
        history=run.outcome.history,
    )
