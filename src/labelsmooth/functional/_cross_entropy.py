"""Cross entropy to a smoothed target."""

from typing import Literal, Unpack, overload

from torch import Tensor

from labelsmooth._core.keywords import takes
from labelsmooth._core.overrides import overridable
from labelsmooth._engines import dense
from labelsmooth._targets.criterion import DEFAULTS
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import LogitsOptions
from labelsmooth.functional._logits import logits_cross_entropy
from labelsmooth.functional._plain import one_pass


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[False] = False,
    **options: Unpack[LogitsOptions],
) -> Tensor: ...


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    return_nll: Literal[True],
    **options: Unpack[LogitsOptions],
) -> tuple[Tensor, Tensor]: ...


@overridable
@takes(LogitsOptions, DEFAULTS)
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    return_nll: bool = False,
    **options: Unpack[LogitsOptions],
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
        >>> import torch
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
    plain = one_pass(input, target, weight, options)
    if not isinstance(plain, str) and (found := dense.uniform(*plain)):
        loss, hard = found
        return (loss, loss.new_tensor(hard)) if return_nll else loss
    loss, nll = logits_cross_entropy(input, target, weight, return_nll=return_nll, **options)
    return (loss, nll) if return_nll else loss
