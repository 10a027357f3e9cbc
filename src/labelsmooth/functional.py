r"""Losses as pure functions.

In all of them z are the logits of a row, K the number of classes, :math:`q_\theta = \mathrm{softmax}(z)`
the model, p the (smoothed) target, eps the smoothing, pi the prior and
:math:`\mathrm{lse}(z) = \log \sum_k \exp z_k`. Losses are in nats.
"""

from typing import Final, Literal, Unpack, overload

import torch
from torch import Tensor

from labelsmooth._core.checks import (
    check_choice,
    check_devices,
    check_head,
    check_number,
    check_one,
    check_prior,
)
from labelsmooth._core.keywords import check_keywords
from labelsmooth._core.modes import captured, is_dtensor
from labelsmooth._core.precision import accurate, as_given
from labelsmooth._core.reduction import Reduction, reduce
from labelsmooth._core.statistics import Measures, blanked, taken
from labelsmooth._engines import linear
from labelsmooth._engines.linear import HeadEngine, check_chunking, chunk_rows
from labelsmooth._engines.route import Engine, row_statistics
from labelsmooth._targets.criterion import criterion, strength
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import OPTIONS, CrossEntropyOptions, OffTarget, Strength, Weighting
from labelsmooth._targets.rows import as_rows, as_targets
from labelsmooth.binary import binary_cross_entropy_with_logits
from labelsmooth.dtensor import dtensor_linear_cross_entropy
from labelsmooth.formulas import Formula, LabelSmoothing, smoothed_nll
from labelsmooth.formulas._smoothing import LABEL_SMOOTHING
from labelsmooth.head import reduced
from labelsmooth.logits import logits_cross_entropy
from labelsmooth.overrides import overridable
from labelsmooth.parallel import (
    vocab_parallel_cross_entropy,
    vocab_parallel_linear_cross_entropy,
)
from labelsmooth.plain import uniform
from labelsmooth.priors import PerSample, Prior
from labelsmooth.schedules import Schedule

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "label_smoothing_loss",
    "linear_cross_entropy",
    "smoothing_term",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_linear_cross_entropy",
]

NO_INDEX: Final = -(2**63) + 1  # of no class, to be ignored


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    engine: Engine | None = None,
    return_nll: Literal[False] = False,
    **options: Unpack[CrossEntropyOptions],
) -> Tensor: ...


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    engine: Engine | None = None,
    return_nll: Literal[True],
    **options: Unpack[CrossEntropyOptions],
) -> tuple[Tensor, Tensor]: ...


@overridable
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: Strength = 0.0,
    formula: Formula = LABEL_SMOOTHING,
    prior: Tensor | Prior | PerSample | None = None,
    off_target: OffTarget = "all",
    weighting: Weighting = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | Tensor | None = None,
    z_loss: float = 0.0,
    engine: Engine | None = None,
    return_nll: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross entropy to a smoothed target; a superset of :func:`torch.nn.functional.cross_entropy`.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    Classes whose logit is -inf are masked: the prior is renormalised over the others, and the loss stays
    finite unless the target is masked and keeps some mass. Masks by large finite values are not detected.

    Args:
        input: Logits, ``(K,)``, ``(N, K)`` or ``(N, K, d1, ...)``, any floating-point type. A DTensor may be
            sharded in any dimension; the loss is then a DTensor, that of the whole.
        target: Class indices in ``[0, K)`` of any integer type, in the input's shape without K; or class
            probabilities in the input's shape; or two labels for each row, :func:`labelsmooth.mixed`.
        weight: A weight for each class, ``(K,)``.
        ignore_index: Class index of rows that do not count.
        reduction: "none" gives one loss per row, "sum" their sum, "mean" the sum divided by what counts: the
            rows, each times its sample weight and, for class indices or weighting "sample", its class weight.
        label_smoothing: eps, in ``[0, 1]`` or what the formula takes: a number, a tensor that broadcasts
            against the rows (the target's shape; for class probabilities, without K),
            :func:`labelsmooth.by_class`, or one of :mod:`labelsmooth.schedules`.
        formula: What is made of the row statistics and eps: the equation above, or another of
            :mod:`labelsmooth.formulas`.
        prior: pi: a distribution over the classes, ``(K,)``, or a matrix ``(K, K)`` whose row k serves the
            samples of class k; or one of :mod:`labelsmooth.priors`, for each sample too. None is uniform.
        off_target: Where eps goes: to "all" classes (torch), or to the "others" (fairseq, espnet, Megatron),
            eps / (K - 1) each, and with a prior what that leaves without the target class, renormalised.
        weighting: What ``weight`` does. "torch" weights the classes inside the smoothed sum, which bends the
            target; "sample" weights each row by its class and leaves the target alone.
        sample_weight: A factor for each row's loss, and for what it counts in the mean, that broadcasts
            against the rows. Rows of weight 0 do not count, whatever they hold.
        denominator: Divides a "mean" instead of what counts, at least 0: the number of tokens of all
            processes, say. With it the mean over nothing is 0, without it NaN.
        z_loss: The coefficient, at least 0, of :math:`\mathrm{lse}(z)^2`, added to each row's loss, and
            weighted as that: times the class weight of the label, or :math:`\sum_k w_k t_k` of class
            probabilities t.
        engine: "reference" (plain torch), "dense" (the compiled kernel, CPU) or "triton" (CUDA); None takes
            the fastest that can.
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
    if (
        engine in (None, "dense")
        and weight is prior is sample_weight is denominator is None
        and (off_target, weighting) == ("all", "torch")
        and isinstance(z_loss, (float, int))
        and z_loss == 0
        and type(formula) is LabelSmoothing
        and not isinstance(target, Mixed)
    ):
        found = uniform(input, target, label_smoothing, ignore_index, reduction)
        if found is not None:
            loss, hard = found
            return (loss, loss.new_tensor(hard)) if return_nll else loss
    options: CrossEntropyOptions = {
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
        "formula": formula,
        "prior": prior,
        "off_target": off_target,
        "weighting": weighting,
        "sample_weight": sample_weight,
        "denominator": denominator,
        "z_loss": z_loss,
    }
    return logits_cross_entropy(input, target, weight, engine=engine, return_nll=return_nll, **options)


@overload
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    softcap: float | None = None,
    engine: HeadEngine | None = None,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_nll: Literal[False] = False,
    **others: Unpack[CrossEntropyOptions],
) -> Tensor: ...


