"""Validation of arguments. Every message names the argument, the value and the rule."""

import math
from numbers import Integral, Real
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from labelsmooth._core.modes import is_dtensor, readable
from labelsmooth._core.precision import autocast


def check_choice(name: str, value: object, choices: Any) -> None:
    """Check that ``value`` is one of ``choices``, a Literal type."""
    allowed = choices.__args__  # older versions of torch.compile do not support get_args
    if not isinstance(value, str) or value not in allowed:  # an array would compare elementwise
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_tensor(name: str, value: object, *, typed: bool = False) -> None:
    """Check that ``value`` is a dense tensor of real numbers; with ``typed`` the caller checks the dtype."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
    if not typed and value.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")
    if value.is_quantized:
        raise ValueError(f"{name} must not be quantized, got {value.dtype}")
    if value.layout is not torch.strided:
        raise ValueError(f"{name} must be dense, got {value.layout}")


def check_local(**tensors: object) -> None:
    """Check that no argument is a DTensor, whose values are distributed over several processes."""
    for name, value in tensors.items():
        if is_dtensor(value):
            raise ValueError(
                f"{name} must be a plain tensor here, got a DTensor placed by {value.placements}"
            )


def check_values(name: str, rule: str, values: Tensor, good: Tensor) -> None:
    if readable(values, good) and not bool(good.all()):
        raise ValueError(f"{name} must {rule}, got {first(values, ~good)}")


def check_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_dim(dim: object, hint: str = "") -> None:
    if not isinstance(dim, Integral):
        raise ValueError(f"dim must be an integer, got {dim!r}{hint}")


PARTS: Final = ("probabilities", "classes", "first", "second", "lam", "eps")
"""The attributes in which priors, mixup labels, and strengths by class or over time keep their tensors."""


def check_devices(device: torch.device, **others: object) -> None:
    """Check that all tensors of a call are on the device of its input."""
    for name, value in others.items():
        if value is None or isinstance(value, (int, float)):  # torch.compile has no getattr on numbers
            continue
        if isinstance(value, Tensor) and value.device == device:
            continue
        held = {"": value} if isinstance(value, Tensor) else {p: getattr(value, p, None) for p in PARTS}
        for part, x in held.items():
            if not isinstance(x, Tensor) or x.device == device:
                continue
            # As in torch, a 0-d tensor on a CPU goes with every device. A label, which is an index, does not.
            number = x.dim() == 0 or name == "denominator"
            if not number or x.device.type != "cpu" or (name == "target" and part != "lam"):
                raise ValueError(f"{name} must be on input's device {device}, got {x.device}")


def check_number(name: str, value: object, *, above_zero: bool = False) -> None:
    if not isinstance(value, (int, float, Real)):
        raise ValueError(f"{name} must be a number, got {type(value).__name__}")
    number: Any = value
    if not 0 <= number < float("inf") or (above_zero and not number):
        raise ValueError(f"{name} must be finite and {'above' if above_zero else 'at least'} 0, got {value}")


class Interval(NamedTuple):
    """The interval from ``low`` to ``high``, without infinite ends, and without ``high`` if ``open``."""

    low: float
    high: float
    open: bool = False

    def has(self, x: Any) -> Any:
        below = x < self.high if self.open or self.high == math.inf else x <= self.high
        return (x >= self.low) & below & (x > -math.inf)

    def __str__(self) -> str:
        left = "(" if self.low == -math.inf else "["
        right = ")" if self.open or self.high == math.inf else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


UNIT = Interval(0, 1)


def check_strength(name: str, eps: object, within: Interval = UNIT) -> None:
    if not isinstance(eps, (Tensor, int, float, Real)):
        raise ValueError(f"{name} must be a number or a tensor, got {type(eps).__name__}")
    if isinstance(eps, Tensor):
        check_tensor(name, eps)
        if readable(eps) and not bool(within.has(eps).all()):
            raise ValueError(f"{name} must lie in {within}, got {first(eps, ~within.has(eps))}")
    elif not within.has(eps):
        raise ValueError(f"{name} must lie in {within}, got {eps}")


def check_broadcasts(name: str, value: Tensor, shape: torch.Size, what: str, hint: str = "") -> None:
    """Check that ``value`` broadcasts against ``shape`` without enlarging it."""
    trailing = shape[len(shape) - value.dim() :] if value.dim() <= len(shape) else None
    if trailing is None or any(v not in (1, s) for v, s in zip(value.shape, trailing, strict=True)):
        raise ValueError(
            f"{name} must broadcast against {what} {tuple(shape)}, got {tuple(value.shape)}{hint}"
        )


def check_one(name: str, eps: object) -> None:
    """Check that a strength is a single number."""
    if isinstance(eps, Tensor):
        hint = "; CrossEntropyLoss takes one for each sample, or by_class(...)"
        check_broadcasts(name, eps, torch.Size(), "a scalar's shape", hint)


ROUNDING: Final = torch.finfo(torch.bfloat16).eps
"""The tolerance for the sum of a distribution, which may have been rounded to half precision."""


def as_strength(
    name: str, eps: float | Tensor, like: Tensor, what: str, within: Interval = UNIT, hint: str = ""
) -> Tensor:
    """A strength as a tensor of the dtype of ``like`` that broadcasts against it; NaN where out of range."""
    check_strength(name, eps, within)
    if isinstance(eps, Tensor):
        check_broadcasts(name, eps, like.shape, what, hint)
        # A copy: a strength that changes before the backward pass does not change this loss.
        checked, eps = readable(eps), eps.to(like.dtype)
        eps = eps.clone() if checked else torch.where(within.has(eps), eps, torch.nan)
        return eps if eps.device == like.device else like.new_ones(()) * eps  # a number on a CPU
    if torch.compiler.is_compiling():
        return like.new_ones(()) * eps  # arithmetic keeps the float symbolic: one graph for all
    return like.new_full((), eps)


def check_prior(prior: Tensor, num_classes: int) -> None:
    check_prior_shape(prior, num_classes)
    if not prior.is_floating_point():
        raise ValueError(f"prior must be floating point, got {prior.dtype}")
    if readable(prior):
        if not bool((prior >= 0).all()):
            raise ValueError(f"prior must not be negative or NaN, got {first(prior, ~(prior >= 0))}")
        total = prior.sum(-1, dtype=torch.float64)
        sums_to_1 = (total - 1).abs() <= ROUNDING
        if not bool(sums_to_1.all()):
            raise ValueError(f"prior must sum to 1, got {first(total, ~sums_to_1)}")


def check_prior_shape(prior: Tensor, num_classes: int) -> None:
    check_tensor("prior", prior, typed=True)
    check_local(prior=prior)
    # The sizes are compared one by one, as a symbolic size is not found in a tuple.
    if prior.dim() not in (1, 2) or any(size != num_classes for size in prior.shape):
        raise ValueError(
            f"prior must have shape (K,) or (K, K) with K={num_classes} classes, got {tuple(prior.shape)}"
            + ("; see priors.per_sample for one of each sample" if prior.dim() > 1 else "")
        )


def check_class_weight(weight: Tensor, num_classes: int) -> None:
    check_tensor("weight", weight)
    check_local(weight=weight)
    if tuple(weight.shape) != (num_classes,):
        raise ValueError(
            f"weight must have shape (K,) with K={num_classes} classes, got {tuple(weight.shape)}"
        )


def check_head(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> torch.dtype:
    """Check that the parts of a linear head fit together, and return the dtype of its product."""
    given = {"input": input, "linear_weight": linear_weight, "linear_bias": linear_bias}
    check_local(**given)
    for name, value in given.items():
        if name == "linear_bias" and value is None:
            continue
        check_tensor(name, value, typed=True)
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {value.dtype}")
    if linear_weight.dim() < 2 or linear_weight.size(0) == 0:
        raise ValueError(f"linear_weight must have shape (K, D), got {tuple(linear_weight.shape)}")
    features = linear_weight.size(-1)
    if input.dim() == 0 or input.size(-1) != features:
        raise ValueError(
            f"input must have shape (..., D) with D={features} as linear_weight, got {tuple(input.shape)}"
        )
    if linear_weight.dim() > 2 and input.dim() != 2:
        raise ValueError(
            f"input must have shape (N, D) for linear_weight of shape {tuple(linear_weight.shape)}, "
            f"got {tuple(input.shape)}"
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise ValueError(
            f"linear_bias must have shape {tuple(linear_weight.shape[:-1])}, got {tuple(linear_bias.shape)}"
        )
    check_devices(input.device, linear_weight=linear_weight, linear_bias=linear_bias)
    device = input.device.type
    if autocast(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    for name, value in given.items():
        if value is not None and value.dtype != input.dtype:
            raise ValueError(f"{name} must have input's type {input.dtype}, got {value.dtype}")
    return input.dtype


def check_denominator(denominator: float | Tensor, reduction: str) -> None:
    if reduction != "mean":
        raise ValueError(f'denominator goes with reduction="mean" only, got reduction={reduction!r}')
    if isinstance(denominator, Tensor):
        check_tensor("denominator", denominator)
        if denominator.numel() != 1:
            raise ValueError(
                f"denominator must be one number, got a tensor of shape {tuple(denominator.shape)}"
            )
        if not readable(denominator):
            return
    elif not isinstance(denominator, (int, float, Real)):
        raise ValueError(f"denominator must be a number or a tensor, got {type(denominator).__name__}")
    if not denominator >= 0:
        raise ValueError(f"denominator must not be negative or NaN, got {denominator}")


def first(values: Tensor, bad: Tensor) -> float | int:
    """The first bad value, for an error message."""
    return values.detach()[bad][0].item()
