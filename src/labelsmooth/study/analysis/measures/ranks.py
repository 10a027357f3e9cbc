"""Ranking metrics: rows ordered by confidence, or by a class's probability."""

import torch
from torch import Tensor

from labelsmooth.calibration._metrics import confidence
from labelsmooth.study.analysis.evidence import AtTemperature, Evidence, groups_of
from labelsmooth.study.analysis.measures.influence import by_groups

RISK = 0.05  # the share of errors among the accepted rows
ACCEPTED = 0.95  # the share of accepted in-distribution rows
MANY = 4_000_000  # with more logits, the sort for each class is made only for care="ranking"


def risk_coverage(run: Evidence, at: AtTemperature) -> Tensor:
    r"""AURC: the area under the risk-coverage curve, a mean over rows.

    With :math:`R_i` the share of errors among the rows that are at least as confident as row i, a row
    contributes :math:`R_i + \sum_{j: c_j \le c_i} (e_i - R_j) / n_j`: its risk, and its influence on others.

    Reference:
        Geifman, Uziel and El-Yaniv, *Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers*, ICLR
        2019.
    """
    error = 1 - run.right
    home, size, accepted, risk = _by_confidence(at.confidence, error)
    # Sums from the least confident row up.
    weight = (size / accepted).flip(0).cumsum(0).flip(0)
    weighted = (size * risk / accepted).flip(0).cumsum(0).flip(0)
    return risk[home] + error * weight[home] - weighted[home]


def coverage_at_risk(run: Evidence, at: AtTemperature) -> Tensor:
    """The largest share of most confident rows with an error of at most ``RISK``."""
    error = 1 - run.right

    def coverage(rows: Tensor) -> float:
        *_, accepted, risk = _by_confidence(at.confidence[rows], error[rows])
        good = accepted[risk <= RISK]
        return float(good.max() / len(rows)) if len(good) else 0.0

    return by_groups(coverage, run.groups)


def curve(confidence: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Coverage and risk, from the most confident row to all rows."""
    *_, accepted, risk = _by_confidence(confidence, 1 - right)
    return accepted / len(right), risk


def class_auroc(run: Evidence) -> Tensor | None:
    """The one-vs-rest area under the ROC curve, the mean over classes with positives and negatives."""
    if run.logits.numel() > MANY and not run.wide:
        return None
    temperature = run.temperature or 1.0
    z = run.logits.double() / temperature
    p = z.softmax(-1)
    parts = [
        _auroc(p[:, k].contiguous(), run.labels == k)
        for k in range(1 if run.num_classes == 2 else run.num_classes)
    ]
    known = [part for part in parts if part is not None]
    return torch.stack(known).mean(0) if known else None


def unknown_auroc(run: Evidence) -> Tensor | None:
    """Out-of-distribution AUROC: the area under the ROC curve of the confidence."""
    if (both := _with_unknown(run)) is None:
        return None
    return _auroc(*both)


def unknown_accepted(run: Evidence) -> Tensor | None:
    """FPR95: the share of out-of-distribution rows above the confidence that 95 % of the test rows exceed."""
    if (both := _with_unknown(run)) is None:
        return None
    sure, known = both

    def accepted(rows: Tensor) -> float:
        level = sure[rows][known[rows]].quantile(1 - ACCEPTED, interpolation="lower")
        return float((sure[rows][~known[rows]] >= level).double().mean())

    return by_groups(accepted, groups_of(len(sure)))


def _with_unknown(run: Evidence) -> tuple[Tensor, Tensor] | None:
    """The confidence of the test and the out-of-distribution rows, and a mask of the test rows."""
    if run.outcome.ood is None:
        return None
    unknown = confidence(run.outcome.ood.double() / (run.temperature or 1.0))
    known = torch.cat([torch.ones(len(run.labels)), torch.zeros(len(unknown))]).bool()
    return torch.cat([run.best.confidence, unknown]), known


def _auroc(score: Tensor, positive: Tensor) -> Tensor | None:
    """The share of correctly ordered pairs, with ties as half, as DeLong's values of each row.

    Reference:
        DeLong, DeLong and Clarke-Pearson, *Comparing the areas under two or more correlated receiver
        operating characteristic curves*, Biometrics 1988.
    """
    up, down = score[positive].sort().values, score[~positive].sort().values
    if not len(up) or not len(down):
        return None
    below = _share_below(score, down)  # for a positive: the share of negatives below it
    above = 1 - _share_below(score, up)  # for a negative: the share of positives above it
    share = len(up) / len(score)
    area = below[positive].mean()
    return area + torch.where(positive, (below - area) / share, (above - area) / (1 - share))


def _share_below(score: Tensor, others: Tensor) -> Tensor:
    below, not_above = (torch.searchsorted(others, score, right=right) for right in (False, True))
    return (below + not_above).double() / (2 * len(others))


def _by_confidence(sure: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The level of confidence of each row, the most confident first; for each level, its rows, the rows that
    are at least as confident, and their risk. Rows of equal confidence are accepted together."""
    # The confidence of equal logits in another order differs by rounding only.
    levels, home, size = torch.unique(-sure.round(decimals=12), return_inverse=True, return_counts=True)
    accepted = size.cumsum(0).double()
    wrong = error.new_zeros(len(levels)).index_add_(0, home, error).cumsum(0)
    return home, size.double(), accepted, wrong / accepted
