"""Temperature scaling: one number that makes confidence match accuracy and leaves predictions alone."""

import math
import warnings
from typing import Final

import torch
from torch import Tensor

from labelsmooth.calibration._checks import Given, Rows, as_bounds, as_number, as_rows, check_possible

MANY: Final = 100_000
PART: Final = 16
"""Of this many rows and more, every 16th tells first about where T is: that spares most of the passes."""


def fit_temperature(
    logits: Given,
    labels: Given,
    *,
    spread: float = math.inf,
    bounds: tuple[float, float] = (0.01, 100.0),
    ignore_index: int | None = -100,
) -> float:
    r"""The temperature T that minimises the NLL of ``softmax(logits / T)``.

    .. math::
        \min_T \sum_i \left[ \mathrm{lse}(z_i / T) - z_{i, y_i} / T \right]
        + \frac{1}{2} \left( \frac{\log T}{\mathrm{spread}} \right)^2

    The NLL is convex in 1/T: Newton's method on its slope, or a bisection where that leaves the bracket or
    creeps, as it does along an exponential tail.

    Args:
        logits: Of rows that the model was not trained on, ``(..., K)``, classes last, such as ``(N, K)``.
        labels: Their true classes, ``(...)``. Wrong labels here calibrate the model to their noise.
        spread: How far log T is expected to lie from 0, as the standard deviation of a normal prior, above 0.
            Infinite, T is the NLL's alone; with 1 it stays sensible where there are few rows, or all are
            right, and hardly moves where there are many.
        bounds: T is sought between these, and ends on one, with a warning, if the NLL falls all the way:
            on the least if every row is right, on the greatest if the logits mislead. For constant logits,
            to which T means nothing, it is 1, or the bound that is nearest.
        ignore_index: Rows with this label are left out; None leaves out none.

    Returns:
        T > 0; above 1 for a model that is too confident.

    Raises:
        ValueError: if no row is left, a shape, type or label is wrong, a row holds NaN or +inf or nothing but
            -inf, a label's own logit is -inf, probabilities are given, ``spread`` is not above 0, or
            ``bounds`` are not two increasing positive numbers.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> T = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
        >>> (logits / T).softmax(-1)[0]
        tensor([0.7500, 0.2500])

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    low, high = as_bounds(bounds)
    # Narrower, its square would be 0; T is 1 either way.
    spread = max(as_number("spread", spread, finite=False), 1e-100)
    rows = as_rows(logits, labels, ignore_index)
    check_possible(rows)
    target, constant = _targets(rows)
    if constant:
        return min(max(1.0, low), high)
    least, most = 1 / high, 1 / low  # of the inverse temperature
    start = 1.0 if least < 1.0 < most else math.sqrt(least * most)
    if len(rows) >= MANY:
        some = rows.every(PART)
        its_target, constant = _targets(some)
        if not constant:
            found, falls = _inverse(some, its_target, spread, least, most, start)
            start = found if falls is None else start
    beta, falls = _inverse(rows, target, spread, least, most, start)
    if falls is None:
        return min(max(1 / beta, low), high)
    bound = low if falls else high
    why = "every row is right" if falls else "the logits mislead"
    warnings.warn(f"T = {bound} is a bound: the NLL falls all the way to it, as where {why}", stacklevel=2)
    return bound


def _inverse(
    rows: Rows, target: float, spread: float, least: float, most: float, beta: float
) -> tuple[float, bool | None]:
    """The inverse temperature, sought from ``beta``; on a bound, whether the NLL still falls there."""
    pull = 1 / (len(rows) * spread**2)
    unseen, moved, newton = {least, most}, math.inf, False
    for _ in range(200):
        mean, variance = _moments(rows, beta)
        slope = mean - target + pull * math.log(beta) / beta
        curvature = variance + pull * (1 - math.log(beta)) / beta**2
        # Both are 0 where float64 takes every row for certainly right: the NLL still falls.
        if falls := slope < 0 or slope == curvature == 0:
            least = beta
        else:
            most = beta
        if least == most:  # a bound, which the NLL falls toward from within
            return beta, falls
        step = -slope / curvature if curvature > 0 else math.inf
        if min(abs(step), most - least) <= 1e-12 * beta:
            break
        # Of two steps of Newton in a row the errors are as a square: what one more would bring is known.
        last = newton and abs(step) * (step / moved) ** 2 <= 1e-14 * beta
        newton = least < beta + step < most and abs(step) <= moved / 2
        if last and newton:
            return beta + step, None
        end = most if falls else least
        unseen.discard(beta)
        previous = beta
        beta = beta + step if newton else end if end in unseen else math.sqrt(least * most)
        moved = abs(beta - previous)
    return beta, None


def _less_largest(z: Tensor) -> Tensor:
    # A class at -inf has no probability at any T; 0 * -inf would be NaN.
    return (z - z.amax(-1, keepdim=True)).clamp_min_(-1e100)


def _targets(rows: Rows) -> tuple[float, bool]:
    """The mean logit of the labels, less the largest of each row; whether each row's logits are all one."""
    total, constant = 0.0, True
    for z, labels in rows.chunks():
        z = _less_largest(z)
        total += float(z.gather(-1, labels.unsqueeze(-1)).sum())
        constant = constant and not bool(((z < 0) & (z > -1e100)).any())
    return total / len(rows), constant


def _moments(rows: Rows, beta: float) -> tuple[float, float]:
    """The mean over rows of the logits' mean and variance under ``softmax(beta * logits)``.

    Row by row the largest logit is 0 here and has a probability of at least 1/K, so the variance is at least
    a K-th of the mean square: their difference is exact enough.
    """
    total = torch.zeros(2, dtype=torch.float64, device=rows.logits.device)
    ones = torch.ones(rows.logits.size(1), dtype=torch.float64, device=rows.logits.device)
    for z, _ in rows.chunks():
        z = _less_largest(z)
        # A product with ones sums short rows several times faster than sum() does.
        q = (beta * z).exp_()
        mass = q @ ones
        mean = (q.mul_(z) @ ones).div_(mass)
        square = (q.mul_(z) @ ones).div_(mass)
        total += torch.stack([mean.sum(), (square - mean.square()).sum()])
    mean, variance = (total / len(rows)).tolist()
    return mean, variance
