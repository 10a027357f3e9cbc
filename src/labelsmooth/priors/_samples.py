"""Priors of each sample's own."""

import itertools

import torch
from torch import Tensor

from labelsmooth._core.checks import check_integer, check_number, check_tensor, check_values
from labelsmooth._core.precision import accurate
from labelsmooth._core.statistics import class_dim_of
from labelsmooth.priors._distributions import PerSample

SMALL = 1e-30  # as good as 0, and divides in float32


def per_sample(
    probabilities: Tensor, classes: Tensor | None = None, *, class_dim: int | None = None
) -> PerSample:
    r"""A distribution for each sample: over all classes, or over the few that are named.

    .. math::
        \pi_{ik} = P_{ik} \qquad\text{or}\qquad
        \pi_{ik} = \frac{\sum_{j : c_{ij} = k} P_{ij}}{\sum_j P_{ij}}

    Args:
        probabilities: P, at least 0. Without ``classes``, in the shape of the loss's input, and each sums to
            1. With them, ``(..., k)``: the loss's target's shape, and k; they are renormalised, and where all
            are 0 the loss takes the label itself.
        classes: c, the classes that the probabilities are of, ``(..., k)``, integers of at least 0. One that
            appears twice has the sum. No N x K tensor is made of them.
        class_dim: Where the classes are in ``probabilities``, if they are over all of them. None is torch's
            dimension, 1, or 0 if there is no other.

    Returns:
        A value for ``prior=`` that goes with these samples alone. It is a constant: no gradient reaches
        ``probabilities``.

    Raises:
        ValueError: if an argument has a wrong type or shape. Values are the loss's to check, on a CPU: rows
            that do not count may hold anything.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> priors.per_sample(torch.tensor([[0.7, 0.2, 0.1]]))
        PerSample(whole, shape (1, 3))
        >>> priors.per_sample(torch.tensor([[0.75, 0.25]]), classes=torch.tensor([[21, 7]]))
        PerSample(2 classes each, shape (1, 2))

    Reference:
        Yuan et al., *Revisiting Knowledge Distillation via Label Smoothing Regularization*, CVPR 2020.
    """
    check_tensor("probabilities", probabilities)
    if not probabilities.is_floating_point() or not probabilities.dim():
        raise ValueError(
            f"probabilities must be floating point of shape (N, K) or so, got {probabilities.dtype} of shape "
            f"{tuple(probabilities.shape)}"
        )
    p = probabilities.detach()
    if classes is None:
        dim = class_dim_of(p.dim(), class_dim)
        if not -p.dim() <= dim < p.dim():
            raise ValueError(f"probabilities of shape {tuple(p.shape)} have no class dimension {dim}")
        return PerSample(p)
    if class_dim is not None:
        raise ValueError(f"class_dim goes with probabilities of all classes only, got {class_dim}")
    check_tensor("classes", classes)
    if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
        raise ValueError(f"classes must hold integer class indices, got {classes.dtype}")
    if classes.shape != p.shape:
        raise ValueError(
            f"classes must have the shape of probabilities {tuple(p.shape)}, got {tuple(classes.shape)}"
        )
    total = p.sum(-1, keepdim=True, dtype=torch.float64)
    return PerSample((p / total.masked_fill(total == 0, 1.0)).to(accurate(p.dtype)), classes.long())


def teacher(
    logits: Tensor, temperature: float = 1.0, k: int | None = None, *, class_dim: int | None = None
) -> PerSample:
    r"""What a teacher says of each sample: all of it, or its k most probable classes.

    .. math:: \pi_i = \mathrm{softmax}(t_i / T)

    With k, over the k largest logits of each sample only.

    Args:
        logits: t, in the shape of the loss's input, any floating-point type. -inf is a masked class.
        temperature: T, above 0: the higher, the more even.
        k: How many classes to keep of each sample, in ``[1, K]``. With it nothing N x K is made beside the
            logits given. None keeps all.
        class_dim: Where the classes are in ``logits``. None is torch's dimension, 1, or 0 if there is no
            other.

    Returns:
        A value for ``prior=`` that goes with these samples alone, in float32 (float64 if the logits are). It
        is a constant: no gradient reaches the teacher.

    Raises:
        ValueError: if an argument has a wrong type or shape. Values are the loss's to check, on a CPU: rows
            that do not count may hold anything.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> logits = torch.tensor([[2.0, 0.0, 4.0], [0.0, 1.0, 1.0]])
        >>> prior = priors.teacher(logits, temperature=2.0, k=2)
        >>> prior
        PerSample(2 classes each, shape (2, 2))
        >>> prior.probabilities[0], prior.classes[0]
        (tensor([0.7311, 0.2689]), tensor([2, 0]))

    Reference:
        Hinton et al., *Distilling the Knowledge in a Neural Network*, NIPS Workshop 2014; the k largest, Tan
        et al., *Multilingual Neural Machine Translation with Knowledge Distillation*, ICLR 2019.
    """
    check_tensor("logits", logits)
    if not logits.is_floating_point():
        raise ValueError(f"logits must be floating point, got {logits.dtype}")
    check_number("temperature", temperature, above_zero=True)
    dim = class_dim_of(logits.dim(), class_dim)
    if not logits.dim() or not -logits.dim() <= dim < logits.dim() or not logits.size(dim):
        raise ValueError(f"logits of shape {tuple(logits.shape)} have no class in dimension {dim}")
    t = logits.detach()
    if k is None:
        return PerSample(_tempered(t, temperature, dim))
    check_integer("k", k, 1)
    if k > t.size(dim):
        raise ValueError(f"k must be at most K={t.size(dim)} classes, got {k}")
    values, classes = (part.movedim(dim, -1) for part in t.topk(k, dim))
    return PerSample(_tempered(values, temperature, -1), classes)


