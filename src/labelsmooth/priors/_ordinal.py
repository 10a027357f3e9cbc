"""Priors for ordinal classes: ranks closer to the target are more probable."""

from typing import Literal, assert_never

import torch
from torch import Tensor

from labelsmooth._core.checks import check_choice, check_integer, check_number, check_values
from labelsmooth.priors._distributions import Prior
from labelsmooth.priors._making import check_real, exact, positions, prior

Distance = Literal["absolute", "squared", "log"]


def sord(num_classes: int, distance: Distance = "absolute", alpha: float = 1.0) -> Prior:
    r"""Soft ordinal labels (SORD): the probability decays exponentially with a distance between ranks.

    .. math:: \pi_y(k) = \mathrm{softmax}_k(-\alpha\, \phi(k, y))

    Args:
        num_classes: K, at least 2.
        distance: phi: "absolute" :math:`|k - y|`, "squared" :math:`(k - y)^2`, or "log"
            :math:`(\log(1 + k) - \log(1 + y))^2`, in which a step between high ranks is shorter.
        alpha: The decay rate of the probability, at least 0 (uniform).

    Returns:
        A prior of shape ``(K, K)``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> from labelsmooth import priors
        >>> priors.sord(3)
        Prior(ordinal: sord, absolute distance, alpha=1, shape (3, 3))
        >>> priors.sord(3).probabilities
        tensor([[0.6652, 0.2447, 0.0900],
                [0.2119, 0.5761, 0.2119],
                [0.0900, 0.2447, 0.6652]])

    Reference:
        Díaz and Marathe, *Soft Labels for Ordinal Regression*, CVPR 2019.
    """
    check_integer("num_classes", num_classes, 2)
    check_choice("distance", distance, Distance)
    check_number("alpha", alpha)
    y, k = positions(num_classes)
    if distance == "absolute":
        phi = (k - y).abs()
    elif distance == "squared":
        phi = (k - y).square()
    elif distance == "log":
        phi = (k.log1p() - y.log1p()).square()
    else:
        assert_never(distance)
    return prior((-alpha * phi).softmax(-1), f"ordinal: sord, {distance} distance, alpha={alpha:g}")


def exponential(num_classes: int, power: float = 1.0, tau: float = 1.0) -> Prior:
    r"""The probability decays exponentially with a power of the distance between ranks.

    .. math:: \pi_y(k) = \mathrm{softmax}_k(-|k - y|^p / \tau)

    Args:
        num_classes: K, at least 2.
        power: p, above 0: 1 gives a Laplace distribution over the ranks, 2 a Gaussian.
        tau: The width of the distribution, above 0; in ranks if ``power`` is 1.

    Returns:
        A prior of shape ``(K, K)``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> from labelsmooth import priors
        >>> priors.exponential(3, power=2.0).probabilities
        tensor([[0.7214, 0.2654, 0.0132],
                [0.2119, 0.5761, 0.2119],
                [0.0132, 0.2654, 0.7214]])

    Reference:
        Liu et al., *Unimodal Regularized Neuron Stick-Breaking for Ordinal Classification*, Neurocomputing
        2020; with the power, Vargas et al., *Exponential Loss Regularisation for Encouraging Ordinal
        Constraint to Shotgun Stocks Quality Assessment*, Applied Soft Computing 2023.
    """
    check_integer("num_classes", num_classes, 2)
    check_number("power", power, above_zero=True)
    check_number("tau", tau, above_zero=True)
    y, k = positions(num_classes)
    pi = (-(k - y).abs().pow(power) / tau).softmax(-1)
    return prior(pi, f"ordinal: exponential, power={power:g}, tau={tau:g}")


def triangular(num_classes: int, alpha2: float = 0.01) -> Prior:
    r"""Only the adjacent ranks get probability: the tails of a triangular distribution.

    .. math::
        \pi_y(y \pm 1) = \alpha_2, \qquad \pi_0(1) = \alpha_1, \quad \pi_{K-1}(K-2) = \alpha_3, \qquad
        \pi_y(y) = 1 - \sum_{k \ne y} \pi_y(k)

    [0, 1] is divided into K equal intervals, one for each class. The triangle of an inner class is centred on
    its interval and has the probability :math:`\alpha_2` on either side. The triangles of the first and the
    last class have their peak at the end of [0, 1], and the probability

    .. math::
        \alpha_1 = r(1)^2, \quad \alpha_3 = r\!\left(\tfrac{K-1}{K}\right)^2, \quad
        r(c) = \tfrac12\left(\sqrt{1 + 4c^2 s (1 - s)(1 - s^2)} - 1\right), \quad s = \sqrt{2 \alpha_2}

    in the only adjacent interval. The factor (K-1)/K of the last class follows the paper.

    Args:
        num_classes: K, at least 2.
        alpha2: The probability of each neighbour of an inner class, in [0, 2/9]; with more, the triangle
            would extend beyond the neighbours.

    Returns:
        A prior of shape ``(K, K)``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> from labelsmooth import priors
        >>> priors.triangular(3).probabilities
        tensor([[0.9885, 0.0115, 0.0000],
                [0.0100, 0.9800, 0.0100],
                [0.0000, 0.0025, 0.9975]])

    Reference:
        Vargas et al., *Soft Labelling Based on Triangular Distributions for Ordinal Classification*,
        Information Fusion 2023.
    """
    check_integer("num_classes", num_classes, 2)
    check_number("alpha2", alpha2)
    if alpha2 > 2 / 9:
        raise ValueError(f"alpha2 must lie in [0, 2/9], got {alpha2}")
    s = (2 * alpha2) ** 0.5

    def end(c: float) -> float:
        return ((1 + 4 * c**2 * s * (1 - s) * (1 - s**2)) ** 0.5 / 2 - 0.5) ** 2

    y, k = positions(num_classes)
    pi = torch.where((k - y).abs() == 1, alpha2, 0.0)
    pi[0, 1] = end(1)
    pi[-1, -2] = end((num_classes - 1) / num_classes)
    return prior(pi + torch.diag(1 - pi.sum(-1)), f"ordinal: triangular, alpha2={alpha2:g}")


