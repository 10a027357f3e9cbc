"""The divergence from a smoothed target."""

from typing import Final, Literal, overload

import torch
from torch import Tensor

from labelsmooth._core.checks import check_devices, check_one
from labelsmooth._core.keywords import takes
from labelsmooth._core.overrides import overridable
from labelsmooth._core.reduction import reduce
from labelsmooth._core.statistics import Measures
from labelsmooth._engines import uniform
from labelsmooth._engines.route import row_statistics
from labelsmooth._targets.criterion import strength
from labelsmooth._targets.rows import as_rows, as_targets
from labelsmooth.formulas import nll, smoothed_nll
from labelsmooth.functional._plain import one_pass
from labelsmooth.schedules import Schedule

NO_INDEX: Final = -(2**63) + 1  # of no class, to be ignored


@overload
def label_smoothing_loss(
    pred: Tensor,
    target: Tensor,
    smoothing: float | Tensor | Schedule = 0.1,
    dim: int = -1,
    *,
    return_nll: Literal[False] = False,
) -> Tensor: ...


@overload
def label_smoothing_loss(
    pred: Tensor,
    target: Tensor,
    smoothing: float | Tensor | Schedule = 0.1,
    dim: int = -1,
    *,
    return_nll: Literal[True],
) -> tuple[Tensor, Tensor]: ...


@overridable
@takes()
def label_smoothing_loss(
    pred: Tensor,
    target: Tensor,
    smoothing: float | Tensor | Schedule = 0.1,
    dim: int = -1,
    *,
    return_nll: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    r"""The Kullback-Leibler divergence from the smoothed target to the model, summed, per ``pred.size(0)``.

    .. math::
        \frac{1}{N} \sum_i \mathrm{KL}(p_i \,\|\, q_\theta) = \frac{1}{N} \sum_i H(p_i, q_\theta) - H(p_i),
        \qquad p = (1 - s)\, e_y + s / K

    The value is ``KLDivLoss(reduction="batchmean")(log_softmax(pred), p)``: :func:`cross_entropy` minus the
    entropy of the target. Its gradient by ``pred`` is that of cross entropy, and its minimum is 0. The
    derivative by s is -inf at s = 0, where the derivative of the entropy is infinite.

    Args:
        pred: Logits of any shape with at least one dimension, the classes in dimension ``dim``.
        target: Class indices in ``[0, K)``, in the shape of ``pred`` without ``dim``.
        smoothing: s, in ``[0, 1]``; a number, a 0-d tensor, or one of :mod:`labelsmooth.schedules`.
        dim: The class dimension.
        return_nll: Whether to return the loss without smoothing as well, the cross entropy to the labels.

    Returns:
        A scalar in nats, float32 (float64 if ``pred`` is). NaN for an empty batch. With ``return_nll``, a
        pair (loss, nll), where nll has the same divisor and no gradient.

    Raises:
        ValueError: if an argument is out of range, or has a wrong shape or type.

    Example:
        >>> pred = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> label_smoothing_loss(pred, torch.tensor([0, 1]))
        tensor(0.0246)

    Reference:
        Szegedy et al., *Rethinking the Inception Architecture for Computer Vision*, CVPR 2016.
    """
    options = {"label_smoothing": smoothing, "ignore_index": NO_INDEX, "reduction": "sum"}
    plain = one_pass(pred, target, None, options, dim)
    if not isinstance(plain, str) and not torch.compiler.is_compiling() and pred.size(0):
        found = uniform.eager(*plain._replace(divisor=float(pred.size(0))), divergence=True)
        if found is not None:
            loss, hard = found
            return (loss, loss.new_tensor(hard)) if return_nll else loss
    z = as_rows(pred, dim)
    check_devices(pred.device, target=target, smoothing=smoothing)
    target, counted = as_targets(target, pred.shape, dim, ignore_index=None, soft=False)
    check_one("smoothing", smoothing)
    measures = Measures(target, counted)
    statistics = row_statistics(z, measures)
    eps = strength("smoothing", smoothing, measures, z.size(-1), statistics.lse)
    num_valid = statistics.valid_mass * z.size(-1)
    divergence = smoothed_nll(statistics, eps) - smoothed_entropy(eps, num_valid)
    loss = reduce(divergence, counted, "sum") / pred.size(0)
    return (loss, nll(statistics).detach().sum() / pred.size(0)) if return_nll else loss


def smoothed_entropy(eps: Tensor, num_classes: Tensor) -> Tensor:
    """H(p) of a target smoothed toward the uniform distribution over ``num_classes`` classes."""
    off, others = eps / num_classes, num_classes - 1
    entr = torch.special.entr
    # The entropy of nothing, which no other class has, has an infinite derivative.
    return entr(1 - eps + off) + others * entr(torch.where(others == 0, 1.0, off))
