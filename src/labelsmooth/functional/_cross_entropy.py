"""Cross entropy to a smoothed target."""

from typing import Literal, Unpack, overload

import torch
from torch import Tensor

from labelsmooth._core.keywords import takes
from labelsmooth._core.overrides import overridable
from labelsmooth._engines import uniform
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
    dim: int | None = None,
    return_nll: Literal[False] = False,
    **options: Unpack[LogitsOptions],
) -> Tensor: ...


@overload
def cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    dim: int | None = None,
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
    dim: int | None = None,
    return_nll: bool = False,
    **options: Unpack[LogitsOptions],
) -> Tensor | tuple[Tensor, Tensor]:
    r"""Cross entropy to a smoothed target; a superset of :func:`torch.nn.functional.cross_entropy`.

    .. math::
        \ell = \mathrm{lse}(z) - \langle p, z \rangle, \qquad p = (1 - \epsilon)\, e_y + \epsilon\, \pi

    A class whose logit is -inf is masked: the prior is renormalised over the other classes, and the loss
    stays finite unless the target class is masked and has some mass. Large finite values are not taken for
    masks.

    Args:
        input: Logits, ``(K,)``, ``(N, K)`` or ``(N, K, d1, ...)``, or with the classes in dimension ``dim``,
            of any floating-point type. A DTensor may be sharded in any dimension; the loss is then a DTensor
            over all rows.
        target: Class indices in ``[0, K)`` of any integer type, in the input's shape without K; class
            probabilities in the input's shape; or mixup labels, :func:`labelsmooth.mixed`.
        weight: A weight for each class, ``(K,)``.
        dim: The class dimension of the logits and of class probabilities; -1 for the logits of a language
            model, ``(B, L, K)``. None is torch's: 1, or 0 for a single dimension.
        ignore_index: The class index of rows to ignore.
        reduction: "none" gives one loss per row, "sum" their sum. "mean" divides the sum by the number of
            rows that are not ignored, each counted with its sample weight and, for class indices or
            ``weighting="sample"``, its class weight.
        label_smoothing: eps, in ``[0, 1]`` or what the formula takes: a number, a tensor that broadcasts
            against the rows (the target's shape; for class probabilities, without K),
            :func:`labelsmooth.by_class`, or one of :mod:`labelsmooth.schedules`.
        formula: The loss as a function of the row statistics and eps: the equation above, or another of
            :mod:`labelsmooth.formulas`.
        prior: pi: a distribution over the classes, ``(K,)``; a matrix ``(K, K)`` whose row k is the prior of
            samples of class k; or one of :mod:`labelsmooth.priors`, which also has priors per sample. None is
            uniform.
        off_target: Where eps goes. "all" spreads it over all classes (torch). "others" leaves out the target
            class (fairseq, espnet, Megatron): eps / (K - 1) each, or the prior renormalised over the others.
        weighting: What ``weight`` does. "torch" weights the classes inside the smoothed sum, which changes
            the target distribution. "sample" weights each row by its class and keeps the target distribution.
        sample_weight: A factor of each row's loss, and of its count in a mean, that broadcasts against the
            rows. Rows of weight 0 are ignored, whatever they hold.
        denominator: Divides a "mean" in place of the count, at least 0; for example the number of tokens over
            all processes. With it an empty mean is 0, without it NaN.
        z_loss: The coefficient, at least 0, of :math:`\mathrm{lse}(z)^2`, which is added to each row's loss.
            With class weights it is multiplied by the label's weight, or by :math:`\sum_k w_k t_k` for class
            probabilities t.
        engine: "reference" (plain torch), "dense" (the compiled kernel, CPU) or "triton" (CUDA). None takes
            the fastest that serves the call; :func:`labelsmooth.engines.explain` says which.
        return_nll: Whether to return the loss without smoothing as well.

    Returns:
        The loss in float32 (float64 for a float64 input), a scalar or one value per row for "none". With
        ``return_nll``, a pair (loss, nll), where nll has eps = 0, the same weights and reduction, and no
        gradient.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type. Values are checked on a CPU
            outside of ``torch.compile`` and ``torch.func``; elsewhere a smoothing outside ``[0, 1]`` gives
            NaN.

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
    plain = one_pass(input, target, weight, options, dim)
    if not isinstance(plain, str):
        if torch.compiler.is_compiling():
            loss, nll = uniform.compiled(*plain)
            return (loss, nll) if return_nll else loss
        if found := uniform.eager(*plain):
            loss, hard = found
            return (loss, loss.new_tensor(hard)) if return_nll else loss
    loss, nll = logits_cross_entropy(input, target, weight, dim=dim, return_nll=return_nll, **options)
    return (loss, nll) if return_nll else loss
