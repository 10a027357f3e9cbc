"""Cross entropy of a linear head, and the term that smoothing adds to a plain cross entropy."""

from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from labelsmooth._core.checks import check_devices, check_head, check_prior
from labelsmooth._core.keywords import takes
from labelsmooth._core.modes import captured, is_dtensor
from labelsmooth._core.overrides import overridable
from labelsmooth._core.precision import accurate, as_given
from labelsmooth._core.statistics import blanked, taken
from labelsmooth._engines import linear
from labelsmooth._engines.linear import HeadEngine, Predictions, check_bend, check_chunking, chunk_rows
from labelsmooth._engines.route import row_statistics
from labelsmooth._targets.criterion import DEFAULTS, Criterion, criterion
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import CrossEntropyOptions, HeadOptions
from labelsmooth._targets.rows import as_targets
from labelsmooth.functional._dtensor import dtensor_linear_cross_entropy
from labelsmooth.functional._head import reduced
from labelsmooth.priors import Prior


@overload
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_nll: Literal[False] = False,
    **others: Unpack[HeadOptions],
) -> Tensor: ...


@overload
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_nll: Literal[True],
    **others: Unpack[HeadOptions],
) -> tuple[Tensor, Tensor]: ...


@overload
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_predictions: Literal[True],
    **others: Unpack[HeadOptions],
) -> tuple[Tensor, Predictions]: ...


@overridable
@takes(HeadOptions, DEFAULTS)
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_nll: bool = False,
    return_predictions: bool = False,
    **others: Unpack[HeadOptions],
) -> Tensor | tuple[Tensor, Tensor] | tuple[Tensor, Predictions]:
    r"""Cross entropy of a linear head to a smoothed target, computed without storing all logits.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad z = s\, (W h + b), \qquad
        p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    A superset of torch's ``linear_cross_entropy``. Logits exist for one chunk of rows at a time. Beside its
    gradients a call needs the memory of one chunk: 64 MiB, or 128 rows if that is more; a soft cap needs a
    second chunk, and half precision some copies. A sum or mean takes three matrix products;
    ``reduction="none"``, a learnable strength and ``torch.compile`` take a fourth. All logits are computed at
    once for a gradient by the prior, the class weights or class probabilities, in ``torch.func``, and for
    second derivatives.

    Args:
        input: h, the input of the head: ``(D,)``, ``(N, D)`` or ``(..., D)``.
        linear_weight: W, ``(K, D)``; as in torch also ``(K, d1, ..., D)``, whose logits ``(N, K, d1, ...)``
            are all computed at once. A DTensor ``(K, D)`` may be sharded by class over one dimension of its
            mesh (tensor parallel), the bias alike; all other arguments must then be the same on every
            process. FSDP is another case: there each process has rows of its own.
        target: Class indices, ``(N,)`` or ``(...)``; or class probabilities, ``(N, K)`` or ``(..., K)``.
        linear_bias: b, ``(K,)``.
        weight: A weight for each class, ``(K,)``.
        scale: s, more than 0, a factor of the logits, applied before the softcap. None is 1.
        softcap: Bends the logits to ``softcap * tanh(z / softcap)``; more than 0.
        engine: "reference" computes all logits at once. "linear" never does; "dense" and "triton" do not
            either, and compute the chunks with that kernel. None is "linear" where that serves the call, and
            "reference" elsewhere.
        options: torch's :class:`torch.nn.LinearCrossEntropyOptions`. Its ``batch_chunk_size`` or
            ``chunking_method`` sets the rows of a chunk; "auto" is 64 MiB. Its other fields change nothing:
            sums over chunks are at least float32, and ``retain_graph=True`` always works.
        return_nll: Whether to return the loss without smoothing as well.
        return_predictions: Whether to return what the head predicts for each row as well: log-probability of
            the label, entropy and argmax. The target then holds class indices. It takes another matrix
            product where the loss has a gradient and ``reduction="none"`` or ``torch.compile`` is used.
        **others: The options of :func:`cross_entropy`: ``ignore_index``, ``reduction``, ``label_smoothing``,
            ``formula``, ``prior``, ``off_target``, ``weighting``, ``sample_weight``, ``denominator``,
            ``z_loss``.

    Returns:
        The loss in float32 (float64 if the input is), a scalar or one per row for "none". With
        ``return_nll``, a pair (loss, nll), as of :func:`cross_entropy`. With ``return_predictions``, a pair
        (loss, :class:`Predictions`), whose tensors have one element per row.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> input, linear_weight = torch.eye(2, 4), torch.eye(3, 4)
        >>> linear_cross_entropy(input, linear_weight, torch.tensor([0, 1]), label_smoothing=0.1)
        tensor(0.6181)
        >>> loss, rows = linear_cross_entropy(
        ...     input, linear_weight, torch.tensor([0, 2]), return_predictions=True
        ... )
        >>> rows.log_prob, rows.argmax
        (tensor([-0.5514, -1.5514]), tensor([0, 1]))

    Reference:
        Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models*, ICLR 2025.
    """
    check_chunking(options)
    if return_predictions:
        check_predictions(target, return_nll)
    if others.get("ignore_index") is None:
        others.pop("ignore_index", None)
    if is_dtensor(input) or is_dtensor(linear_weight) or is_dtensor(others.get("linear_bias")):
        if return_predictions:
            raise ValueError("return_predictions goes with a head on one process, got a DTensor")
        loss, nll = dtensor_linear_cross_entropy(input, linear_weight, target, **others)
        return (loss, nll) if return_nll else loss
    head, wanted, rows = prepared(input, linear_weight, target, options, **others)
    predictions = None
    if return_predictions:
        wanted = wanted._replace(measures=wanted.measures._replace(spread=True))
        predictions = linear.unwritten_predictions(head)
    if linear.makes_logits(head, wanted.measures):
        z = head.blanked(wanted.measures.counted).logits()
        statistics = row_statistics(z, wanted.measures, head.engine and "reference")
        loss = wanted.loss(statistics)
        predictions = predictions and linear.predicted(z, statistics, wanted.measures)
    elif wanted.reduction == "none" or wanted.learns or captured() or not linear.needs_gradient(head):
        statistics = linear.row_statistics(head, wanted.measures, predictions)
        loss = wanted.loss(statistics)
    else:
        loss, statistics = reduced(head, wanted, predictions)
    nll = wanted.nll(statistics) if return_nll else loss
    if wanted.reduction == "none":
        loss, nll = loss.reshape(rows), nll.reshape(rows)
    if predictions is not None:
        return loss, Predictions(*(x.reshape(rows) for x in predictions))
    return (loss, nll) if return_nll else loss


