"""Temperature scaling: one number that calibrates confidence and does not change predictions."""

import math
import warnings
from typing import Final

import torch
from torch import Tensor

from labelsmooth.calibration._checks import Given, Rows, as_bounds, as_number, as_rows, check_possible

MANY: Final = 100_000
PART: Final = 16
"""From this many rows on, a first fit on every 16th row gives the start, which saves most of the passes."""


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

    The NLL is convex in 1/T. The fit uses Newton's method, and bisection if a Newton step leaves the bracket
    or converges slowly, as in an exponential tail.

    Args:
        logits: Logits of held-out rows, ``(..., K)``, classes last, such as ``(N, K)``.
        labels: Their true classes, ``(...)``. Noisy labels would calibrate the model to the noise.
        spread: The standard deviation of a normal prior on log T with mean 0, above 0. Infinity means no
            prior; 1 keeps T reasonable for few rows or if all rows are correct, and has little effect with
            many rows.
        bounds: The range of T. T is a bound, with a warning, if the NLL decreases up to it: the lower bound
            if every row is correct, the upper bound if the logits are worse than constant ones. For constant
            logits, whose NLL does not depend on T, it is 1 or the closest bound.
        ignore_index: Rows with this label are ignored; None ignores none.

    Returns:
        T > 0; above 1 for an over-confident model.

    Raises:
        ValueError: if all rows are ignored, a shape, dtype or label is wrong, a row holds NaN, +inf or only
            -inf, the logit of a label is -inf, probabilities are given, ``spread`` is not above 0, or
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
    # The square of a smaller spread would be 0; T is 1 in both cases.
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
    why, what_to_do = (
        ("every row is classified correctly", "pass a finite spread")
        if falls
        else ("the logits are worse than constant ones", "check the labels")
    )
    warnings.warn(
        f"T = {bound} is a bound, since the NLL decreases up to it, as it does if {why}; {what_to_do}",
        stacklevel=2,
    )
    return bound


def _inverse(
    rows: Rows, target: float, spread: float, least: float, most: float, beta: float
) -> tuple[float, bool | None]:
    """The inverse temperature, with ``beta`` as start; at a bound, also whether the NLL decreases in beta."""
    pull = 1 / (len(rows) * spread**2)
    unseen, moved, newton = {least, most}, math.inf, False
    for _ in range(200):
        mean, variance = _moments(rows, beta)
        slope = mean - target + pull * math.log(beta) / beta
        curvature = variance + pull * (1 - math.log(beta)) / beta**2
        # Both underflow to 0 if every row is correct with certainty: the NLL still decreases.
        if falls := slope < 0 or slope == curvature == 0:
            least = beta
        else:
            most = beta
        if least == most:  # a bound
            return beta, falls
        step = -slope / curvature if curvature > 0 else math.inf
        if min(abs(step), most - least) <= 1e-12 * beta:
            break
        # Newton converges quadratically: after two steps in a row the error of the next one is known.
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
    # A masked class (-inf) has probability 0 at any T; 0 * -inf would be NaN.
    return (z - z.amax(-1, keepdim=True)).clamp_min_(-1e100)


def _targets(rows: Rows) -> tuple[float, bool]:
    """The mean of the label's logit minus the row's largest; whether all rows have constant logits."""
    total, constant = 0.0, True
    for z, labels in rows.chunks():
        z = _less_largest(z)
        total += float(z.gather(-1, labels.unsqueeze(-1)).sum())
        constant = constant and not bool(((z < 0) & (z > -1e100)).any())
    return total / len(rows), constant


def _moments(rows: Rows, beta: float) -> tuple[float, float]:
    """The mean over rows of the logits' mean and variance under ``softmax(beta * logits)``.

    The largest logit of each row is shifted to 0 and has a probability of at least 1/K, so the variance is at
    least 1/K of the mean square, and their difference is accurate enough.
    """
    total = torch.zeros(2, dtype=torch.float64, device=rows.logits.device)
    ones = torch.ones(rows.logits.size(1), dtype=torch.float64, device=rows.logits.device)
    for z, _ in rows.chunks():
        z = _less_largest(z)
        # A product with ones is several times faster than sum() for short rows.
        q = (beta * z).exp_()
        mass = q @ ones
        mean = (q.mul_(z) @ ones).div_(mass)
        square = (q.mul_(z) @ ones).div_(mass)
        total += torch.stack([mean.sum(), (square - mean.square()).sum()])
    mean, variance = (total / len(rows)).tolist()
    return mean, variance
