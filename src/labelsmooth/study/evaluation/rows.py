"""From logits to numbers of each row, whose means are the metrics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from labelsmooth.calibration._checks import CHUNK, Rows
from labelsmooth.calibration._metrics import bin_of

NUM_BINS = 15
DRAWS = 500  # of labels, from the confidences


@dataclass(frozen=True)
class Scored:
    """Of each test row, ``(N,)``, float64, at one temperature."""

    nll: Tensor
    brier: Tensor
    sure: Tensor  # the confidence


def score(logits: Tensor, labels: Tensor, temperature: Tensor) -> Scored:
    """At a temperature of each row, ``(N,)``."""
    nll, brier, sure = torch.empty(3, len(labels), dtype=torch.float64)
    start = 0
    for z, y in Rows(logits, labels).chunks():
        some = slice(start, start := start + len(y))
        z = (z - z.amax(-1, keepdim=True)) / temperature[some].unsqueeze(-1)
        own = z.gather(-1, y.unsqueeze(-1)).squeeze(-1)
        q = z.exp()
        total = q.sum(-1)
        q /= total.unsqueeze(-1)
        nll[some] = total.log() - own
        brier[some] = q.square().sum(-1) - 2 * q.gather(-1, y.unsqueeze(-1)).squeeze(-1) + 1
        sure[some] = 1 / total
    return Scored(nll, brier, sure)


def calibration_error(sure: Tensor, right: Tensor) -> Tensor:
    """What each row adds to the ECE, of which this is the mean: its gap, signed as its bin's is."""
    gap, bins = sure - right, bin_of(sure, NUM_BINS)
    return gap * gap.new_zeros(NUM_BINS).index_add_(0, bins, gap).sign()[bins]


def chance_errors(sure: Tensor, draws: int = DRAWS) -> Tensor:
    """The ECE of a calibrated model of these confidences, ``(draws,)``: labels are drawn from them."""
    sure = sure.sort().values
    generator = torch.Generator().manual_seed(0)
    count = bin_of(sure, NUM_BINS).unique_consecutive(return_counts=True)[1].tolist()
    expected = torch.stack([part.sum() for part in sure.split(count)])
    step, found = max(1, CHUNK // len(sure)), []
    for start in range(0, draws, step):
        shape = (min(step, draws - start), len(sure))
        hits = torch.rand(shape, dtype=torch.float64, generator=generator) < sure
        each = torch.stack([part.sum(-1) for part in hits.split(count, -1)], -1)
        found.append((each - expected).abs().sum(-1) / len(sure))
    return torch.cat(found)
