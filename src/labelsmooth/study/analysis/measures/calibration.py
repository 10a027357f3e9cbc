"""Calibration metrics."""

import torch
from torch import Tensor

from labelsmooth.calibration._metrics import bin_of, chance_gap, chance_gaps
from labelsmooth.study.analysis.evidence import NUM_BINS, AtTemperature, Cells, Evidence
from labelsmooth.study.analysis.measures.influence import leaving_out

DRAWS = 200  # draws for a noise floor


def top_label(run: Evidence, at: AtTemperature) -> Tensor:
    """The contribution of each row to the ECE: its gap with the sign of its bin."""
    return signed(at.confidence - run.right, bin_of(at.confidence, NUM_BINS))


def equal_mass(run: Evidence, at: AtTemperature) -> Tensor:
    """The contributions to the ECE with bins of equally many rows."""
    return signed(at.confidence - run.right, _by_rank(at.confidence))


def class_wise(_: Evidence, at: AtTemperature) -> Tensor:
    """The mean over classes of the ECE of each class's probability."""
    return _jackknifed(_classwise, at.cells)


def reliability(_: Evidence, at: AtTemperature) -> Tensor:
    """The reliability component of the Brier score, by bins of each class's probability."""
    return _jackknifed(_reliability, at.cells)


def resolution(_: Evidence, at: AtTemperature) -> Tensor:
    """The resolution component of the Brier score: the variance of a class's share between bins."""
    return _jackknifed(_resolution, at.cells)


def over_confidence(run: Evidence) -> Tensor:
    return run.raw.confidence - run.right


def top_label_floor(at: AtTemperature) -> float:
    """The noise floor of the ECE."""
    return chance_gap(at.confidence, NUM_BINS, DRAWS)


def equal_mass_floor(at: AtTemperature) -> float:
    sure = at.confidence.sort().values
    return chance_gaps(sure, _by_rank(sure), DRAWS)


def class_wise_floor(at: AtTemperature) -> float:
    """The noise floor of the class-wise ECE: the count of a cell is binomial at its mean probability, with
    De Moivre's mean absolute deviation."""
    cells = at.cells.together
    n, p = cells.count, (cells.probability / cells.count).nan_to_num(0.0).clamp(0, 1)
    most = (n * p).floor() + 1
    log = torch.special.gammaln
    pieces = log(n + 1) - log(most + 1) - log((n - most).clamp_min(0) + 1)
    chance = torch.exp(pieces + torch.xlogy(most, p) + torch.xlogy(n - most + 1, 1 - p))
    gap = torch.where(most <= n, 2 * most * chance, 0.0)
    return float(gap.sum() / cells.count.sum())


def signed(gap: Tensor, bins: Tensor) -> Tensor:
    """Gaps with the sign of the sum in their bins; their mean is the calibration error."""
    return gap * gap.new_zeros(NUM_BINS).index_add_(0, bins, gap).sign()[bins]


def _by_rank(sure: Tensor) -> Tensor:
    """The bin of each row by its rank; ties may fall into different bins."""
    place = torch.empty(len(sure), dtype=torch.long).scatter_(
        0, sure.argsort(stable=True), torch.arange(len(sure))
    )
    return place * NUM_BINS // len(sure)


def _jackknifed(metric, cells: Cells) -> Tensor:
    return leaving_out(metric(cells.together), lambda g: metric(cells.without(g)), len(cells.count))


def _classwise(cells: Cells) -> float:
    # Every row is in one cell of each class.
    return float((cells.probability - cells.hits).abs().sum() / cells.count.sum())


def _reliability(cells: Cells) -> float:
    squares = (cells.probability - cells.hits).square() / cells.count
    return float(squares[cells.count > 0].sum() / cells.count[0].sum())


def _resolution(cells: Cells) -> float:
    rows = cells.count[0].sum()
    base = cells.hits.sum(1, keepdim=True) / rows
    squares = (cells.hits - cells.count * base).square() / cells.count
    return float(squares[cells.count > 0].sum() / rows)
