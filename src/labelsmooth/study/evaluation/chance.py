"""The distribution of a calibrated model's ECE."""

import torch
from torch import Tensor

from labelsmooth.calibration._checks import CHUNK
from labelsmooth.calibration._metrics import bin_of
from labelsmooth.study.analysis.evidence import NUM_BINS

DRAWS = 500  # draws of labels from the confidences


def chance_errors(sure: Tensor, draws: int = DRAWS) -> Tensor:
    """The ECE of a calibrated model with the given confidences, ``(draws,)``, for drawn labels."""
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
