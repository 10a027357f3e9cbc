"""Logits and targets as rows, with the classes last and a mask of the rows that are not ignored."""

from numbers import Integral
from types import NoneType
from typing import Final

import torch
from torch import Tensor

from labelsmooth._core.checks import check_broadcasts, check_dim, check_local, check_tensor, first
from labelsmooth._core.modes import readable
from labelsmooth._core.statistics import blanked, class_dim_of

CLASSES_LAST: Final = (
    "; as in torch, the classes are in dimension 1: give dim=-1 where they are last in input"
)


def as_rows(input: Tensor, class_dim: int | None = None) -> Tensor:
    """Move the class dimension of the logits last. By default it is torch's: 1, or 0 if unbatched."""
    check_tensor("input", input, typed=True)
    check_local(input=input)
    if not input.is_floating_point():
        raise ValueError(f"input must hold floating-point logits, got {input.dtype}")
    class_dim = class_dim_of(input.dim(), class_dim)
    check_class_dim(input, class_dim)
    return input.movedim(class_dim, -1)


def check_class_dim(input: Tensor, class_dim: int) -> None:
    check_dim(class_dim)
    if input.dim() == 0 or not -input.dim() <= class_dim < input.dim():
        raise ValueError(f"input of shape {tuple(input.shape)} has no class dimension {class_dim}")
    if input.size(class_dim) == 0:
        raise ValueError(f"input must have at least one class, got shape {tuple(input.shape)}")


def as_targets(
    target: Tensor,
    shape: torch.Size,
    class_dim: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    ignore_index: int | None = -100,
    sample_weight: Tensor | None = None,
    soft: bool = True,
) -> tuple[Tensor, Tensor]:
    """Validate the targets of logits with this shape.

    Returns the targets, with the classes last and zeros in ignored rows, and a mask of the other rows. If
    ``ignore_index`` is None, no index is ignored. Class probabilities are accepted if ``soft``.
    """
    check_tensor("target", target, typed=True)
    check_local(target=target, sample_weight=sample_weight)
    whole = isinstance(ignore_index, (Integral, Tensor, torch.SymInt, NoneType))
    if not whole and not (isinstance(ignore_index, float) and ignore_index.is_integer()):
        raise ValueError(f"ignore_index must be an integer, got {ignore_index!r}")
    if isinstance(ignore_index, Tensor):
        check_tensor("ignore_index", ignore_index)
        if ignore_index.dim():
            raise ValueError(f"ignore_index must be one number, got shape {tuple(ignore_index.shape)}")
    class_dim = class_dim_of(len(shape), class_dim) % len(shape)
    num_classes, rows = shape[class_dim], shape[:class_dim] + shape[class_dim + 1 :]
    if target.shape == rows:
        counted, target = _hard_target(target, num_classes, ignore_index)
    elif target.shape == shape and soft and target.is_floating_point():
        counted, target = _soft_target(target, class_dim, ignore_index, dtype)
    elif target.shape == shape:
        probabilities = ", or floating-point class probabilities" if soft else ""
        raise ValueError(
            f"target must hold class indices of shape {tuple(rows)}{probabilities}; of one-hot labels take "
            f"target.argmax({class_dim}); got {target.dtype} of shape {tuple(shape)}"
        )
    else:
        probabilities = f" or {tuple(shape)} (class probabilities)" if soft else ""
        raise ValueError(
            f"target must have shape {tuple(rows)} (class indices){probabilities} for input of shape "
            f"{tuple(shape)}, got {tuple(target.shape)}{_meant(target, shape, class_dim)}"
        )
    if sample_weight is not None:
        check_tensor("sample_weight", sample_weight)
        check_broadcasts("sample_weight", sample_weight, rows, "the rows'")
        counted = counted & (sample_weight != 0)
    if target.is_floating_point():
        return blanked(target, counted), counted
    target = target.masked_fill(~counted, 0)
    if readable(target) and target.numel() and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
        ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
        found = first(target, (target < 0) | (target >= num_classes))
        hint = "; CrossEntropyLoss has an ignore_index"
        raise ValueError(
            f"target must hold class indices in [0, {num_classes}){ignored}, got {found}"
            + (hint if ignore_index is None and found < 0 else "")
        )
    return target, counted


def _meant(target: Tensor, shape: torch.Size, class_dim: int) -> str:
    """A hint for an error message if the target has the shape of a common mistake."""
    if target.shape == (*shape[:class_dim], 1, *shape[class_dim + 1 :]):
        return f"; take target.squeeze({class_dim})"
    last = len(shape) - 1
    if class_dim == 1 < last and target.shape == shape[:-1]:
        return CLASSES_LAST
    if class_dim == last > 1 and target.shape == shape[:1] + shape[2:]:
        return "; the classes are in the last dimension: give dim=1 where they are not"
    return ""


def _hard_target(target: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(
            f"target must hold integer class indices when its shape is the input's without the "
            f"{num_classes} classes, got {target.dtype}"
            + ("; of labels take target.long()" if target.is_floating_point() else "")
        )
    target = target.long()
    counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    return counted, target


def _soft_target(
    target: Tensor, class_dim: int, ignore_index: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    if ignore_index is not None and ignore_index >= 0:
        raise ValueError(
            f"ignore_index goes with class indices only, got {ignore_index}; "
            "for class probabilities, give ignored rows a sample_weight of 0"
        )
    target = target.movedim(class_dim, -1).to(dtype)
    return torch.ones(target.shape[:-1], dtype=torch.bool, device=target.device), target