def binomial(num_classes: int) -> Prior:
    r"""A binomial distribution over the ranks, whose mean follows the target.

    .. math:: \pi_y(k) = \binom{K-1}{k} p_y^k (1 - p_y)^{K-1-k}, \qquad p_y = 0.1 + 0.8\, \frac{y}{K - 1}

    With many classes the mode of the first and the last ranks is shifted toward the middle.

    Args:
        num_classes: K, at least 2.

    Returns:
        A prior of shape ``(K, K)``.

    Raises:
        ValueError: if ``num_classes`` is not an integer of at least 2.

    Example:
        >>> from labelsmooth import priors
        >>> priors.binomial(3).probabilities
        tensor([[0.8100, 0.1800, 0.0100],
                [0.2500, 0.5000, 0.2500],
                [0.0100, 0.1800, 0.8100]])

    Reference:
        Liu et al., *Unimodal Regularized Neuron Stick-Breaking for Ordinal Classification*, Neurocomputing
        2020.
    """
    check_integer("num_classes", num_classes, 2)
    y, k = positions(num_classes)
    n = torch.tensor(num_classes - 1.0, dtype=torch.float64, device="cpu")
    p = 0.1 + 0.8 * y / n
    choices = (n + 1).lgamma() - (k + 1).lgamma() - (n - k + 1).lgamma()
    return prior((choices + k * p.log() + (n - k) * (-p).log1p()).exp(), "ordinal: binomial")


def beta(num_classes: int, parameters: Tensor | None = None) -> Prior:
    r"""A beta distribution over [0, 1], divided into K equal intervals, one for each class.

    .. math::
        \pi_y(k) = I_{(k+1)/K}(a_y, b_y) - I_{k/K}(a_y, b_y)

    I is the regularised incomplete beta function, the cumulative distribution function. By default a and b
    are chosen so that the mean is the centre of the target's interval and the standard deviation half its
    width:

    .. math::
        m_y = \frac{2y + 1}{2K}, \quad a_y = m_y s_y, \quad b_y = (1 - m_y) s_y, \quad
        s_y = (2y + 1)(2K - 2y - 1) - 1

    They are close to the integers that Vargas et al. tabulate for K up to 13, which ``parameters`` can set.

    Args:
        num_classes: K, at least 2.
        parameters: (a, b) of each class, ``(K, 2)``, above 0 and at most 1e6.

    Returns:
        A prior of shape ``(K, K)``.

    Raises:
        ValueError: if an argument is out of its range.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> priors.beta(3, torch.tensor([[1, 4], [4, 4], [4, 1]])).probabilities
        tensor([[0.8025, 0.1852, 0.0123],
                [0.1733, 0.6534, 0.1733],
                [0.0123, 0.1852, 0.8025]])

    Reference:
        Vargas et al., *Unimodal Regularisation Based on Beta Distribution for Deep Ordinal Regression*,
        Pattern Recognition 2022.
    """
    check_integer("num_classes", num_classes, 2)
    if parameters is None:
        y, _ = positions(num_classes)
        mean, size = (2 * y + 1) / (2 * num_classes), (2 * y + 1) * (2 * num_classes - 2 * y - 1) - 1
        a, b = mean * size, (1 - mean) * size
    else:
        check_real("parameters", parameters)
        if tuple(parameters.shape) != (num_classes, 2):
            raise ValueError(
                f"parameters must have shape (K, 2) with K={num_classes} classes, "
                f"got {tuple(parameters.shape)}"
            )
        ab = exact(parameters)
        check_values("parameters", "be above 0 and at most 1e6", ab, (ab > 0) & (ab <= 1e6))
        a, b = ab[:, :1], ab[:, 1:]
    edges = torch.linspace(0, 1, num_classes + 1, dtype=torch.float64, device="cpu")
    pi = _incomplete_beta(a, b, edges).diff(dim=-1).clamp(min=0)
    description = "ordinal: beta" if parameters is None else "ordinal: beta, given parameters"
    return prior(pi, description, parameters)


def _incomplete_beta(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """I_x(a, b) by its continued fraction (NIST Handbook of Mathematical Functions, 8.17.22), in float64.

    The modified Lentz algorithm needs about sqrt(max(a, b)) steps on the side of the mean where the fraction
    converges fast; the other side is 1 minus the result.
    """
    a, b, x = torch.broadcast_tensors(a, b, x)
    mirrored = x > (a + 1) / (a + b + 2)
    a, b, x = torch.where(mirrored, b, a), torch.where(mirrored, a, b), torch.where(mirrored, 1 - x, x)
    tiny = torch.finfo(x.dtype).tiny

    def away_from_0(t: Tensor) -> Tensor:
        return torch.where(t.abs() < tiny, tiny, t)

    value = numerator = torch.ones_like(x)
    denominator = torch.zeros_like(x)
    for step in range(1, 100_000):
        m = step // 2
        if step % 2:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        denominator = 1 / away_from_0(1 + term * denominator)
        numerator = away_from_0(1 + term / numerator)
        factor = numerator * denominator
        value = value * factor
        if bool(((factor - 1).abs() < 1e-15).all()):
            break
    beta = a.lgamma() + b.lgamma() - (a + b).lgamma()
    part = (torch.xlogy(a, x) + torch.special.xlog1py(b, -x) - beta).exp() / (a * value)
    return torch.where(mirrored, 1 - part, part)
