"""Evaluation of the predictions in a file, in a folder of seeds, or of a fit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import torch
from torch import Tensor

from labelsmooth.calibration import fit_temperature
from labelsmooth.calibration._metrics import bin_of, binned
from labelsmooth.study.analysis.evidence import NUM_BINS, AtTemperature, at_temperatures
from labelsmooth.study.analysis.figures import Estimate
from labelsmooth.study.analysis.intervals import LEVEL, crossed
from labelsmooth.study.analysis.measures.calibration import signed
from labelsmooth.study.data.saved.arrays import SPLITS
from labelsmooth.study.data.saved.pairing import check_paired
from labelsmooth.study.data.saved.predictions import Kind, Predictions, as_predictions, read_runs
from labelsmooth.study.evaluation.chance import chance_errors
from labelsmooth.study.evaluation.figures import ClassScores, Evaluation, Scores
from labelsmooth.study.trials.training import threads

FEW_ROWS = 40  # test rows, too few for a temperature
UNIT = (0.0, 1.0)
IMPOSSIBLE = 80.0  # nats; a probability of 0, replaced by 1e-38, has 87


@dataclass(frozen=True)
class _Run:
    temperature: float | None
    predicted: Tensor
    right: Tensor
    raw: AtTemperature
    scaled: AtTemperature | None


# Rows are read in chunks that fit into a core's cache, so more threads would not be faster.
@threads(1)
def evaluate(
    source: str | Path | Mapping[str, Any], *, kind: Kind | None = None, label: str | None = None
) -> Evaluation:
    """Evaluate predictions: accuracy, calibration with its noise floor, a temperature, and each class.

    The temperature is fitted on the validation rows. Without them, a temperature is fitted on each half of
    the test rows and evaluated on the other half.

    Args:
        source: A file of predictions; a folder with one file for each seed, all with the same rows; or the
            result of a fit: ``{"test": (logits, labels)}``, optionally with ``"val"``.
        kind: ``"logits"`` or ``"probabilities"``, for a table whose column names do not say it.
        label: The column of the labels in a table; None is ``label``.

    Returns:
        The figures; ``print`` shows them in words.

    Raises:
        ValueError: if the predictions are invalid; the message names the file, the array or column, and the
            row.
        OSError: if a file cannot be opened.

    Example:
        >>> import torch
        >>> labels = torch.arange(100) % 2
        >>> logits = 4.0 * torch.nn.functional.one_hot(labels, 2)
        >>> logits[::10] = logits[::10].flip(1)  # wrong, and sure
        >>> evaluation = evaluate({"test": (logits, labels)})
        >>> round(evaluation.accuracy.mean, 2), evaluation.temperature > 1
        (0.9, True)
    """
    if isinstance(source, Mapping):
        name, runs = "predictions", [("predictions", as_predictions("predictions", _arrays(source)))]
    else:
        name, runs = str(source), read_runs(source, kind=kind, label=label)
    (paired,) = check_paired({name: runs}).values()
    return _evaluated(name, [run for _, run in paired])


def _arrays(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a fit, under the names of a file."""
    kind = "probabilities" if result.get("probabilities") else "logits"
    read = {key: result[key] for key in ("class_names", "ids", "features") if key in result}
    for split in SPLITS:
        if result.get(split) is not None:
            pair = result[split]
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise ValueError(
                    f"predictions must hold (logits, labels) for {split!r}, got {type(pair).__name__}"
                )
            read |= {f"{split}_{kind}": pair[0], f"{split}_labels": pair[1]}
    return read


def _evaluated(name: str, predictions: Sequence[Predictions]) -> Evaluation:
    first = predictions[0]
    labels = first.result["test"][1]
    runs = [_run(each) for each in predictions]
    right = torch.stack([run.right for run in runs])
    raw = [run.raw for run in runs]
    scaled = [run.scaled for run in runs if run.scaled is not None]
    temperatures = [run.temperature for run in runs if run.temperature is not None]
    validated = first.result.get("val")
    fitted_on: Literal["validation rows", "halves of the test rows"] = (
        "halves of the test rows" if validated is None else "validation rows"
    )
    impossible = [(run.raw.nll > IMPOSSIBLE).sum().item() for run in runs]
    change = [after.nll - before.nll for before, after in zip(raw, scaled, strict=False)]
    return Evaluation(
        name=name,
        files=[each.path for each in predictions],
        test_rows=len(labels),
        validation_rows=0 if validated is None else len(validated[1]),
        num_classes=first.num_classes,
        accuracy=_share(right),
        impossible=fmean(impossible),
        raw=_scores(raw, right),
        scaled=_scores(scaled, right) if scaled else None,
        temperature=math.exp(fmean(map(math.log, temperatures))) if temperatures else None,
        fitted_on=fitted_on if temperatures else None,
        nll_change=crossed(torch.stack(change)).estimate() if change else None,
        classes=_classes(first, labels, runs),
    )


