"""Per-sample priors."""

import itertools

import torch
from torch import Tensor

from labelsmooth._core.checks import check_integer, check_number, check_tensor, check_values
from labelsmooth._core.precision import accurate
from labelsmooth._core.statistics import class_dim_of
from labelsmooth.priors._distributions import PerSample

SMALL = 1e-30  # the smallest divisor, representable in float32


def per_sample(probabilities: Tensor, classes: Tensor | None = None, *, dim: int | None = None) -> PerSample:
    r"""A distribution for each sample, over all classes or over k given classes.

    .. math::
        \pi_{ik} = P_{ik} \qquad\text{or}\qquad
        \pi_{ik} = \frac{\sum_{j : c_{ij} = k} P_{ij}}{\sum_j P_{ij}}

    Args:
        probabilities: P, at least 0. Without ``classes``: the shape of the loss's input, each distribution
            summing to 1. With ``classes``: ``(..., k)``, the shape of the loss's target and k; they are
            renormalised, and a row of zeros stands for the label itself.
        classes: c, the classes of the probabilities, ``(..., k)``, integers of at least 0. The probabilities
            of a repeated class are added. No N x K tensor is materialized.
        dim: The class dimension of ``probabilities`` without ``classes``. None is torch's: 1, or 0 for a
            single dimension.

    Returns:
        A value for ``prior=`` with these samples. It is a constant, without a gradient to ``probabilities``.

    Raises:
        ValueError: if an argument has a wrong dtype or shape. The loss checks the values, on a CPU only;
            ignored rows may hold any values.

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
            "probabilities must be floating point in the shape of the loss's input, such as (N, K), "
            f"got {probabilities.dtype} of shape {tuple(probabilities.shape)}"
        )
    p = probabilities.detach()
    if classes is None:
        class_dim = class_dim_of(p.dim(), dim)
        if not -p.dim() <= class_dim < p.dim():
            raise ValueError(f"dim must be a dimension of probabilities {tuple(p.shape)}, got {class_dim}")
        return PerSample(p)
    if dim is not None:
        raise ValueError(f"dim must not be given together with classes, got {dim}")
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
    logits: Tensor, temperature: float = 1.0, k: int | None = None, *, dim: int | None = None
) -> PerSample:
    r"""The predictions of a teacher, over all classes or its k most probable classes.

    .. math:: \pi_i = \mathrm{softmax}(t_i / T)

    With k, the softmax is over the k largest logits of each sample.

    Args:
        logits: t, in the shape of the loss's input, of any floating-point dtype. -inf is a masked class.
        temperature: T, above 0. A higher value gives a more uniform prior.
        k: The number of classes to keep for each sample, in ``[1, K]``. With k, no N x K tensor is
            materialized beside the logits. None keeps all classes.
        dim: The class dimension of ``logits``. None is torch's: 1, or 0 for a single dimension.

    Returns:
        A value for ``prior=`` with these samples, in float32 (float64 for float64 logits). It is a constant:
        no gradient flows to the teacher.

    Raises:
        ValueError: if an argument has a wrong dtype or shape. The loss checks the values, on a CPU only;
            ignored rows may hold any values.

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
    dim = class_dim_of(logits.dim(), dim)
    if not logits.dim() or not -logits.dim() <= dim < logits.dim() or not logits.size(dim):
        raise ValueError(
            f"logits must have at least one class in dimension {dim}, got shape {tuple(logits.shape)}"
        )
    t = logits.detach()
    if k is None:
        return PerSample(_tempered(t, temperature, dim))
    check_integer("k", k, 1)
    if k > t.size(dim):
        raise ValueError(f"k must be at most K={t.size(dim)} classes, got {k}")
    values, classes = (part.movedim(dim, -1) for part in t.topk(k, dim))
    return PerSample(_tempered(values, temperature, -1), classes)


def _tempered(t: Tensor, temperature: float, dim: int) -> Tensor:
    """softmax(t / T). For a very small T the largest logit gets all the probability."""
    t = t.to(accurate(t.dtype))
    return ((t - t.amax(dim, keepdim=True)) / max(temperature, SMALL)).softmax(dim)


def neighbourhood(
    labels: Tensor, size: int = 3, sigma: float | None = None, *, ignore_index: int = -100
) -> PerSample:
    r"""For segmentation maps: how often each label occurs in the neighbourhood of a pixel.

    .. math::
        \pi_i(k) = \frac{\sum_{o \neq 0} w_o\, [y_{i+o} = k]}
        {\sum_{o \neq 0} w_o\, [y_{i+o} \neq \text{ignored}]},
        \qquad w_o = 1 \;\text{ or }\; e^{-|o|^2 / (2\sigma^2)}

    The offsets o fill a square (an interval in 1D, a cube in 3D) of side ``size`` without its centre. The
    border is padded with the nearest label. With a Gaussian of ``sigma=1``, ``label_smoothing=0.5`` and no
    ignored pixels this is spatially varying label smoothing (SVLS).

    Args:
        labels: y, class indices, the loss's target, ``(N, d1)``, ``(N, d1, d2)`` or ``(N, d1, d2, d3)``, of
            any integer dtype.
        size: The side of the neighbourhood, in pixels, odd and at least 3.
        sigma: The Gaussian's standard deviation, in pixels, above 0. None weights all neighbours equally.
        ignore_index: The label of ignored pixels, which are ignored as neighbours, too. If all neighbours of
            a pixel are ignored, its probabilities are 0, which stands for the label itself.

    Returns:
        A value for ``prior=`` with these segmentation maps, ``size**dimensions - 1`` classes for each pixel,
        whatever K is.

    Raises:
        ValueError: if an argument has a wrong dtype, shape or value. Values of labels are checked on a CPU
            only.

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
    size = int(size)  # NumPy integers may be unsigned
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
