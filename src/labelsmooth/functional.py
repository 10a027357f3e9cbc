r"""Losses as pure functions.

In all of them z are the logits of a row, K the number of classes, :math:`q_\theta = \mathrm{softmax}(z)`
the model, p the (smoothed) target, eps the smoothing, pi the prior and
:math:`\mathrm{lse}(z) = \log \sum_k \exp z_k`. Losses are in nats.
"""

from typing import Literal, TypedDict, Unpack, overload

import torch
from torch import Tensor

from labelsmooth.checks import (
    as_rows,
    check_broadcasts,
    check_choice,
    check_class_weight,
    check_denominator,
    check_others,
    check_prior,
    check_strength,
)
from labelsmooth.engines.reference import RowStatistics, row_statistics, times
from labelsmooth.reduction import Reduction, reduce
from labelsmooth.targets import ByClass, OffTarget, Strength, Weighting


def nll(s: RowStatistics) -> Tensor:
    """H(target, q): the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, s.prior_mass * s.lse - s.prior_z)


def smoothed_entropy(eps: Tensor, num_classes: Tensor) -> Tensor:
    """H(p) of a target smoothed toward the uniform distribution over ``num_classes`` classes."""
    off = eps / num_classes
    entr = torch.special.entr
    return entr(1 - eps + off) + (num_classes - 1) * entr(off)


class CrossEntropyOptions(TypedDict, total=False):
    """The keyword options of :func:`cross_entropy` that leave its return type alone."""

    ignore_index: int
    reduction: Reduction
    label_smoothing: Strength
    prior: Tensor | None
    off_target: OffTarget
    weighting: Weighting
    sample_weight: Tensor | None
    denominator: float | Tensor | None


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[False] = False,
    **options: Unpack[CrossEntropyOptions],
) -> Tensor: ...


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[True],
    **options: Unpack[CrossEntropyOptions],
) -> tuple[Tensor, Tensor]: ...


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: Strength = 0.0,
    prior: Tensor | None = None,
    off_target: OffTarget = "all",
    weighting: Weighting = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
    return_nll: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross entropy to a smoothed target; a superset of :func:`torch.nn.functional.cross_entropy`.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    Classes whose logit is -inf are masked: the prior is renormalised over the others, and the loss stays
    finite unless the target is masked and keeps some mass. Masks by large finite values are not detected.

    Args:
        input: Logits, ``(K,)``, ``(N, K)`` or ``(N, K, d1, ...)``, any floating-point type.
        target: Class indices in ``[0, K)`` of any integer type, in the input's shape without K; or class
            probabilities in the input's shape.
        weight: A weight for each class, ``(K,)``.
        ignore_index: Class index of rows that do not count.
        reduction: "none" gives one loss per row, "sum" their sum, "mean" the sum divided by what counts: the
            rows, each times its sample weight and, for class indices or weighting "sample", its class weight.
        label_smoothing: eps, in ``[0, 1]``: a number, a tensor that broadcasts against the rows (the
            target's shape; for class probabilities, without K), or :func:`labelsmooth.by_class`.
        prior: pi: a distribution over the classes, ``(K,)``, or a matrix ``(K, K)`` whose row k serves the
            samples of class k. None is uniform.
        off_target: Where eps goes: to "all" classes (torch), or to the "others" (fairseq, espnet, Megatron),
            eps / (K - 1) each, and with a prior what that leaves without the target class, renormalised.
        weighting: What ``weight`` does. "torch" weights the classes inside the smoothed sum, which bends the
            target; "sample" weights each row by its class and leaves the target alone.
        sample_weight: A factor for each row's loss, and for what it counts in the mean, that broadcasts
            against the rows. Rows of weight 0 do not count, whatever they hold.
        denominator: Divides a "mean" instead of what counts, at least 0: the number of tokens of all
            processes, say. With it the mean over nothing is 0, without it NaN.
        return_nll: Whether to return the loss without smoothing too.

    Returns:
        The loss in float32 (float64 if the input is): a scalar, or one per row for "none". With
        ``return_nll``, a pair (loss, nll): nll has eps = 0, the same weights and reduction, no gradient.

    Raises:
        ValueError: naming the argument that is out of its range, or has a wrong shape or type. Values are
            looked at on a CPU outside of ``torch.compile`` and ``torch.func`` only; elsewhere a
            smoothing outside ``[0, 1]`` gives NaN.

    Example:
        >>> input = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> target = torch.tensor([0, 1])
        >>> cross_entropy(input, target, label_smoothing=0.1)
        tensor(0.3157)
        >>> loss, nll = cross_entropy(input, target, label_smoothing=0.1, return_nll=True)
        >>> nll
        tensor(0.1324)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    check_choice("reduction", reduction, Reduction)
    check_choice("off_target", off_target, OffTarget)
    check_choice("weighting", weighting, Weighting)
    if denominator is not None:
        check_denominator(denominator, reduction)
    rows = as_rows(input, target, ignore_index=ignore_index, sample_weight=sample_weight)
    z, soft = rows.z, rows.target.is_floating_point()
    if prior is not None:
        check_prior(prior, z.size(-1))
        prior = prior.to(z.dtype)
    if off_target == "others":
        check_others(prior, z.size(-1))
    scale = counts = rows.counted.to(z.dtype)
    if sample_weight is not None:
        scale = counts = torch.where(rows.counted, sample_weight, 0.0).to(z.dtype)
    if weight is not None:
        check_class_weight(weight, z.size(-1))
        weight = weight.to(z.dtype)
        row_weight = (rows.target * weight).sum(-1) if soft else weight[rows.target]
        if weighting == "sample":
            scale = counts = scale * row_weight
            weight = None
        elif not soft and denominator is None:
            counts = scale * row_weight

    statistics = row_statistics(z, rows.target, prior, weight, exclude_target=off_target == "others")
    eps = _strength("label_smoothing", label_smoothing, rows.target, z)
    loss = reduce(times(scale, smoothed_nll(statistics, eps)), counts, reduction, denominator)
    if not return_nll:
        return loss
    return loss, reduce(times(scale, nll(statistics)), counts, reduction, denominator).detach()


def label_smoothing_loss(
    pred: Tensor, target: Tensor, smoothing: float | Tensor = 0.1, dim: int = -1
) -> Tensor:
    r"""The Kullback-Leibler divergence from the smoothed target to the model, summed, per ``pred.size(0)``.

    .. math::
        \frac{1}{N} \sum_i \mathrm{KL}(p_i \,\|\, q_\theta) = \frac{1}{N} \sum_i H(p_i, q_\theta) - H(p_i),
        \qquad p = (1 - s)\, e_y + s / K

    It is ``KLDivLoss(reduction="batchmean")(log_softmax(pred), p)``: :func:`cross_entropy` less the entropy
    of the target, so its gradient is cross entropy's and its least value 0.

    Args:
        pred: Logits of any shape with at least one dimension, the classes in dimension ``dim``.
        target: Class indices in ``[0, K)``, in the shape of ``pred`` without ``dim``.
        smoothing: s, in ``[0, 1]``; a number or a 0-d tensor.
        dim: The class dimension.

    Returns:
        A scalar in nats, float32 (float64 if ``pred`` is). NaN for an empty batch.

    Raises:
        ValueError: naming the argument that is out of its range, or has a wrong shape or type.

    Example:
        >>> pred = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> label_smoothing_loss(pred, torch.tensor([0, 1]))
        tensor(0.0246)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    rows = as_rows(pred, target, dim, ignore_index=None)
    if rows.target.is_floating_point():
        raise ValueError(f"target must hold class indices, got {target.dtype}")
    if isinstance(smoothing, Tensor):
        check_broadcasts("smoothing", smoothing, torch.Size(), "a scalar's shape")
    eps = _strength("smoothing", smoothing, rows.target, rows.z)
    statistics = row_statistics(rows.z, rows.target)
    num_valid = statistics.valid_mass * rows.z.size(-1)
    divergence = smoothed_nll(statistics, eps) - smoothed_entropy(eps, num_valid)
    return reduce(divergence, rows.counted, "sum") / pred.size(0)


def _strength(name: str, eps: Strength, target: Tensor, z: Tensor) -> Tensor:
    """eps as a tensor that broadcasts against the rows of ``z``; NaN where it is out of range."""
    if isinstance(eps, ByClass):
        if target.is_floating_point():
            raise ValueError(f"{name}: by_class goes with class indices, got class probabilities")
        if eps.eps.numel() != z.size(-1):
            raise ValueError(f"{name}: by_class has K={eps.eps.numel()} classes, input K={z.size(-1)}")
        eps = eps.eps[target]
    check_strength(name, eps)
    if isinstance(eps, Tensor):
        check_broadcasts(name, eps, z.shape[:-1], "the rows'")
        eps = eps.to(z.dtype)
        return torch.where((eps >= 0) & (eps <= 1), eps, torch.nan)
    return z.new_ones(()) * eps  # arithmetic: torch.compile keeps the float open, one graph for all