@overload
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    softcap: float | None = None,
    engine: HeadEngine | None = None,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_nll: Literal[True],
    **others: Unpack[CrossEntropyOptions],
) -> tuple[Tensor, Tensor]: ...


@overridable
def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor | Mixed,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    softcap: float | None = None,
    engine: HeadEngine | None = None,
    options: "torch.nn.LinearCrossEntropyOptions | None" = None,
    return_nll: bool = False,
    **others: Unpack[CrossEntropyOptions],
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross entropy of a linear head to a smoothed target, without its logits ever being there as a whole.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad z = W h + b, \qquad
        p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    A superset of torch's ``linear_cross_entropy``. Logits are made and used up in chunks of rows, so beside
    the gradients a call needs the memory of one chunk (64 MiB, or 128 rows; a soft cap takes another, short
    types some copies), and a sum or mean takes the time of its three matrix products; reduction "none", a
    learnable strength, and ``torch.compile`` take a fourth. Where a gradient by the prior, the class weights
    or class probabilities is asked for, in ``torch.func``, and for the gradient of the gradient, the logits
    are made as a whole.

    Args:
        input: What the head is applied to, h: ``(D,)``, ``(N, D)`` or ``(..., D)``.
        linear_weight: W, ``(K, D)``. As in torch also ``(K, d1, ..., D)``, with whole logits
            ``(N, K, d1, ...)``. A DTensor ``(K, D)`` may have its classes sharded over one dimension of its
            mesh, the bias alike; everything else, a plain input too, must then be the same on every process.
            (Weights that FSDP shards are not meant: there each process has rows of its own.)
        target: Class indices, ``(N,)`` or ``(...)``; or class probabilities, ``(N, K)`` or ``(..., K)``.
        linear_bias: b, ``(K,)``.
        weight: A weight for each class, ``(K,)``.
        softcap: Bends the logits to ``softcap * tanh(z / softcap)``; more than 0.
        engine: "reference" makes the logits as a whole, "linear" never; None does where it has to.
        options: torch's :class:`torch.nn.LinearCrossEntropyOptions`, for the size of the chunks in rows:
            ``batch_chunk_size`` or what ``chunking_method`` makes; "auto" is 64 MiB. The other fields change
            nothing: sums over chunks are float32 at least, and ``retain_graph=True`` always works.
        return_nll: Whether to return the loss without smoothing too.
        **others: The options of :func:`cross_entropy`: ``ignore_index``, ``reduction``, ``label_smoothing``,
            ``formula``, ``prior``, ``off_target``, ``weighting``, ``sample_weight``, ``denominator``,
            ``z_loss``.

    Returns:
        The loss in float32 (float64 if the input is): a scalar, or one per row for "none". With
        ``return_nll``, a pair (loss, nll), as of :func:`cross_entropy`.

    Raises:
        ValueError: naming the argument that is out of its range, or has a wrong shape or type.

    Example:
        >>> input, linear_weight = torch.eye(2, 4), torch.eye(3, 4)
        >>> linear_cross_entropy(input, linear_weight, torch.tensor([0, 1]), label_smoothing=0.1)
        tensor(0.6181)

    Reference:
        Wijmans et al., *Cut Your Losses in Large-Vocabulary Language Models*, ICLR 2025.
    """
    check_keywords(linear_cross_entropy, others, OPTIONS)
    check_chunking(options)
    if others.get("ignore_index") is None:
        others.pop("ignore_index", None)
    if is_dtensor(input) or is_dtensor(linear_weight) or is_dtensor(linear_bias):
        return dtensor_linear_cross_entropy(
            input,
            linear_weight,
            target,
            linear_bias=linear_bias,
            weight=weight,
            softcap=softcap,
            engine=engine,
            return_nll=return_nll,
            **others,
        )
    dtype = check_head(input, linear_weight, linear_bias)
    if softcap is not None:
        check_number("softcap", softcap, above_zero=True)
    if engine is not None:
        check_choice("engine", engine, HeadEngine)
    classes, positions = linear_weight.size(0), linear_weight.shape[1:-1]
    rows = (*input.shape[:-1], *positions)
    class_dim = -1 if not positions else 1
    shape = torch.Size((*input.shape[:-1], classes, *positions))
    wanted = criterion(
        shape, accurate(dtype), input.device, target, weight, class_dim=class_dim, **others
    ).flat()
    head = linear.Head(
        input.flatten(0, -2) if input.dim() > 1 else input.unsqueeze(0),
        linear_weight,
        linear_bias,
        softcap,
        dtype,
        options and chunk_rows(options, shape.numel() // classes, linear_weight.size(-1), classes),
    )
    if linear.makes_logits(head, wanted.measures, engine):
        z = head.blanked(wanted.measures.counted).logits()
        statistics = row_statistics(z, wanted.measures, engine and "reference")
        loss = wanted.loss(statistics)
    elif wanted.reduction == "none" or wanted.learns or captured() or not torch.is_grad_enabled():
        statistics = linear.row_statistics(head, wanted.measures)
        loss = wanted.loss(statistics)
    else:
        loss, statistics = reduced(head, wanted)
    nll = wanted.nll(statistics) if return_nll else loss
    if wanted.reduction == "none":
        loss, nll = loss.reshape(rows), nll.reshape(rows)
    return (loss, nll) if return_nll else loss


@overridable
def smoothing_term(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    prior: Tensor | Prior | None = None,
    ignore_index: int = -100,
) -> Tensor:
    r"""What smoothing adds to the plain cross entropy of a linear head, per row and per unit of eps.

    .. math::
        z_y - \langle \pi, z \rangle
        = \langle h, W_y - W^\top \pi \rangle + b_y - \langle \pi, b \rangle, \qquad z = W h + b

    It needs no logits, only O(D) a row and O(K D) once. So *any* fused cross entropy without smoothing can be
    smoothed: add eps times this, reduced alike. It does not hold for logits that are capped or masked.

    Args:
        input: What the head is applied to, h: ``(..., D)``.
        linear_weight: W, ``(K, D)``.
        target: Class indices in ``[0, K)``, ``(...)``.
        linear_bias: b, ``(K,)``.
        prior: pi, ``(K,)``. None is uniform.
        ignore_index: Class index of rows that do not count.

    Returns:
        One number per row, ``(...)``, 0 for rows that do not count; float32 (float64 if the input is).

    Raises:
        ValueError: naming the argument that is out of its range, or has a wrong shape or type.

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


