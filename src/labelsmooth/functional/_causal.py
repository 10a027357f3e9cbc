"""Cross entropy of a causal language model, whose logits at a position are of the next token."""

from typing import Any, Literal, Unpack, overload

import torch.nn.functional as F
from torch import Tensor

from labelsmooth._core.checks import check_tensor
from labelsmooth._core.keywords import takes
from labelsmooth._core.overrides import overridable
from labelsmooth._targets.criterion import DEFAULTS
from labelsmooth._targets.options import LogitsOptions
from labelsmooth.functional._cross_entropy import cross_entropy


@overridable
@takes()
def next_tokens(labels: Tensor, ignore_index: int = -100) -> Tensor:
    r"""The target of each position of a causal language model: the label of the next position.

    .. math:: t_i = y_{i+1}, \qquad t_L = \text{ignore\_index}

    It is for losses that take the hidden states or logits of all positions, such as
    :func:`linear_cross_entropy`: shifting labels copies far less than slicing logits.

    Args:
        labels: y, class indices, ``(..., L)``; usually the tokens themselves, with ``ignore_index`` where
            there is nothing to learn.
        ignore_index: The target of the last position, which is ignored.

    Returns:
        The targets, in the shape and dtype of ``labels``.

    Raises:
        ValueError: if ``labels`` are no class indices with at least one dimension.

    Example:
        >>> import torch
        >>> next_tokens(torch.tensor([[5, 3, 8]]))
        tensor([[   3,    8, -100]])

    Reference:
        Bengio et al., *A Neural Probabilistic Language Model*, JMLR 2003.
    """
    check_tensor("labels", labels)
    if not labels.dim() or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"labels must hold class indices of shape (..., L), got {labels.dtype} of shape "
            f"{tuple(labels.shape)}"
        )
    return F.pad(labels[..., 1:], (0, min(1, labels.size(-1))), value=ignore_index)


@overload
def causal_cross_entropy(
    input: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[False] = False,
    **options: Unpack[LogitsOptions],
) -> Tensor: ...


@overload
def causal_cross_entropy(
    input: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[True],
    **options: Unpack[LogitsOptions],
) -> tuple[Tensor, Tensor]: ...


@overridable
@takes(LogitsOptions, DEFAULTS)
def causal_cross_entropy(
    input: Tensor,
    labels: Tensor,
    weight: Tensor | None = None,
    *,
    return_nll: bool = False,
    **options: Any,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross entropy of a causal language model to smoothed labels, which it shifts by itself.

    .. math::
        \ell_i = \mathrm{lse}(z_i) - \langle p_i, z_i \rangle, \qquad
        p_i = (1 - \epsilon)\, e_{y_{i+1}} + \epsilon\, \pi, \qquad i < L

    The same as :func:`cross_entropy` of ``input``, ``next_tokens(labels)`` and ``dim=-1``. No logits are
    copied. Without logits: :func:`linear_cross_entropy` of the hidden states and ``next_tokens(labels)``.

    Args:
        input: Logits, ``(..., L, K)``, of any floating-point type. Those of the last position are ignored.
        labels: Class indices, ``(..., L)``, not shifted: those of the tokens of the input.
        weight: A weight for each class, ``(K,)``.
        engine: As in :func:`labelsmooth.functional.cross_entropy`.
        return_nll: Whether to return the loss without smoothing as well.
        **options: As in :func:`labelsmooth.functional.cross_entropy`. Those per row, such as
            ``sample_weight``, are of the position that predicts.

    Returns:
        The loss, or a pair (loss, nll), as of :func:`cross_entropy`; for "none" in the shape of ``labels``.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> import torch
        >>> logits = torch.zeros(1, 3, 4)
        >>> causal_cross_entropy(logits, torch.tensor([[0, 2, 1]]), label_smoothing=0.1)
        tensor(1.3863)

    Reference:
        Vaswani et al., *Attention Is All You Need*, NeurIPS 2017.
    """
    target = next_tokens(labels, options.get("ignore_index", DEFAULTS["ignore_index"]))
    return cross_entropy(input, target, weight, dim=-1, return_nll=return_nll, **options)
