"""Temperature scaling: one number that makes confidence match accuracy and leaves predictions alone."""

import math

from torch import Tensor

from labelsmooth.calibration.metrics import check_logits


def fit_temperature(
    logits: Tensor, labels: Tensor, *, spread: float = math.inf, bounds: tuple[float, float] = (0.01, 100.0)
) -> float:
    r"""The temperature T that minimises the NLL of ``softmax(logits / T)``.

    .. math::
        \min_T \sum_i \left[ \mathrm{lse}(z_i / T) - z_{i, y_i} / T \right]
        + \frac{1}{2} \left( \frac{\log T}{\mathrm{spread}} \right)^2

    The NLL is convex in 1/T: Newton's method on its slope, or a bisection where that leaves the bracket or
    creeps, as it does along an exponential tail.

    Args:
        logits: Of rows that the model was not trained on, ``(N, K)``.
        labels: Their true classes, ``(N,)``. Wrong labels here calibrate the model to their noise.
        spread: How far log T is expected to lie from 0, as the standard deviation of a normal prior, above 0.
            Infinite, T is the NLL's alone; with 1 it stays sensible where there are few rows, or all are
            right, and hardly moves where there are many.
        bounds: T is sought between these, and ends on one if the NLL falls all the way:
            on the least if every row is right, on the greatest if the logits mislead. For constant logits,
            to which T means nothing, it is 1.

    Returns:
        T > 0; above 1 for a model that is too confident.

    Raises:
        ValueError: if there is no row or a shape is wrong.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
        >>> T = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
        >>> (logits / T).softmax(-1)[0]
        tensor([0.7500, 0.2500])

    Reference:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    check_logits(logits, labels)
    low, high = bounds
    if not 0 < low < high:
        raise ValueError(f"bounds must be two increasing positive numbers, got {bounds}")
    if not spread > 0:
        raise ValueError(f"spread must be above 0, got {spread}")
    pull = 1 / (len(labels) * spread**2)
    z = logits.detach().double()
    # A class at -inf has no probability at any T; 0 * -inf would be NaN.
    z = (z - z.amax(-1, keepdim=True)).clamp_min(-1e100)
    target_z = z.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    if not z.any():
        return 1.0

    least, most = 1 / high, 1 / low  # of the inverse temperature
    beta, moved = (1.0 if least < 1.0 < most else math.sqrt(least * most)), math.inf
    for _ in range(200):
        q = (beta * z).softmax(-1)
        mean = (q * z).sum(-1)
        slope = float((mean - target_z).mean()) + pull * math.log(beta) / beta
        curvature = float((q * (z - mean.unsqueeze(-1)).square()).sum(-1).mean())
        curvature += pull * (1 - math.log(beta)) / beta**2
        # Both are 0 where float64 takes every row for certainly right: the NLL still falls.
        if slope < 0 or slope == curvature == 0:
            least = beta
        else:
            most = beta
        step = -slope / curvature if curvature > 0 else math.inf
        if min(abs(step), most - least) <= 1e-12 * beta:
            break
        newton = least < beta + step < most and abs(step) <= moved / 2
        previous, beta = beta, beta + step if newton else math.sqrt(least * most)
        moved = abs(beta - previous)
    return 1 / beta