@overridable
def label_smoothing_loss(
    pred: Tensor, target: Tensor, smoothing: float | Tensor | Schedule = 0.1, dim: int = -1
) -> Tensor:
    r"""The Kullback-Leibler divergence from the smoothed target to the model, summed, per ``pred.size(0)``.

    .. math::
        \frac{1}{N} \sum_i \mathrm{KL}(p_i \,\|\, q_\theta) = \frac{1}{N} \sum_i H(p_i, q_\theta) - H(p_i),
        \qquad p = (1 - s)\, e_y + s / K

    It is ``KLDivLoss(reduction="batchmean")(log_softmax(pred), p)``: :func:`cross_entropy` less the entropy
    of the target, so its gradient by ``pred`` is cross entropy's and its least value 0. The derivative by s
    is -inf at s = 0, as that of the entropy is infinite there.

    Args:
        pred: Logits of any shape with at least one dimension, the classes in dimension ``dim``.
        target: Class indices in ``[0, K)``, in the shape of ``pred`` without ``dim``.
        smoothing: s, in ``[0, 1]``; a number, a 0-d tensor, or one of :mod:`labelsmooth.schedules`.
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
    if found := uniform(pred, target, smoothing, NO_INDEX, "sum", dim, divergence=True):
        return found[0] / pred.size(0)
    z = as_rows(pred, dim)
    check_devices(pred.device, target=target, smoothing=smoothing)
    target, counted = as_targets(target, pred.shape, dim, ignore_index=None, soft=False)
    check_one("smoothing", smoothing)
    measures = Measures(target, counted)
    statistics = row_statistics(z, measures)
    eps = strength("smoothing", smoothing, measures, z.size(-1), statistics.lse)
    num_valid = statistics.valid_mass * z.size(-1)
    divergence = smoothed_nll(statistics, eps) - _smoothed_entropy(eps, num_valid)
    return reduce(divergence, counted, "sum") / pred.size(0)


def _smoothed_entropy(eps: Tensor, num_classes: Tensor) -> Tensor:
    """H(p) of a target smoothed toward the uniform distribution over ``num_classes`` classes."""
    off, others = eps / num_classes, num_classes - 1
    entr = torch.special.entr
    # The entropy of nothing, which no other class has, has an infinite derivative.
    return entr(1 - eps + off) + others * entr(torch.where(others == 0, 1.0, off))
