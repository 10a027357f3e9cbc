"""What we smooth toward (the prior), how much (the strength), and what of."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple, Self, TypedDict

import torch
from torch import Tensor

from labelsmooth._core.checks import (
    ROUNDING,
    UNIT,
    check_broadcasts,
    check_prior,
    check_prior_shape,
    check_strength,
    check_tensor,
    check_values,
)
from labelsmooth._core.exact import Exact, keep
from labelsmooth._core.modes import readable
from labelsmooth._core.statistics import Measures, blanked
from labelsmooth._targets.rows import as_targets
from labelsmooth.schedules import ByClass, Schedule

OffTarget = Literal["all", "others"]
Weighting = Literal["torch", "sample"]
Strength = float | Tensor | ByClass | Schedule


class Prior(Exact):
    """A distribution over the classes, for all samples or for those of each class; made by functions of
    ``labelsmooth.priors``.

    As a module it moves and is saved with the loss that holds it; moved to a short type, it stays as it is.
    It is checked when it is made or loaded, and not in each call.
    """

    probabilities: Tensor  # (K,), or (K, K) whose row k serves the samples of class k

    def __init__(self, probabilities: Tensor, description: str = "given") -> None:
        super().__init__()
        check_tensor("prior", probabilities)
        _check_values(probabilities)
        keep(self, "probabilities", probabilities)
        self.description = description

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Before, so that what is refused leaves the prior as it was.
        probabilities = state_dict.get(f"{prefix}probabilities")
        if isinstance(probabilities, Tensor):
            _check_values(probabilities)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.description}, shape {tuple(self.probabilities.shape)}"


def _check_values(probabilities: Tensor) -> None:
    check_prior(probabilities, probabilities.size(-1) if probabilities.dim() else 0)


class PerSample(NamedTuple):
    """A distribution over the classes for each sample; made by ``labelsmooth.priors``.

    Either whole or, for few classes in each row, as pairs of a class and its probability; a class that
    appears twice has the sum, and probabilities that do not sum to 1 are renormalised. The loss checks the
    rows that count, the others may hold anything.
    """

    probabilities: Tensor  # in the input's shape; or (..., k), in the target's shape and k
    classes: Tensor | None = None  # (..., k)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same on another device."""
        return self._make(_moved(self, lambda x: x.to(device, non_blocking=non_blocking)))

    def pin_memory(self) -> Self:
        return self._make(_moved(self, Tensor.pin_memory))

    def __repr__(self) -> str:
        shape = tuple(self.probabilities.shape)
        what = "whole" if self.classes is None else f"{shape[-1]} classes each"
        return f"PerSample({what}, shape {shape})"


class Mixed(NamedTuple):
    """Two labels for each sample, the first with share lam; made by :func:`mixed`."""

    first: Tensor
    second: Tensor
    lam: float | Tensor

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same on another device."""
        return self._make(_moved(self, lambda x: x.to(device, non_blocking=non_blocking)))

    def pin_memory(self) -> Self:
        return self._make(_moved(self, Tensor.pin_memory))


def _moved(parts: Iterable[Any], move: Callable[[Tensor], Tensor]) -> list[Any]:
    return [move(x) if isinstance(x, Tensor) else x for x in parts]


def mixed(first: Tensor, second: Tensor, lam: float | Tensor) -> Mixed:
    r"""Two labels for each sample, as mixup and CutMix make them: a value for ``target``.

    .. math::
        t = \lambda\, e_a + (1 - \lambda)\, e_b

    The loss is that of the class probabilities t, which are never made.

    Args:
        first: a, class indices in ``[0, K)``, in the input's shape without K.
        second: b, in the shape of ``first``: the labels of the samples that were mixed in.
        lam: lambda, the share of ``first``, in ``[0, 1]``: a number; one for each sample, ``(N,)``, whatever
            else ``first`` is made of; or a tensor that broadcasts against ``first``.

    Returns:
        A value for ``target``. A row does not count if a label with a share in it is to be ignored.

    Raises:
        ValueError: if the labels differ in shape, or ``lam`` lies outside ``[0, 1]``.

    Example:
        >>> import torch, labelsmooth
        >>> x, y = torch.eye(4), torch.tensor([0, 1, 2, 3])
        >>> order, lam = torch.tensor([1, 0, 3, 2]), 0.7
        >>> logits = lam * x + (1 - lam) * x[order]  # of a model that does nothing
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
    """A share for each sample, ``(N,)`` as collated ones are, in a shape that broadcasts against the rows."""
    if isinstance(lam, Tensor) and lam.dim() == 1 and len(rows) > 1 and lam.numel() == rows[0]:
        return lam.reshape(-1, *[1] * (len(rows) - 1))
    return lam


def _check_share(lam: float | Tensor, rows: torch.Size) -> None:
    check_strength("lam", lam)
    if isinstance(lam, Tensor):
        check_broadcasts("lam", lam, rows, "first")