def _run(predictions: Predictions) -> _Run:
    logits, labels = predictions.result["test"]
    predicted = logits.argmax(-1)
    temperatures = _temperatures(predictions)
    fitted = None if temperatures is None else math.exp(temperatures.log().mean().item())
    one = torch.zeros(len(labels), dtype=torch.long)
    every = [1.0] if temperatures is None else [1.0, temperatures]
    raw, *scaled = at_temperatures(logits, labels, every, one, in_cells=False)
    return _Run(fitted, predicted, (predicted == labels).double(), raw, scaled[0] if scaled else None)


def _temperatures(predictions: Predictions) -> Tensor | None:
    """The temperature for each test row, fitted on other rows; None with too few rows."""
    logits, labels = predictions.result["test"]
    found = torch.empty(len(labels), dtype=torch.float64)
    # With a wide prior, in case all of a few rows are correct.
    if "val" in predictions.result:
        return found.fill_(fit_temperature(*predictions.result["val"], spread=1))
    if len(labels) < FEW_ROWS:
        return None
    # Drawn at random, since rows may be sorted or alternate by class.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    halves = order.chunk(2)
    for here, there in (halves, halves[::-1]):
        found[here] = fit_temperature(logits[there], labels[there], spread=1)
    return found


def _scores(scored: Sequence[AtTemperature], right: Tensor) -> Scores:
    sure = torch.stack([each.confidence for each in scored])
    gaps = sure - right
    errors = torch.stack(list(map(signed, gaps, bin_of(sure, NUM_BINS))))
    chance = torch.stack([chance_errors(each) for each in sure])
    return Scores(
        nll=_within(torch.stack([each.nll for each in scored]), (0.0, math.inf)),
        brier=_within(torch.stack([each.brier for each in scored]), (0.0, 2.0)),
        ece=_within(errors, UNIT),
        noise_floor=chance.mean().item(),
        chance=chance.quantile(1 - LEVEL, 1).mean().item(),
        confidence_gap=crossed(gaps).estimate(),
        reliability=binned(sure.flatten(), right.flatten(), NUM_BINS),
    )


def _share(right: Tensor) -> Estimate:
    estimate = _within(right, UNIT)
    if 0 < estimate.mean < 1:
        return estimate
    # All values are equal, so the variance is 0: the exact interval of a binomial share.
    bound = (LEVEL / 2) ** (1 / right.size(1))
    return Estimate(1.0, bound, 1.0) if estimate.mean else Estimate(0.0, 0.0, 1 - bound)


def _within(values: Tensor, bounds: tuple[float, float]) -> Estimate:
    """The interval of a mean, limited to its range."""
    estimate = crossed(values).estimate()
    return Estimate(estimate.mean, max(estimate.low, bounds[0]), min(estimate.high, bounds[1]))


def _classes(first: Predictions, labels: Tensor, runs: Sequence[_Run]) -> list[ClassScores]:
    """The figures over all runs."""
    num_classes = first.num_classes
    names = first.class_names or tuple(map(str, range(num_classes)))
    predicted = torch.cat([run.predicted for run in runs])
    right = torch.cat([run.right for run in runs])
    sure = torch.cat([run.raw.confidence for run in runs])

    def mean(values: Tensor, of: Tensor) -> list[float | None]:
        total = values.new_zeros(num_classes).index_add_(0, of, values)
        return [None if math.isnan(x) else x for x in (total / of.bincount(minlength=num_classes)).tolist()]

    recall = mean(right, labels.repeat(len(runs)))
    rows = labels.bincount(minlength=num_classes).tolist()
    columns = (names, rows, recall, mean(right, predicted), mean(sure, predicted))
    return [ClassScores(*each) for each in zip(*columns, strict=True)]
