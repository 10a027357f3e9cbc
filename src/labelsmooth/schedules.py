"""How much to smooth (the strength): by the class, by the sample, and over time, as tensors."""

import math
from collections.abc import Callable
from typing import Literal, assert_never

import torch
from torch import Tensor, nn

from labelsmooth.checks import (
    Interval,
    accurate,
    check_choice,
    check_number,
    check_strength,
    check_tensor,
    readable,
)

Shape = Literal["concave", "linear", "convex", "exponential"]


class ByClass(nn.Module):
    """A strength for each class; made by :func:`by_class`."""

    eps: Tensor

    def __init__(self, eps: Tensor) -> None:
        super().__init__()
        check_tensor("by_class: eps", eps)
        if eps.dim() != 1:
            raise ValueError(f"by_class: eps must have shape (K,), got {tuple(eps.shape)}")
        check_strength("by_class: eps", eps, Interval(-math.inf, math.inf))
        self.register_buffer("eps", eps)

    def extra_repr(self) -> str:
        return f"K={self.eps.numel()}"


def by_class(eps: Tensor) -> ByClass:
    r"""Smooth each class by its own strength: a sample of class y by ``eps[y]``.

    .. math:: \epsilon_i = \epsilon_{y_i}

    Args:
        eps: One strength per class, shape ``(K,)``, each in the range of the loss, which checks it.

    Returns:
        A value for ``label_smoothing=``. As a module it moves and is saved with the loss that holds it.

    Raises:
        ValueError: if ``eps`` is not a vector, or one of its values is not finite.

    Example:
        >>> import torch, labelsmooth
        >>> rare_classes_less = labelsmooth.by_class(torch.tensor([0.2, 0.1, 0.0]))
        >>> loss = labelsmooth.CrossEntropyLoss(label_smoothing=rare_classes_less)
        >>> loss(torch.zeros(2, 3), torch.tensor([0, 2]))
        tensor(1.0986)

    Reference:
        Zhong et al., *Improving Calibration for Long-Tailed Recognition*, CVPR 2021.
    """
    return ByClass(eps)


def by_counts(
    counts: Tensor, head: float, tail: float, shape: Shape = "concave", *, power: float | None = None
) -> ByClass:
    r"""Label-aware smoothing: the most frequent class by ``head``, the rarest by ``tail``.

    .. math::
        \epsilon_k = \epsilon_\mathrm{tail} + (\epsilon_\mathrm{head} - \epsilon_\mathrm{tail})\, f(r_k),
        \qquad r_k = \frac{n_k - \min_j n_j}{\max_j n_j - \min_j n_j}

    f is :math:`\sin(\pi r / 2)` ("concave"), :math:`r` ("linear"), :math:`1 - \cos(\pi r / 2)` ("convex") or
    :math:`r^p` ("exponential", as its authors call it). Classes that are all as frequent are all heads.

    Args:
        counts: n, the number of training samples of each class, ``(K,)``, at least 0 and not all 0.
        head: The strength of the most frequent class, in ``[0, 1]``; the authors take 0.1 to 0.4.
        tail: The strength of the rarest class, in ``[0, 1]``; the authors take 0 to 0.1.
        shape: "concave", "linear", "convex" or "exponential".
        power: p of "exponential", more than 0; 2 if None.

    Returns:
        A value for ``label_smoothing=``. As a module it moves and is saved with the loss that holds it.

    Raises:
        ValueError: naming the argument that is out of its range, or has a wrong shape or type.

    Example:
        >>> import torch
        >>> by_counts(torch.tensor([500, 50, 5]), head=0.3, tail=0.0).eps
        tensor([0.3000, 0.0427, 0.0000])

    Reference:
        Zhong et al., *Improving Calibration for Long-Tailed Recognition*, CVPR 2021.
    """
    _check_counts(counts)
    check_strength("head", head)
    check_strength("tail", tail)
    check_choice("shape", shape, Shape)
    if power is not None:
        if shape != "exponential":
            raise ValueError(f'power goes with shape="exponential" only, got shape={shape!r}')
        check_number("power", power, above_zero=True)
    above = counts - counts.min()
    spread = above.max()
    r = torch.where(spread == 0, 1.0, above.to(accurate(counts.dtype)) / spread)
    match shape:
        case "concave":
            f = torch.sin(r * (math.pi / 2))
        case "linear":
            f = r
        case "convex":
            f = 1 - torch.cos(r * (math.pi / 2))
        case "exponential":
            f = r ** (2.0 if power is None else power)
        case _:
            assert_never(shape)
    return ByClass(tail + (head - tail) * f)