def _tempered(t: Tensor, temperature: float, dim: int) -> Tensor:
    """softmax(t / T), of the least T too: the largest has it all then."""
    t = t.to(accurate(t.dtype))
    return ((t - t.amax(dim, keepdim=True)) / max(temperature, SMALL)).softmax(dim)


def neighbourhood(
    labels: Tensor, size: int = 3, sigma: float | None = None, *, ignore_index: int = -100
) -> PerSample:
    r"""For the segmentation of maps: how often each label stands around a position.

    .. math::
        \pi_i(k) = \frac{\sum_{o \neq 0} w_o\, [y_{i+o} = k]}
        {\sum_{o \neq 0} w_o\, [y_{i+o} \neq \text{ignored}]},
        \qquad w_o = 1 \;\text{ or }\; e^{-|o|^2 / (2\sigma^2)}

    The offsets o fill a square (an interval, a cube) of that size without its centre. Beyond the border the
    label of the nearest position inside is repeated. With a Gaussian of ``sigma=1`` and
    ``label_smoothing=0.5`` this is spatially varying label smoothing (SVLS), where nothing is ignored.

    Args:
        labels: y, class indices, the loss's target, ``(N, d1)``, ``(N, d1, d2)`` or ``(N, d1, d2, d3)``, of
            any integer type.
        size: The side of the neighbourhood, in positions, odd and at least 3.
        sigma: The Gaussian's standard deviation, in positions, above 0. None weights all neighbours alike.
        ignore_index: The label of positions that do not count, as neighbours either. Where all neighbours are
            ignored, all probabilities are 0, and the loss takes the label itself for the prior.

    Returns:
        A value for ``prior=`` that goes with these maps alone: ``size**dimensions - 1`` classes for each
        position, never K.

    Raises:
        ValueError: if an argument has a wrong type, shape or value. Labels are looked at on a CPU only.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> prior = priors.neighbourhood(torch.tensor([[0, 0, 1, 2]]))
        >>> prior
        PerSample(2 classes each, shape (1, 4, 2))
        >>> prior.classes[0, 2], prior.probabilities[0, 2]
        (tensor([0, 2]), tensor([0.5000, 0.5000]))

    Reference:
        Islam and Glocker, *Spatially Varying Label Smoothing: Capturing Uncertainty from Expert Annotations*,
        IPMI 2021; the box, Murugesan et al., *Trust Your Neighbours: Penalty-Based Constraints for Model
        Calibration*, MICCAI 2023.
    """
    check_tensor("labels", labels)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(f"labels must hold integer class indices, got {labels.dtype}")
    if not 2 <= labels.dim() <= 4 or not all(labels.shape[1:]):
        raise ValueError(
            f"labels must have shape (N, d1), (N, d1, d2) or (N, d1, d2, d3), got {tuple(labels.shape)}"
        )
    check_integer("size", size, 3)
    if size % 2 == 0:
        raise ValueError(f"size must be odd, got {size}")
    if sigma is not None:
        check_number("sigma", sigma, above_zero=True)
    labels = labels.long()
    valid = (labels >= 0) | (labels == ignore_index)
    check_values("labels", f"be at least 0 or ignore_index={ignore_index}", labels, valid)
    size = int(size)  # which may be NumPy's own, without a sign
    around, reach, spatial = labels, size // 2, range(1, labels.dim())
    for d in spatial:
        inside = torch.arange(-reach, labels.size(d) + reach, device=labels.device)
        around = around.index_select(d, inside.clamp(0, labels.size(d) - 1)).unfold(d, size, 1)
    around = around.flatten(labels.dim())
    offsets = list(itertools.product(range(-reach, reach + 1), repeat=len(spatial)))
    neighbours = [i for i, offset in enumerate(offsets) if any(offset)]
    around = around[..., torch.tensor(neighbours, device=labels.device)]
    squares = torch.tensor([float(sum(o * o for o in offsets[i])) for i in neighbours], device=labels.device)
    ignored = around == ignore_index
    logits = torch.zeros_like(squares) if sigma is None else -squares / 2
    logits = torch.where(ignored, -torch.inf, logits)
    pi = _tempered(logits, 1.0 if sigma is None else sigma**2, -1)
    pi = pi.masked_fill(ignored.all(-1, keepdim=True), 0.0)
    return PerSample(pi, around.masked_fill(ignored, 0))
