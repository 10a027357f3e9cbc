"""The inputs of the metrics of one run: its rows at a temperature, and sums by class and bin."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from labelsmooth.calibration._checks import Rows
from labelsmooth.study.trials.files import Outcome

NUM_BINS = 15
GROUPS = 20  # groups of rows for the jackknife


@dataclass(frozen=True)
class Cells:
    """Sums over a group's rows by class and bin of the class's probability, ``(GROUPS, K, NUM_BINS)``."""

    count: Tensor
    probability: Tensor
    hits: Tensor  # rows of the class

    def without(self, group: int) -> "Cells":
        """The sum over all groups except one, ``(K, NUM_BINS)``."""
        return Cells(*(x.sum(0) - x[group] for x in (self.count, self.probability, self.hits)))

    @property
    def together(self) -> "Cells":
        return Cells(*(x.sum(0) for x in (self.count, self.probability, self.hits)))


@dataclass(frozen=True)
class AtTemperature:
    """The test rows at one temperature; ``(N,)`` each, float64."""

    nll: Tensor
    confidence: Tensor
    brier: Tensor
    cells: Cells


@dataclass(frozen=True)
class Evidence:
    """The logits and labels of some rows of a run, and other inputs of metrics."""

    logits: Tensor  # (N, K)
    labels: Tensor
    temperature: float | None  # None without validation rows
    outcome: Outcome
    ordinal: bool = False  # whether the classes are ordered
    wide: bool = False  # whether to compute slow metrics
    chooses: bool = False  # validation rows, which need a single metric and no sums by bin

    @cached_property
    def predicted(self) -> Tensor:
        return self.logits.argmax(-1)

    @cached_property
    def right(self) -> Tensor:
        """1.0 for correct rows and 0.0 for others, ``(N,)``."""
        return (self.predicted == self.labels).double()

    @property
    def num_classes(self) -> int:
        return self.logits.size(1)

    @property
    def raw(self) -> AtTemperature:
        return self._temperatures[0]

    @property
    def scaled(self) -> AtTemperature | None:
        return None if self.temperature is None else self._temperatures[1]

    @property
    def best(self) -> AtTemperature:
        """The rows at the temperature, if there is one."""
        return self._temperatures[-1]

    @cached_property
    def groups(self) -> Tensor:
        return groups_of(len(self.labels))

    @cached_property
    def _temperatures(self) -> list[AtTemperature]:
        temperatures = [1.0] if self.temperature is None else [1.0, self.temperature]
        return at_temperatures(self.logits, self.labels, temperatures, self.groups, in_cells=not self.chooses)


def groups_of(rows: int) -> Tensor:
    """The group of each row, ``(N,)``: balanced, and drawn at random, since rows may be sorted."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    return torch.empty_like(order).scatter_(0, order, torch.arange(rows) % min(GROUPS, max(rows, 1)))


def at_temperatures(
    logits: Tensor,
    labels: Tensor,
    temperatures: Sequence[float | Tensor],
    groups: Tensor,
    *,
    in_cells: bool = True,
) -> list[AtTemperature]:
    """The rows at several temperatures (numbers, or one for each row, ``(N,)``), reading the logits once,
    group by group."""
    num_rows, num_classes = logits.shape
    num_groups = int(groups.max()) + 1
    by_row = torch.empty(len(temperatures), 3, num_rows, dtype=torch.float64)
    size = num_classes * NUM_BINS if in_cells else 0
    sums = torch.zeros(len(temperatures), num_groups, 3, size, dtype=torch.float64)
    ones = torch.ones(num_classes, dtype=torch.float64)
    for g in range(num_groups):
        members = (groups == g).nonzero().squeeze(-1)
        start = 0
        for z, y in Rows(logits, labels, members).chunks():
            rows = members[start : (start := start + len(y))]
            z = z - z.amax(-1, keepdim=True)
            own = z.gather(-1, y.unsqueeze(-1)).squeeze(-1)
            for i, temperature in enumerate(temperatures):
                t = temperature[rows] if isinstance(temperature, Tensor) else temperature
                p = (z / (t.unsqueeze(-1) if isinstance(t, Tensor) else t)).exp_()
                total = p @ ones  # several times faster than sum() for short rows
                p /= total.unsqueeze(-1)
                p_own = p.gather(-1, y.unsqueeze(-1)).squeeze(-1)
                nll, brier = total.log() - own / t, p.square() @ ones - 2 * p_own + 1
                by_row[i, :, rows] = torch.stack([nll, 1 / total, brier])
                if in_cells:
                    _add_to_cells(sums[i, g].view(3, num_classes, NUM_BINS), p, y, p_own)
    cells = sums.transpose(1, 2).reshape(len(temperatures), 3, num_groups, -1, NUM_BINS)
    return [
        AtTemperature(rows[0], rows[1], rows[2], Cells(of[0], of[1], of[2]))
        for rows, of in zip(by_row, cells, strict=True)
    ]


def _add_to_cells(sums: Tensor, p: Tensor, y: Tensor, p_own: Tensor) -> None:
    """Sums by class and bin. Most probabilities are in the first bin, so only the others are moved."""
    count, probability, hits = sums
    count[:, 0] += len(y)
    probability[:, 0] += torch.ones(len(y), dtype=p.dtype) @ p
    row, k = (p > 1 / NUM_BINS).nonzero(as_tuple=True)
    large = p[row, k]
    home, there = k * NUM_BINS, k * NUM_BINS + _bin_of(large)
    for x, by in ((count, torch.ones_like(large)), (probability, large)):
        x.view(-1).index_add_(0, there, by).index_add_(0, home, -by)
    hits.view(-1).index_add_(0, y * NUM_BINS + _bin_of(p_own), torch.ones_like(p_own))


def _bin_of(p: Tensor) -> Tensor:
    return (p * NUM_BINS).ceil_().long().sub_(1).clamp_(0, NUM_BINS - 1)