def graduated(
    confidence: Tensor,
    thresholds: tuple[float, float] = (0.3, 0.7),
    strengths: tuple[float, float, float] = (0.0, 0.1, 0.3),
) -> Tensor:
    r"""Smooth each sample by how sure of it a trained model is: the surer, the more.

    .. math::
        \epsilon_i = \begin{cases}
            \epsilon_0 & c_i < a \\ \epsilon_1 & a \le c_i \le b \\ \epsilon_2 & c_i > b
        \end{cases}

    Args:
        confidence: c, the probability that a model gives to its prediction, or to the label, of each sample,
            any shape, in ``[0, 1]``.
        thresholds: (a, b) with ``0 <= a <= b <= 1``.
        strengths: The three strengths, below, between and above the thresholds, each in ``[0, 1]``.

    Returns:
        A value for ``label_smoothing=``: one strength per sample in the shape of ``confidence``, float32
        (float64 if it is), without gradient.

    Raises:
        ValueError: naming the argument that is out of its range, or has a wrong type. Values of tensors are
            looked at on a CPU outside of ``torch.compile`` and ``torch.func`` only; elsewhere a confidence
            outside ``[0, 1]`` gives NaN.

    Example:
        >>> import torch
        >>> graduated(torch.tensor([0.2, 0.5, 0.9]))
        tensor([0.0000, 0.1000, 0.3000])

    Reference:
        Wang et al., *On the Inference Calibration of Neural Machine Translation*, ACL 2020.
    """
    check_tensor("confidence", confidence)
    if not confidence.is_floating_point():
        raise ValueError(f"confidence must be floating point, got {confidence.dtype}")
    check_strength("confidence", confidence)
    _check_numbers("thresholds", thresholds, 2)
    _check_numbers("strengths", strengths, 3)
    low, high = thresholds
    if low > high:
        raise ValueError(f"thresholds must not decrease, got {thresholds}")
    below, between, above = strengths
    c = confidence.to(accurate(confidence.dtype))
    eps = torch.full_like(c, between).masked_fill(c < low, below).masked_fill(c > high, above)
    return eps.masked_fill(~((c >= 0) & (c <= 1)), torch.nan)


class Schedule(nn.Module):
    r"""A strength that changes with time; made by the functions below.

    .. math::
        \epsilon(t) = \epsilon_\mathrm{start} + (\epsilon_\mathrm{end} - \epsilon_\mathrm{start})\, f(t / T)
        \quad (t < T), \qquad \epsilon(t) = \epsilon_\mathrm{end} \quad (t \ge T)

    Time moves by :meth:`step`, which the modules call in ``end_epoch()``; call it after each batch instead,
    and ``steps`` are batches. The strength changes in place, so that nothing compiles again, a captured CUDA
    graph follows it, and nothing waits for a device. The time is in the ``state_dict``.

    Strengths are finite. Each loss has a range of its own, and checks them against it.

    Args:
        start: The strength at time 0.
        end: The strength from time ``steps`` on.
        steps: T, a whole number, at least 0.
        curve: f, from the share of the time, in ``[0, 1)``, to that of the way.
        description: What ``repr`` shows.

    Example:
        >>> schedule = linear(0.2, 0.0, steps=2)
        >>> schedule.step()
        >>> schedule.eps
        tensor(0.1000)
    """

    eps: Tensor  # 0-d, the strength now
    time: Tensor  # 0-d, how often ``step`` was called

    def __init__(
        self, start: float, end: float, steps: int, curve: Callable[[Tensor], Tensor], description: str
    ) -> None:
        super().__init__()
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 0:
            raise ValueError(f"steps must be a whole number of at least 0, got {steps!r}")
        self.start, self.end, self.steps = float(start), float(end), steps
        self.curve = curve
        self.description = description
        self.register_buffer("time", torch.zeros((), dtype=torch.long))
        self.register_buffer("eps", self._now(), persistent=False)
        self.register_load_state_dict_post_hook(_renew)

    @property
    def extremes(self) -> tuple[float, float]:
        """The least and the largest strength that may come, for a loss to check before it does."""
        return min(self.start, self.end), max(self.start, self.end)

    def step(self) -> None:
        """Move on by one."""
        self.time.add_(1)
        self.eps.copy_(self._now())

    def _now(self) -> Tensor:
        share = self.curve(self.time / max(self.steps, 1))
        under_way = self.start + (self.end - self.start) * share
        return torch.where(self.time < self.steps, under_way, self.end)

    def extra_repr(self) -> str:
        return self.description


