"""Strengths over time."""

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor, nn

from labelsmooth._core.checks import UNIT, Interval, check_integer, check_strength
from labelsmooth._core.exact import Exact
from labelsmooth._core.modes import readable
from labelsmooth._core.precision import accurate


class Schedule(Exact):
    r"""A strength that changes over time. The functions of ``labelsmooth.schedules`` make it.

    .. math::
        \epsilon(t) = \epsilon_\mathrm{start} + (\epsilon_\mathrm{end} - \epsilon_\mathrm{start})\, f(t / T)
        \quad (t < T), \qquad \epsilon(t) = \epsilon_\mathrm{end} \quad (t \ge T)

    :meth:`step` advances the time; the modules call it in ``end_epoch()``. If you call it after each batch
    instead, ``steps`` counts batches. The strength changes in place: no new graph is compiled, a captured
    CUDA graph sees the change, and there is no synchronisation. The time is in the ``state_dict``.

    Strengths are finite. Each loss checks them against its own range.

    Args:
        start: The strength at time 0.
        end: The strength from time ``steps`` on.
        steps: T, an integer of at least 0.
        curve: f, from the elapsed share of the time, in ``[0, 1)``, to the share of the change.
        description: The text that ``repr`` shows.

    Example:
        >>> schedule = linear(0.2, 0.0, steps=2)
        >>> schedule.step()
        >>> schedule.eps
        tensor(0.1000)
    """

    eps: Tensor  # 0-d, the current strength
    time: Tensor  # 0-d, the number of calls of ``step``

    def __init__(
        self, start: float, end: float, steps: int, curve: Callable[[Tensor], Tensor], description: str
    ) -> None:
        super().__init__()
        _check_finite(start=start, end=end)
        check_integer("steps", steps, 0)
        self.start: float = float(start)
        self.end: float = float(end)
        self.steps: int = int(steps)
        self.curve = curve
        self.description = description
        self.register_buffer("time", torch.zeros((), dtype=torch.long))
        dtype = accurate(torch.get_default_dtype())
        self.register_buffer("eps", torch.zeros((), dtype=dtype), persistent=False)
        self.reset_parameters()
        self.register_load_state_dict_post_hook(_renew)

    @property
    def extremes(self) -> tuple[float, float]:
        """The smallest and the largest strength of the schedule, which a loss checks in advance."""
        return min(self.start, self.end), max(self.start, self.end)

    def reset_parameters(self) -> None:
        """Reset the time to 0. Call this after ``to_empty()`` of a module made on the meta device."""
        self.time.zero_()
        self.eps.copy_(self._now())

    def step(self) -> None:
        """Advance the time by one."""
        self.time.add_(1)
        self.eps.copy_(self._now())

    def _now(self) -> Tensor:
        share = self.curve(self.time.to(self.eps.dtype) / max(self.steps, 1))
        under_way = self.start + (self.end - self.start) * share
        return torch.where(self.time < self.steps, under_way, self.end)

    def extra_repr(self) -> str:
        now = f", now {self.eps:.3g}" if readable(self.eps) else ""
        return self.description + now


def check_strengths(name: str, eps: float | Tensor | Schedule, within: Interval = UNIT) -> None:
    """Raise a ``ValueError`` unless all strengths, also those of a schedule, are within the range."""
    for bound in eps.extremes if isinstance(eps, Schedule) else (eps,):
        check_strength(name, bound, within)


def step(eps: object) -> None:
    """Advance a strength by one step if it is a schedule."""
    if isinstance(eps, Schedule):
        eps.step()


def constant(eps: float) -> Schedule:
    r"""A constant strength as a :class:`~labelsmooth.schedules.Schedule`.

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
    r"""A linear change from one strength to another.

    .. math:: \epsilon(t) = \epsilon_0 + (\epsilon_1 - \epsilon_0) \min(t / T, 1)

    Args:
        start: The strength at time 0, finite.
        end: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` that it takes, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if a strength is not a finite number, or ``steps`` not an integer of at least 0.

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
    r"""A change from one strength to another along half a cosine wave.

    .. math:: \epsilon(t) = \epsilon_0 + (\epsilon_1 - \epsilon_0)\, \frac{1 - \cos(\pi \min(t / T, 1))}{2}

    Args:
        start: The strength at time 0, finite.
        end: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` that it takes, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if a strength is not a finite number, or ``steps`` not an integer of at least 0.

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
    r"""A linear increase from 0 to the full strength.

    .. math:: \epsilon(t) = \epsilon \min(t / T, 1)

    Args:
        eps: The strength from time ``steps`` on, finite.
        steps: T, the calls of ``step()`` that it takes, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number, or ``steps`` not an integer of at least 0.

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
    r"""No smoothing before step T and the full strength from then on, as negative smoothing needs.

    .. math:: \epsilon(t) = \epsilon \, [t \ge T]

    Args:
        eps: The strength from time ``steps`` on, finite.
        steps: T, the number of calls of ``step()`` without smoothing, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number, or ``steps`` not an integer of at least 0.

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
    r"""The full strength before step T and no smoothing from then on: two-stage label smoothing (TSLA).

    .. math:: \epsilon(t) = \epsilon \, [t < T]

    Args:
        eps: The strength before time ``steps``, finite.
        steps: T, the number of calls of ``step()`` with smoothing, at least 0.

    Returns:
        A value for ``label_smoothing=``.

    Raises:
        ValueError: if ``eps`` is not a finite number, or ``steps`` not an integer of at least 0.

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
    """Set the strength after a time was loaded."""
    assert isinstance(schedule, Schedule)
    now = schedule._now()
    if schedule.eps.device == now.device:
        schedule.eps.copy_(now)
    else:  # the loaded time replaced one on another device
        schedule.eps = now


def _check_finite(**numbers: float) -> None:
    for name, value in numbers.items():
        if not isinstance(value, (int, float, Real)) or not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, got {value!r}")