def check_predictions(target: Tensor | Mixed, return_nll: bool) -> None:
    if return_nll:
        raise ValueError("return_nll must not be given together with return_predictions, got both")
    if isinstance(target, Mixed) or (isinstance(target, Tensor) and target.is_floating_point()):
        given = "mixed labels" if isinstance(target, Mixed) else str(target.dtype)
        raise ValueError(f"target must hold class indices with return_predictions=True, got {given}")


def prepared(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    chunking: "torch.nn.LinearCrossEntropyOptions | None" = None,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    engine: HeadEngine | None = None,
    **options: Unpack[CrossEntropyOptions],
) -> tuple[linear.Head, Criterion, tuple[int, ...]]:
    """The head and the criterion, whose rows have one dimension, and the shape of the rows as given."""
    dtype = check_head(input, linear_weight, linear_bias)
    check_bend(scale, softcap)
    classes, positions = linear_weight.size(0), linear_weight.shape[1:-1]
    rows = (*input.shape[:-1], *positions)
    class_dim = -1 if not positions else 1
    shape = torch.Size((*input.shape[:-1], classes, *positions))
    wanted = criterion(
        shape, accurate(dtype), input.device, target, weight, class_dim=class_dim, **options
    ).flat()
    head = linear.Head(
        input.flatten(0, -2) if input.dim() > 1 else input.unsqueeze(0),
        linear_weight,
        linear_bias,
        scale,
        softcap,
        dtype,
        chunking and chunk_rows(chunking, shape.numel() // classes, linear_weight.size(-1), classes),
        engine,
    )
    return head, wanted, rows


@overridable
@takes()
def smoothing_term(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    prior: Tensor | Prior | None = None,
    ignore_index: int = -100,
) -> Tensor:
    r"""The term that smoothing adds to the plain cross entropy of a linear head, per row and unit of eps.

    .. math::
        z_y - \langle \pi, z \rangle
        = \langle h, W_y - W^\top \pi \rangle + b_y - \langle \pi, b \rangle, \qquad z = W h + b

    It takes O(D) per row and O(K D) once, and no logits. Adding eps times this term, reduced alike, smooths
    *any* fused plain cross entropy. Of logits that are scaled by s, the term is s times this. The equation
    does not hold for capped or masked logits.

    Args:
        input: h, the input of the head, ``(..., D)``.
        linear_weight: W, ``(K, D)``.
        target: Class indices in ``[0, K)``, ``(...)``.
        linear_bias: b, ``(K,)``.
        prior: pi, ``(K,)``. None is uniform.
        ignore_index: The class index of rows to ignore.

    Returns:
        One number per row, ``(...)``, 0 for ignored rows; float32 (float64 for a float64 input).

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> from torch.nn.functional import linear_cross_entropy as fused
        >>> input, linear_weight, target = torch.eye(2, 4), torch.eye(3, 4), torch.tensor([0, 1])
        >>> term = smoothing_term(input, linear_weight, target)
        >>> fused(input, linear_weight, target) + 0.1 * term.mean()
        tensor(0.6181)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    dtype = accurate(check_head(input, linear_weight, linear_bias))
    if linear_weight.dim() != 2:
        raise ValueError(f"linear_weight must have shape (K, D), got {tuple(linear_weight.shape)}")
    classes = linear_weight.size(0)
    shape = torch.Size((*input.shape[:-1], classes))
    check_devices(input.device, target=target, prior=prior)
    target, counted = as_targets(target, shape, -1, ignore_index=ignore_index, soft=False)
    if prior is not None:
        prior = prior.probabilities if isinstance(prior, Prior) else prior
        check_prior(prior, classes)
        if prior.dim() == 2:
            raise ValueError(f"prior must have shape (K,) here, got {tuple(prior.shape)}")
        prior = prior.to(dtype)

    def expected(x: Tensor) -> Tensor:
        """<pi, x> over the classes."""
        return x.mean(0, dtype=dtype) if prior is None else prior @ x.to(dtype)

    with as_given(input.device):
        h = blanked(input, counted).to(dtype)
        term = (h * (taken(linear_weight, target).to(dtype) - expected(linear_weight))).sum(-1)
        if linear_bias is not None:
            term = term + taken(linear_bias, target).to(dtype) - expected(linear_bias)
    return torch.where(counted, term, 0.0)
