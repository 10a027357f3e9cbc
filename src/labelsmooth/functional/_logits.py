"""The cross entropy of logits that are there, by the engine and the formula that are asked for."""

from typing import Any, Literal, Unpack, overload

from torch import Tensor

from labelsmooth._core.modes import is_dtensor
from labelsmooth._core.precision import compute_dtype
from labelsmooth._engines.route import Engine, row_statistics
from labelsmooth._targets.criterion import criterion
from labelsmooth._targets.mixed import Mixed
from labelsmooth._targets.options import CrossEntropyOptions
from labelsmooth._targets.rows import as_rows
from labelsmooth.functional._dtensor import dtensor_cross_entropy


@overload
def logits_cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    class_dim: int | None = None,
    engine: Engine | None = None,
    return_nll: Literal[False] = False,
    **options: Unpack[CrossEntropyOptions],
) -> Tensor: ...


@overload
def logits_cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    class_dim: int | None = None,
    engine: Engine | None = None,
    return_nll: bool,
    **options: Unpack[CrossEntropyOptions],
) -> Tensor | tuple[Tensor, Tensor]: ...


def logits_cross_entropy(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None = None,
    *,
    class_dim: int | None = None,
    engine: Engine | None = None,
    return_nll: bool = False,
    **options: Unpack[CrossEntropyOptions],
) -> Tensor | tuple[Tensor, Tensor]:
    """:func:`cross_entropy` with the classes in any dimension; class probabilities have them there too."""
    if is_dtensor(input):
        z: Any = input
        if class_dim is not None:  # torch's dimension is all that it takes
            second = min(1, z.dim() - 1)
            if isinstance(target, Tensor) and target.shape == z.shape:
                target = target.movedim(class_dim, second)
            z = z.movedim(class_dim, second)
        return dtensor_cross_entropy(z, target, weight, engine=engine, return_nll=return_nll, **options)
    z, dtype = as_rows(input, class_dim), compute_dtype(input)
    wanted = criterion(input.shape, dtype, input.device, target, weight, class_dim=class_dim, **options)
    statistics = row_statistics(z, wanted.measures, engine)
    loss = wanted.loss(statistics)
    return (loss, wanted.nll(statistics)) if return_nll else loss
