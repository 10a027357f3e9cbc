"""Mixup labels: a pair of labels for each sample, as mixup and CutMix produce them."""

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from labelsmooth._core.checks import UNIT, check_broadcasts, check_strength, check_tensor
from labelsmooth._core.exact import moved
from labelsmooth._core.statistics import blanked
from labelsmooth._targets.rows import as_targets


class Mixed(NamedTuple):
    """A pair of labels for each sample, the first with share lam; see :func:`mixed`."""

    first: Tensor
    second: Tensor
    lam: float | Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The labels on another device."""
        return self._make(moved(self, lambda x: x.to(device, non_blocking=non_blocking)))

    def pin_memory(self) -> Self:
        return self._make(moved(self, Tensor.pin_memory))


def mixed(first: Tensor, second: Tensor, lam: float | Tensor) -> Mixed:
    r"""Mixup labels, a value for ``target``: a pair of labels for each sample, as mixup and CutMix produce.

    .. math::
        t = \lambda\, e_a + (1 - \lambda)\, e_b

    The loss equals that of the class probabilities t, which are never stored.

    Args:
        first: a, class indices in ``[0, K)``, in the input's shape without K.
        second: b, in the shape of ``first``: the labels of the samples that were mixed in.
        lam: lambda, the share of ``first``, in ``[0, 1]``: a number; one per sample, ``(N,)``, for ``first``
            of any shape ``(N, ...)``; or a tensor that broadcasts against ``first``.

    Returns:
        A value for ``target``. A row is ignored if one of its labels has a share and is the ignored index.

    Raises:
        ValueError: if the labels differ in shape, or ``lam`` lies outside ``[0, 1]``.

    Example:
        >>> import torch, labelsmooth
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 2, 3])
        >>> order, lam = torch.tensor([1, 0, 3, 2]), 0.7
        >>> logits = lam * x + (1 - lam) * x[order]  # of the identity as a model
        >>> labelsmooth.functional.cross_entropy(logits, mixed(y, y[order], lam), label_smoothing=0.1)
        tensor(1.1326)

    Reference:
        Zhang et al., *mixup: Beyond Empirical Risk Minimization*, ICLR 2018.
    """
    check_tensor("first", first)
    check_tensor("second", second)
    if first.shape != second.shape:
        raise ValueError(
            f"second must have the shape of first {tuple(first.shape)}, got {tuple(second.shape)}"
        )
    _check_share(by_sample(lam, first.shape), first.shape)
    return Mixed(first, second, lam)


def by_sample(lam: float | Tensor, rows: torch.Size) -> float | Tensor:
    """Reshape collated shares, one per sample ``(N,)``, so that they broadcast against the rows."""
    if isinstance(lam, Tensor) and lam.dim() == 1 and len(rows) > 1 and lam.numel() == rows[0]:
        return lam.reshape(-1, *[1] * (len(rows) - 1))
    return lam


def _check_share(lam: float | Tensor, rows: torch.Size) -> None:
    check_strength("lam", lam)
    if isinstance(lam, Tensor):
        check_broadcasts("lam", lam, rows, "first")


def as_mixed_targets(
    target: Mixed,
    shape: torch.Size,
    class_dim: int,
    *,
    dtype: torch.dtype,
    ignore_index: int | None,
    sample_weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The labels of each row, (..., 2), a mask of the rows that are not ignored, and the labels' shares."""
    first, second, lam = target
    options: dict[str, Any] = {"dtype": dtype, "ignore_index": ignore_index, "soft": False}
    if first.shape != second.shape or first.shape != shape[:class_dim] + shape[class_dim + 1 :]:
        for labels in (first, second):  # one of the two raises the error
            as_targets(labels, shape, class_dim, **options)
    if sample_weight is not None:
        check_tensor("sample_weight", sample_weight)
        check_broadcasts("sample_weight", sample_weight, first.shape, "the rows'")
        sample_weight = sample_weight.unsqueeze(-1)
    labels, counted = as_targets(
        torch.stack([first, second], -1),
        torch.Size((*shape, 2)),
        class_dim,
        sample_weight=sample_weight,
        **options,
    )
    lam = by_sample(lam, first.shape)
    _check_share(lam, first.shape)  # again, as collating may change lam
    every = torch.ones(first.shape, dtype=dtype, device=first.device)
    if isinstance(lam, Tensor):
        lam = torch.where(UNIT.has(lam), lam, torch.nan).to(every)
    lam = every * lam  # arithmetic keeps a float symbolic in torch.compile: one graph for all
    # A label mixed with itself has exactly the share 1.
    lam = torch.where((first == second) & UNIT.has(lam), 1.0, lam)
    shares = torch.stack([lam, 1 - lam], -1)
    counts = (counted | (shares == 0)).all(-1)
    return labels, counts, blanked(shares, counts)
