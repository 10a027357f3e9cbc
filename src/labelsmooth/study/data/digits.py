"""scikit-learn's handwritten digits, real data without a download, in fixed splits."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Digits:
    """1797 images of 8 x 8 pixels in [0, 1], as rows of 64, and their classes 0 to 9."""

    pool: tuple[Tensor, Tensor]  # the rows that training rows are drawn from
    val: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TrainingRows:
    x: Tensor
    labels: Tensor  # the training labels, with noise
    clean: Tensor


POOL, VAL = 800, 297


@cache
def digits() -> Digits:
    """The same split in every process: 800 rows to draw from, 297 validation rows, 700 test rows."""
    from sklearn.datasets import load_digits  # slow to import, and not needed to read results

    data, target = load_digits(return_X_y=True)
    x, y = torch.tensor(data / 16, dtype=torch.float32), torch.tensor(target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    pool, val, test = order.split([POOL, VAL, len(x) - POOL - VAL])
    return Digits((x[pool], y[pool]), (x[val], y[val]), (x[test], y[test]))


def draw(pool: tuple[Tensor, Tensor], rows: int, flipped: float, generator: torch.Generator) -> TrainingRows:
    """``rows`` rows of the pool; a share ``flipped`` gets another label, drawn uniformly."""
    x, y = pool
    num_classes = int(y.max()) + 1
    chosen = torch.randperm(len(x), generator=generator)[:rows]
    shift = torch.zeros(rows, dtype=torch.long)
    flips = round(flipped * rows)
    shift[:flips] = torch.randint(1, num_classes, (flips,), generator=generator)
    return TrainingRows(x[chosen], (y[chosen] + shift) % num_classes, y[chosen])