def as_mixed_targets(
    target: Mixed, shape: torch.Size, class_dim: int, *, dtype: torch.dtype, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The two labels of each row, (..., 2), which rows count, and what each label has of its row."""
    labels, counted = zip(
        *(
            as_targets(y, shape, class_dim, dtype=dtype, soft=False, **options)
            for y in (target.first, target.second)
        ),
        strict=True,
    )
    lam = by_sample(target.lam, labels[0].shape)
    _check_share(lam, labels[0].shape)  # again: a collated one is another
    every = torch.ones(labels[0].shape, dtype=dtype, device=labels[0].device)
    if isinstance(lam, Tensor):
        lam = torch.where(UNIT.has(lam), lam, torch.nan).to(every)
    lam = every * lam  # arithmetic: torch.compile keeps a float open, one graph for all
    # A label mixed with itself is that label, to the last digit.
    lam = torch.where((target.first == target.second) & UNIT.has(lam), 1.0, lam)
    shares = torch.stack([lam, 1 - lam], -1)
    counts = (torch.stack(counted, -1) | (shares == 0)).all(-1)
    return torch.stack(labels, -1), counts, blanked(shares, counts)


class PriorOptions(TypedDict, total=False):
    """Fields of Measures."""

    prior: Tensor | None
    per_row: bool
    classes: Tensor | None


def as_prior(
    prior: Tensor | Prior | PerSample | None,
    shape: torch.Size,
    class_dim: int,
    dtype: torch.dtype,
    counted: Tensor,
) -> PriorOptions:
    """Validate the prior of logits of that shape, classes last; that of each sample where the row counts."""
    num_classes = shape[class_dim]
    if prior is None:
        return {}
    if isinstance(prior, Prior) and "probabilities" in prior._buffers:
        check_prior_shape(prior.probabilities, num_classes)
        return {"prior": prior.probabilities.to(dtype)}
    if not isinstance(prior, PerSample):
        prior = prior.probabilities if isinstance(prior, Prior) else prior
        check_prior(prior, num_classes)
        return {"prior": prior.to(dtype)}
    probabilities, classes = prior.probabilities, prior.classes
    if classes is None:
        if probabilities.shape != shape:
            raise ValueError(
                f"prior of each sample must have the input's shape {tuple(shape)}, "
                f"got {tuple(probabilities.shape)}"
            )
        probabilities = probabilities.movedim(class_dim, -1)
        _check_rows(probabilities, counted, whole=True)
        return {"prior": probabilities.to(dtype), "per_row": True}
    rows = shape[:class_dim] + shape[class_dim + 1 :]
    if classes.shape != probabilities.shape or classes.shape[:-1] != rows:
        raise ValueError(
            f"prior of each sample must have its classes, and as many probabilities, in shape "
            f"({', '.join(map(str, rows))}, k), got {tuple(classes.shape)} and {tuple(probabilities.shape)}"
        )
    _check_rows(probabilities, counted)
    classes = classes.long().masked_fill(~counted.unsqueeze(-1), 0)
    within = (classes >= 0) & (classes < num_classes)
    check_values("prior of each sample", f"have classes in [0, {num_classes})", classes, within)
    return {"prior": blanked(probabilities.to(dtype), counted), "per_row": True, "classes": classes}


def _check_rows(probabilities: Tensor, counted: Tensor, whole: bool = False) -> None:
    """Whether the rows that count are distributions; over few classes they are renormalised."""
    if not readable(probabilities, counted):
        return
    p, rule = probabilities, "be finite and at least 0"
    good = ((p >= 0) & (p < torch.inf)).all(-1)
    if whole:
        rule += ", and sum to 1,"
        good &= (p.sum(-1, dtype=torch.float64) - 1).abs() <= ROUNDING
    bad = counted & ~good
    if bool(bad.any()):
        row = tuple(bad.nonzero()[0].tolist())
        raise ValueError(
            f"prior of each sample must {rule} in rows that count, got {_shortly(p[row])} in row {row}"
        )


def _shortly(row: Tensor) -> str:
    shown = ", ".join(f"{x:.3g}" for x in row[:4].tolist())
    return f"[{shown}, ...]" if row.numel() > 4 else f"[{shown}]"


def check_others(measures: Measures, num_classes: int) -> None:
    """The rule of ``off_target="others"``: something is left when a class is taken out of its prior."""
    prior = measures.prior
    if num_classes == 1:
        raise ValueError('off_target="others" needs at least 2 classes, got 1')
    if measures.classes is not None and (measures.soft or measures.shares is not None):
        raise ValueError(
            'off_target="others" takes one label for each row with a prior of a few classes, got several'
        )
    if prior is not None and not measures.per_row and readable(prior):
        own = prior.diagonal() if prior.dim() == 2 else prior
        if bool((own >= 1).any()):
            k = int((own >= 1).nonzero()[0])
            raise ValueError(
                f'prior leaves nothing for the others of class {k}, as off_target="others" needs'
            )


def check_draws(measures: Measures, formula: str) -> None:
    """The rule of a formula that takes wrong labels to be drawn from the prior."""
    if measures.by_class:
        raise ValueError(
            f"prior must be the same for all classes with {formula}, which takes wrong labels to be drawn"
            " from it, got one of shape (K, K)"
        )
    if measures.exclude_target:
        raise ValueError(
            f'off_target must be "all" with {formula}, which draws wrong labels from the prior, got "others"'
        )