def constant(eps: float) -> Schedule:
    r"""The same strength for all time, where a :class:`Schedule` is wanted.

    .. math:: \epsilon(t) = \epsilon

    Args:
        eps: The strength, finite.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number.

    Example:
        >>> constant(0.1).eps
        tensor(0.1000)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    _check_finite(eps=eps)
    return Schedule(eps, eps, 0, _linearly, f"constant(eps={eps})")


def linear(start: float, end: float, steps: int) -> Schedule:
    r"""From one strength to another in equal steps.

    .. math:: \epsilon(t) = \epsilon_0 + (\epsilon_1 - \epsilon_0) \min(t / T, 1)

    Args:
        start: The strength at time 0, finite.
        end: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` that it takes, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if a strength is not a finite number, or ``steps`` not a whole number of at least 0.

    Example:
        >>> schedule = linear(0.2, 0.1, steps=4)
        >>> schedule.step()
        >>> schedule.eps
        tensor(0.1750)

    Reference:
        Zhou et al., *MaxSup: Overcoming Representation Collapse in Label Smoothing*, NeurIPS 2025.
    """
    _check_finite(start=start, end=end)
    return Schedule(start, end, steps, _linearly, f"linear(start={start}, end={end}, steps={steps})")


def cosine(start: float, end: float, steps: int) -> Schedule:
    r"""From one strength to another along half a wave: slow at both ends.

    .. math:: \epsilon(t) = \epsilon_0 + (\epsilon_1 - \epsilon_0)\, \frac{1 - \cos(\pi \min(t / T, 1))}{2}

    Args:
        start: The strength at time 0, finite.
        end: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` that it takes, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if a strength is not a finite number, or ``steps`` not a whole number of at least 0.

    Example:
        >>> schedule = cosine(0.2, 0.0, steps=4)
        >>> schedule.step()
        >>> schedule.eps
        tensor(0.1707)

    Reference:
        Loshchilov and Hutter, *SGDR: Stochastic Gradient Descent with Warm Restarts*, ICLR 2017.
    """
    _check_finite(start=start, end=end)
    return Schedule(start, end, steps, _by_cosine, f"cosine(start={start}, end={end}, steps={steps})")


def warm_up(eps: float, steps: int) -> Schedule:
    r"""From none to all of the smoothing in equal steps.

    .. math:: \epsilon(t) = \epsilon \min(t / T, 1)

    Args:
        eps: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` that it takes, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number, or ``steps`` not a whole number of at least 0.

    Example:
        >>> schedule = warm_up(0.1, steps=5)
        >>> schedule.step()
        >>> schedule.eps
        tensor(0.0200)

    Reference:
        Goyal et al., *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*, 2017.
    """
    _check_finite(eps=eps)
    return Schedule(0.0, eps, steps, _linearly, f"warm_up(eps={eps}, steps={steps})")


def delayed(eps: float, steps: int) -> Schedule:
    r"""None of the smoothing at first and then all of it: the plain start that negative smoothing needs.

    .. math:: \epsilon(t) = \epsilon \, [t \ge T]

    Args:
        eps: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` before, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number, or ``steps`` not a whole number of at least 0.

    Example:
        >>> schedule = delayed(-0.4, steps=1)
        >>> schedule.eps
        tensor(0.)
        >>> schedule.step()
        >>> schedule.eps
        tensor(-0.4000)

    Reference:
        Wei et al., *To Smooth or Not? When Label Smoothing Meets Noisy Labels*, ICML 2022.
    """
    _check_finite(eps=eps)
    return Schedule(0.0, eps, steps, torch.zeros_like, f"delayed(eps={eps}, steps={steps})")


def drop_late(eps: float, steps: int) -> Schedule:
    r"""All of the smoothing at first and then none: two-stage label smoothing (TSLA).

    .. math:: \epsilon(t) = \epsilon \, [t < T]

    Args:
        eps: The strength before time ``steps``, finite.
        steps: T, the calls of ``step()`` before it is dropped, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number, or ``steps`` not a whole number of at least 0.

    Example:
        >>> schedule = drop_late(0.1, steps=1)
        >>> schedule.eps
        tensor(0.1000)
        >>> schedule.step()
        >>> schedule.eps
        tensor(0.)

    Reference:
        Xu et al., *Towards Understanding Label Smoothing*, 2020.
    """
    _check_finite(eps=eps)
    return Schedule(eps, 0.0, steps, torch.zeros_like, f"drop_late(eps={eps}, steps={steps})")


def _linearly(share: Tensor) -> Tensor:
    return share


def _by_cosine(share: Tensor) -> Tensor:
    return (1 - torch.cos(math.pi * share)) / 2


def _renew(schedule: nn.Module, _: object) -> None:
    """The strength of the time that was loaded."""
    assert isinstance(schedule, Schedule)
    now = schedule._now()
    if schedule.eps.device == now.device:
        schedule.eps.copy_(now)
    else:  # the loaded time took the place of one on another device
        schedule.eps = now


def _check_finite(**numbers: float) -> None:
    for name, value in numbers.items():
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")


def _check_numbers(name: str, values: tuple[float, ...], length: int) -> None:
    if not isinstance(values, tuple | list) or len(values) != length:
        raise ValueError(f"{name} must be {length} numbers, got {values!r}")
    for value in values:
        check_strength(name, value)


def _check_counts(counts: Tensor) -> None:
    check_tensor("counts", counts)
    if counts.dim() != 1 or counts.numel() == 0:
        raise ValueError(f"counts must have shape (K,), got {tuple(counts.shape)}")
    if counts.is_complex() or counts.dtype == torch.bool:
        raise ValueError(f"counts must be integers or floating point, got {counts.dtype}")
    if readable(counts):
        bad = ~((counts >= 0) & (counts < torch.inf))
        if bool(bad.any()):
            raise ValueError(f"counts must be finite and at least 0, got {counts[bad][0].item()}")
        if not bool(counts.any()):
            raise ValueError("counts must not all be 0")
