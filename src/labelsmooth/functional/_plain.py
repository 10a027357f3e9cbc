"""The plain call at once: class indices, the uniform prior, one strength, a CPU."""

from numbers import Real
from types import NoneType

import torch
from torch import Tensor
from torch.autograd import forward_ad

from labelsmooth._core.modes import plain, recorded, transformed
from labelsmooth._core.reduction import Reduction
from labelsmooth._engines import dense
from labelsmooth._engines.operator import DTYPES
from labelsmooth._targets.options import Strength
from labelsmooth.schedules import Schedule


def uniform(
    input: Tensor,
    target: Tensor,
    eps: Strength,
    ignore_index: int,
    reduction: Reduction,
    class_dim: int | None = None,
    divergence: bool = False,
) -> tuple[Tensor, float] | None:
    """The smoothed loss and the plain one, reduced, at once; None where that takes more care.

    This is for class indices, the uniform prior and one strength, and looks at nothing but whether they are:
    what is wrong with arguments is left to those who say it. Of a divergence, the target's entropy is taken
    from the smoothed loss.
    """
    if (
        dense.ABSENCE is not None
        or torch.compiler.is_compiling()
        or not plain(input)
        or not plain(target)
        or target.dtype != torch.int64
        or not input.is_cpu
        or not target.is_cpu
        or input.dtype not in DTYPES
        or input.is_neg()  # a lazy minus sign, which only torch's own operators see
        or not input.dim()
        or type(class_dim) not in (int, NoneType)
        or type(ignore_index) is not int
        or ignore_index.bit_length() > 63
        or reduction not in ("mean", "sum")
        or transformed()
        or recorded()
        or forward_ad._current_level >= 0
    ):
        return None
    eps = eps.eps if isinstance(eps, Schedule) else eps
    if type(eps) is Tensor and eps.is_cpu and not eps.dim() and not eps.requires_grad:
        eps = eps.item()
    if not isinstance(eps, (float, int, Real)) or not 0 <= eps <= 1:
        return None
    class_dim = min(1, input.dim() - 1) if class_dim is None else class_dim
    if not -input.dim() <= class_dim < input.dim():
        return None
    z = input if class_dim % input.dim() == input.dim() - 1 else input.movedim(class_dim, -1)
    if target.shape != z.shape[:-1] or not z.size(-1):
        return None
    return dense.uniform(z, target, float(eps), ignore_index, reduction == "mean", divergence)
