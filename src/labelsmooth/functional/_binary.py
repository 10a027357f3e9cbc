"""Binary (multilabel) cross entropy to smoothed labels."""

from typing import Literal, TypedDict, Unpack, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth._core.checks import (
    as_strength,
    check_broadcasts,
    check_choice,
    check_denominator,
    check_devices,
    check_local,
    check_tensor,
)
from labelsmooth._core.keywords import takes
from labelsmooth._core.overrides import overridable
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.reduction import Reduction, reduce
from labelsmooth._targets.options import OffTarget
from labelsmooth.schedules import Schedule

BinaryStrength = float | Tensor | Schedule


class BinaryOptions(TypedDict, total=False):
    """The options of a binary cross entropy."""

    pos_weight: Tensor | None
    reduction: Reduction
    label_smoothing: BinaryStrength
    prior: float | Tensor | None
    off_target: OffTarget
    denominator: float | Tensor | None


@overload
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[False] = False,
    **options: Unpack[BinaryOptions],
) -> Tensor: ...


@overload
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[True],
    **options: Unpack[BinaryOptions],
) -> tuple[Tensor, Tensor]: ...


@overridable
@takes()
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    pos_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    label_smoothing: BinaryStrength = 0.0,
    prior: float | Tensor | None = None,
    off_target: OffTarget = "all",
    denominator: float | Tensor | None = None,
    return_nll: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Binary (multilabel) cross entropy to smoothed labels; a superset of torch's function of this name.

    .. math::
        \ell = -w \left[ w_+\, p \log \sigma(x) + (1 - p) \log (1 - \sigma(x)) \right], \qquad
        p = (1 - \epsilon)\, t + \epsilon\, \pi

    It differs from :func:`torch.nn.functional.binary_cross_entropy_with_logits` in four ways. Half precision
    gives a float32 loss. Targets may be integers or booleans. Elements of weight 0 affect neither the loss
    nor a gradient, even if they hold NaN. All arguments after ``weight`` are keyword-only.

    Args:
        input: Logits x, any shape and floating-point type.
        target: t, 0 or 1, or a probability between them, in the input's shape.
        weight: w, a factor of each loss that broadcasts against the input. A mean does not divide by it.
        pos_weight: A factor of the positive part that broadcasts against the input, usually one per label,
            ``(C,)``. It multiplies the smoothed target. As in torch, it has no gradient.
        reduction: "none" gives one loss per element, "sum" their sum, "mean" their sum divided by the number
            of elements.
        label_smoothing: eps, in ``[0, 1]``: a number, a tensor that broadcasts against the input (0-d; per
            label, ``(C,)``; per sample, ``(N, 1)``), or one of :mod:`labelsmooth.schedules`.
        prior: pi, the probability of a positive, in ``[0, 1]``: a number, or a tensor that broadcasts against
            the input. None is 1/2.
        off_target: Where eps goes. "all" spreads it over positive and negative (Keras, optax: eps / 2 and
            1 - eps / 2 with the prior 1/2). "others" gives it to the opposite label (pytorch-toolbelt,
            segmentation_models.pytorch, mmpretrain: eps and 1 - eps, twice as strong).
        denominator: Divides a "mean" in place of the number of elements, at least 0; for example their number
            over all processes or accumulated steps. With it an empty mean is 0, without it NaN.
        return_nll: Whether to return the loss without smoothing as well.

    Returns:
        The loss in nats, float32 (float64 if the input is), a scalar or in the input's shape for "none".
        With ``return_nll``, a pair (loss, nll), where nll has eps = 0, the same weights and reduction, and no
        gradient.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type. Values of tensors are
            checked on a CPU outside of ``torch.compile`` and ``torch.func``; elsewhere a smoothing or prior
            outside ``[0, 1]`` gives NaN. As in torch, values of the target are not checked.

    Example:
        >>> input, target = torch.tensor([[2.0, -1.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
        >>> binary_cross_entropy_with_logits(input, target, label_smoothing=0.1)
        tensor(0.4278)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    check_options(reduction, off_target, prior)
    if denominator is not None:
        check_denominator(denominator, reduction)
    x, t = _logits(input), _labels(target, input)
    check_devices(
        input.device,
        target=target,
        weight=weight,
        pos_weight=pos_weight,
        label_smoothing=label_smoothing,
        prior=prior,
        denominator=denominator,
    )
    eps = _share("label_smoothing", label_smoothing, x)
    pi = _share("prior", 0.5 if prior is None else prior, x)
    weight, pos_weight = _factor("weight", weight, x), _factor("pos_weight", pos_weight, x)
    counted = None if weight is None else weight != 0

    def blanked(value: Tensor, blank: float = 0.0) -> Tensor:
        return value if counted is None else torch.where(counted, value, blank)

    def cross_entropy(x: Tensor, p: Tensor) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(
            x,
            blanked(p),
            pos_weight=None if pos_weight is None else blanked(pos_weight, 1.0),
            reduction="none",
        )
        if weight is not None:  # here, since torch's function has no gradient by it
            loss = blanked(weight) * loss
        counts = x.new_ones(()) if weight is None or denominator is None else weight
        return reduce(loss, counts.expand_as(loss), reduction, denominator)

    x, t = blanked(x), blanked(t)
    loss = cross_entropy(x, (1 - eps) * t + eps * (1 - t if off_target == "others" else pi))
    if not return_nll:
        return loss
    with torch.no_grad():
        return loss, cross_entropy(x, t)


def check_options(reduction: Reduction, off_target: OffTarget, prior: float | Tensor | None) -> None:
    check_choice("reduction", reduction, Reduction)
    check_choice("off_target", off_target, OffTarget)
    if prior is not None and off_target == "others":
        raise ValueError(
            'prior goes with off_target="all" only: "others" gives all of eps to the opposite label'
        )


def _logits(input: Tensor) -> Tensor:
    check_tensor("input", input, typed=True)
    check_local(input=input)
    if not input.is_floating_point():
        raise ValueError(f"input must hold floating-point logits, got {input.dtype}")
    return input.to(compute_dtype(input))


def _labels(target: Tensor, input: Tensor) -> Tensor:
    check_tensor("target", target)
    check_local(target=target)
    if target.shape != input.shape:
        raise ValueError(f"target must have input's shape {tuple(input.shape)}, got {tuple(target.shape)}")
    return target.to(compute_dtype(input))


def _share(name: str, value: BinaryStrength, x: Tensor) -> Tensor:
    """A number in [0, 1] as a tensor that broadcasts against the logits; NaN if out of range."""
    return as_strength(name, value.eps if isinstance(value, Schedule) else value, x, "input")


def _factor(name: str, value: Tensor | None, x: Tensor) -> Tensor | None:
    if value is None:
        return None
    check_tensor(name, value)
    check_broadcasts(name, value, x.shape, "input")
    return value.to(x.dtype)
