"""Temperature scaling: one number that makes confidence match accuracy and leaves predictions alone."""

import math

from torch import Tensor

from labelsmooth.calibration.metrics import check_logits


def fit_temperature(logits: Tensor, labels: Tensor, *, bounds: tuple[float, float] = (0.01, 100.0)) -> float:
    r"""The temperature T that minimises the NLL of ``softmax(logits / T)``.

    .. math::
        \min_T \frac{1}{N} \sum_i \mathrm{lse}(z_i / T) - z_{i, y_i} / T

    The NLL is convex in 1/T: Newton's method on its slope, kept inside a bracket.

    Args:
        logits: Of rows that the model was not trained on, ``(N, K)``.
        labels: Their true classes, ``(N,)``. Wrong labels here calibrate the model to their noise.
        bounds: T is sought between these; it ends on one if every row is right (the least), or if the
            logits say nothing (the greatest).

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
    z = logits.detach().double()
    z = z - z.amax(-1, keepdim=True)
    target_z = z.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)

    least, most = 1 / high, 1 / low  # of the inverse temperature
    beta = 1.0 if least < 1.0 < most else math.sqrt(least * most)
    for _ in range(100):
        q = (beta * z).softmax(-1)
        mean = (q * z).sum(-1)
        slope = float((mean - target_z).mean())
        if slope < 0:
            least = beta
        else:
            most = beta
        curvature = float((q * (z - mean.unsqueeze(-1)).square()).sum(-1).mean())
        step = beta - slope / curvature if curvature > 0 else math.inf
        previous, beta = beta, step if least < step < most else math.sqrt(least * most)
        if abs(beta - previous) <= 1e-12 * beta:
            break
    return 1 / beta
