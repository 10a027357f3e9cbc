"""Priors that are the same for all samples."""

import torch
from torch import Tensor

from labelsmooth._core.checks import check_integer, check_number, check_prior, check_tensor, check_values
from labelsmooth.priors._distributions import Prior
from labelsmooth.priors._making import check_real, exact, first_class, prior


def uniform(num_classes: int) -> Prior:
    r"""The uniform prior, which is the default of the losses.

    .. math:: \pi_k = 1 / K

    Args:
        num_classes: K, at least 1.

    Returns:
        A prior of shape ``(K,)``.

    Raises:
        ValueError: if ``num_classes`` is not an integer of at least 1.

    Example:
        >>> from labelsmooth import priors
        >>> priors.uniform(4)
        Prior(uniform, shape (4,))
        >>> priors.uniform(4).probabilities
        tensor([0.2500, 0.2500, 0.2500, 0.2500])

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    check_integer("num_classes", num_classes, 1)
    return prior(torch.full((num_classes,), 1 / num_classes, dtype=torch.float64, device="cpu"), "uniform")


def unigram(counts: Tensor, temperature: float = 1.0) -> Prior:
    r"""The frequencies of the classes, raised to the power 1/T.

    .. math:: \pi_k = \frac{c_k^{1/T}}{\sum_j c_j^{1/T}}

    Args:
        counts: c, the number of samples of each class, ``(K,)``, of any real dtype, at least 0 and not all 0.
            A class without samples has probability 0.
        temperature: T, above 0. 1 gives the frequencies; values above 1 give a more uniform prior, values
            below 1 a less uniform one.

    Returns:
        A prior of shape ``(K,)``, on the device of ``counts``.

    Raises:
        ValueError: if ``counts`` is not a vector of such numbers, or ``temperature`` is not finite and above
            0.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> priors.unigram(torch.tensor([16, 9, 0]), temperature=2.0).probabilities
        tensor([0.5714, 0.4286, 0.0000])

    Reference:
        Pereyra et al., *Regularizing Neural Networks by Penalizing Confident Output Distributions*, ICLR
        Workshop 2017.
    """
    check_real("counts", counts)
    check_number("temperature", temperature, above_zero=True)
    if counts.dim() != 1 or not len(counts):
        raise ValueError(f"counts must have shape (K,), got {tuple(counts.shape)}")
    c = exact(counts)
    check_values("counts", "be finite and at least 0", c, (c >= 0) & c.isfinite())
    if first_class(c.sum(0, keepdim=True) == 0) is not None:
        raise ValueError(f"counts must not all be 0, got {len(c)} zeros")
    # The power would overflow at low temperatures, so it is computed by logarithms.
    pi = torch.softmax(c.log() / temperature, -1)
    return prior(pi, f"unigram, temperature={temperature:g}", counts)


def masked(valid: Tensor, prior: Prior | Tensor | None = None) -> Prior:
    r"""A prior restricted to the valid classes and renormalised.

    .. math:: \pi'_k = \frac{v_k \pi_k}{\sum_j v_j \pi_j}, \qquad v_k \in \{0, 1\}

    Args:
        valid: v, the classes that may have probability, bool ``(K,)``, at least one of them True.
        prior: pi, ``(K,)`` or ``(K, K)``; uniform if None. The row of an invalid class, which no sample
            should use, is masked like the others, and uniform if it has no probability on valid classes.

    Returns:
        A prior in the shape of ``prior``, on its device and in its dtype.

    Raises:
        ValueError: if ``valid`` is not a bool vector with a True value; if ``prior`` is not a distribution
            over as many classes; or if it, or its row of a valid class, has no probability on valid classes.

    Example:
        >>> import torch
        >>> from labelsmooth import priors
        >>> valid = torch.tensor([True, True, False])
        >>> priors.masked(valid, priors.unigram(torch.tensor([6, 2, 2]))).probabilities
        tensor([0.7500, 0.2500, 0.0000])

    Reference:
        Chen et al., *Focus on the Target's Vocabulary: Masked Label Smoothing for Machine Translation*, ACL
        2022.
    """
    check_tensor("valid", valid)
    if valid.dtype != torch.bool or valid.dim() != 1:
        raise ValueError(f"valid must be bool of shape (K,), got {valid.dtype} of shape {tuple(valid.shape)}")
    v = valid.cpu()
    if not bool(v.any()):
        raise ValueError(f"valid must be True for at least one class, got {len(v)} times False")
    if prior is None:
        prior = uniform(len(v)).to(valid.device)
    given = prior.probabilities if isinstance(prior, Prior) else prior
    check_prior(given, len(v))
    left = exact(given) * v
    total = left.sum(-1, keepdim=True)
    empty = total.squeeze(-1) == 0
    if left.dim() == 1 and bool(empty):
        raise ValueError("prior must have probability on a valid class, got 0 for all of them")
    if left.dim() == 2 and (y := first_class(empty & v)) is not None:
        raise ValueError(f"each row of prior must have probability on a valid class, got 0 for class {y}")
    pi = torch.where(total == 0, v / v.sum(), left / total)
    what = prior.description if isinstance(prior, Prior) else "given"
    return Prior(pi.to(given), f"{what}, masked to {int(v.sum())} of the classes")
