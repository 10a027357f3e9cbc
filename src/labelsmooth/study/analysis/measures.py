"""One run: what is kept of its logits."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from labelsmooth.calibration.checks import Rows
from labelsmooth.calibration.metrics import Reliability, bin_of, binned, chance_gap, correct
from labelsmooth.study.analysis.figures import Metric
from labelsmooth.study.trials.files import Outcome
from labelsmooth.study.trials.training import threads

NUM_BINS = 15
DRAWS = 200  # of the noise floor


@dataclass(frozen=True)
class ByRow:
    """Of each test row, ``(N,)``, float64, at one temperature."""

    nll: Tensor
    sure: Tensor  # the confidence

    def reliability(self, right: Tensor) -> Reliability:
        return binned(self.sure, right, NUM_BINS)

    def calibration_error(self, right: Tensor) -> Tensor:
        """What each row adds to the ECE, of which this is the mean: its gap, signed as its bin's is."""
        gap, bins = self.sure - right, bin_of(self.sure, NUM_BINS)
        return gap * gap.new_zeros(NUM_BINS).index_add_(0, bins, gap).sign()[bins]

    @property
    def noise_floor(self) -> float:
        return chance_gap(self.sure, NUM_BINS, DRAWS)


@dataclass(frozen=True)
class Run:
    """One run's figures, and those of each of its test rows."""

    temperature: float
    validation_nll: float  # after temperature
    validation_accuracy: float
    predicted: Tensor  # (N,), int32
    right: Tensor  # (N,), 1.0 or 0.0
    raw: ByRow
    scaled: ByRow  # after temperature
    train_accuracy: float | None
    memorised: float | None  # the share of wrong training labels that the model gives back
    flipped: float | None  # the share of training labels that are wrong
    history: Mapping[str, list[float]]

    @property
    def values(self) -> dict[Metric, Tensor]:
        """Each metric as a number of each row, whose mean it is."""
        values: dict[Metric, Tensor] = {
            "accuracy": self.right,
            "nll": self.raw.nll,
            "nll_scaled": self.scaled.nll,
            "ece": self.raw.calibration_error(self.right),
            "ece_scaled": self.scaled.calibration_error(self.right),
            "confidence_gap": self.raw.sure - self.right,
        }
        if self.train_accuracy is not None:
            values["train_gap"] = self.train_accuracy - self.right
        if self.memorised is not None:
            values["memorised"] = torch.full_like(self.right, self.memorised)
        return values


# Rows are read in chunks that stay in a core's cache: more threads would wait for one another.
@threads(1)
def measure(outcome: Outcome) -> Run:
    temperature = outcome.temperature
    logits, labels = outcome.test
    predicted = logits.argmax(-1)
    raw, scaled = _by_row(logits, labels, (1.0, temperature))
    (validated,) = _by_row(*outcome.val, (temperature,))
    train_accuracy = memorised = flipped = None
    if outcome.train is not None:
        trained, given = outcome.train
        fitted = correct(trained, given)
        train_accuracy = fitted.mean().item()
        if outcome.clean is not None:
            wrong = given != outcome.clean
            flipped = wrong.double().mean().item()
            memorised = fitted[wrong].mean().item() if flipped else None
    return Run(
        temperature=temperature,
        validation_nll=validated.nll.mean().item(),
        validation_accuracy=correct(*outcome.val).mean().item(),
        predicted=predicted.int(),
        right=(predicted == labels).double(),
        raw=raw,
        scaled=scaled,
        train_accuracy=train_accuracy,
        memorised=memorised,
        flipped=flipped,
        history=outcome.history,
    )


def _by_row(logits: Tensor, labels: Tensor, temperatures: tuple[float, ...]) -> list[ByRow]:
    """At several temperatures in one reading of the logits."""
    nll, sure = torch.empty(2, len(temperatures), len(labels), dtype=torch.float64)
    ones = torch.ones(logits.size(1), dtype=torch.float64)
    start = 0
    for z, y in Rows(logits, labels).chunks():
        some = slice(start, start := start + len(y))
        z = z - z.amax(-1, keepdim=True)
        own = z.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        for i, t in enumerate(temperatures):
            total = (z / t).exp_() @ ones  # a product sums short rows several times faster than sum() does
            nll[i, some] = total.log() - own / t
            sure[i, some] = 1 / total
    return list(map(ByRow, nll, sure))
