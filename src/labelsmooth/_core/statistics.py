"""The inputs of an engine besides the logits, and the statistics that it computes of each row."""

from collections.abc import Callable
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

from labelsmooth._core.modes import readable

ABSENT: Final = torch.iinfo(torch.int64).min  # the index of a target class that is in another shard of z


class Measures(NamedTuple):
    """The inputs of an engine besides the logits: target, prior and weights over the classes of each row."""

    target: Tensor  # (...) class indices, or ABSENT; (..., m) if there are shares; or (..., K) probabilities
    counted: Tensor  # (...) False for ignored rows, which may hold anything
    prior: Tensor | None = None  # (K,), or (K, K) whose row k is the prior of class k; None is uniform
    weight: Tensor | None = None  # (K,) class weights
    exclude_target: bool = False  # whether the prior leaves the target class out
    shares: Tensor | None = None  # (..., m) the share of each of a row's classes in the target
    per_row: bool = False  # whether the prior is (..., K), one for each row
    classes: Tensor | None = None  # (..., k) the classes of a prior per row, if it is (..., k)
    margin: float | None = None  # of the hinge; None is no hinge
    squared: bool = False  # whether the hinge is squared
    spread: bool = False  # whether to compute model_z

    @property
    def soft(self) -> bool:
        return self.target.is_floating_point()

    @property
    def by_class(self) -> bool:
        """Whether each class has its own prior."""
        return self.prior is not None and self.prior.dim() == 2 and not self.per_row

    @property
    def mixed(self) -> bool:
        """Whether a row's prior is a mixture of the classes' priors, which only the reference supports."""
        return (self.soft or self.shares is not None) and (self.exclude_target or self.by_class)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, name) for name in TENSORS)

    def with_tensors(self, *tensors: Tensor | None) -> Self:
        return self._replace(**dict(zip(TENSORS, tensors, strict=True)))

    def by_row(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The measures with ``change`` applied to all tensors per row.

        These have the dimensions of ``counted``, or one more.
        """

        def changed(x: Tensor | None) -> Tensor | None:
            return None if x is None else change(x)

        return self._replace(
            target=change(self.target),
            counted=change(self.counted),
            prior=changed(self.prior) if self.per_row else self.prior,
            shares=changed(self.shares),
            classes=changed(self.classes),
        )

    def rows(self, part: slice) -> Self:
        """The measures of some of the rows, which are in one dimension."""
        return self if part == slice(0, len(self.counted)) else self.by_row(lambda x: x[part])

    def flat(self) -> Self:
        """The measures with all rows in one dimension."""
        dims = self.counted.dim()
        return self.by_row(lambda x: x.reshape(-1, *x.shape[dims:]))


TENSORS: Final = ("target", "counted", "prior", "weight", "shares", "classes")


class RowStatistics(NamedTuple):
    """The statistics of the logits z from which a loss is computed: one number per row each.

    A non-negative measure a over the classes enters by its mass, sum_k a_k, and by <a, z>; its cross
    entropy to the model is mass * lse - <a, z>. The row's largest logit is subtracted first, which changes
    no cross entropy, so that a large common offset costs no precision. The statistics of ignored rows are
    finite and have no gradient.
    """

    lse: Tensor  # log sum_k exp(z_k - z_max)
    target_z: Tensor  # <target, z - z_max>; the target is e_y, or the class probabilities, times the weights
    prior_z: Tensor  # <prior, z - z_max>; the prior is renormalised over the valid classes, times the weights
    hinge: Tensor  # <prior, relu(z_max - z - margin)>, or with relu squared; z_max has a gradient here
    model_z: Tensor  # <softmax(z), z - z_max>
    target_mass: Tensor
    prior_mass: Tensor
    valid_mass: Tensor  # the prior's mass over the valid classes, before it is renormalised
    z_max: Tensor  # a constant for autograd, like the masses; the gradient of lse is that of lse + z_max
    slope: Tensor  # the derivative of the hinge with respect to z_max, for the first of the largest logits
    overlap: Tensor | None = None  # <target, prior>, for formulas that use it; no engine computes it


class Gradient(NamedTuple):
    """The gradient of a loss with respect to the differentiable statistics, the first of RowStatistics."""

    lse: Tensor
    target_z: Tensor
    prior_z: Tensor
    hinge: Tensor
    model_z: Tensor


class Factors(NamedTuple):
    r"""The factors of a loss that is a sum of the terms below. Each is a number, or a tensor that broadcasts
    against the rows.

    .. math::
        \ell = a\, H(p, q) + b\, H(\pi, q) + c \sum_k \pi_k \max(0,\ \max_j z_j - z_k - m) + d\, H(q)
    """

    nll: float | Tensor = 0.0
    """a, the factor of the cross entropy to the target p."""
    prior: float | Tensor = 0.0
    """b, the factor of the cross entropy to the prior."""
    hinge: float | Tensor = 0.0
    """c, the factor of the hinge with margin m."""
    entropy: float | Tensor = 0.0
    """d, the factor of the entropy of the model."""


class Linear(NamedTuple):
    """Losses per row that are linear in the statistics, except for a squared lse."""

    factors: Factors
    scale: Tensor  # each row's factor
    z_loss: float  # the factor of the squared lse
    z_by_target: bool  # whether the squared lse is weighted by the target's mass


def nll(s: RowStatistics) -> Tensor:
    """H(target, q), the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def prior_nll(s: RowStatistics) -> Tensor:
    """H(prior, q)."""
    return s.prior_mass * s.lse - s.prior_z


def model_entropy(s: RowStatistics) -> Tensor:
    """H(q), the entropy of the model."""
    return s.lse - s.model_z


def squared_lse(s: RowStatistics) -> Tensor:
    """lse(z)^2, a penalty that keeps the logits nearly normalised (Chowdhery et al., PaLM, 2022)."""
    return (s.lse + s.z_max).square()


STATISTICS: Final = 10  # the number of statistics that engines compute
DIFFERENTIABLE: Final = 5  # the number of them that have a gradient; these come first
assert RowStatistics._fields[STATISTICS:] == ("overlap",)
assert RowStatistics._fields[:DIFFERENTIABLE] == Gradient._fields


def renormalised(
    target_z: Tensor, prior_z: Tensor, target_mass: Tensor, prior_mass: Tensor, valid_mass: Tensor
) -> tuple[Tensor, Tensor]:
    """prior_z and prior_mass, renormalised over the valid classes; the target's if these have no mass."""
    empty = valid_mass == 0
    divisor = valid_mass.masked_fill(empty, 1.0)
    return torch.where(empty, target_z, prior_z / divisor), torch.where(
        empty, target_mass, prior_mass / divisor
    )


def class_dim_of(dims: int, class_dim: int | None = None) -> int:
    """The class dimension of logits with ``dims`` dimensions: by default 1 as in torch, 0 if unbatched."""
    return min(1, dims - 1) if class_dim is None else class_dim


def taken(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``, without reading the value of a 0-d index as torch does.

    Compilers, fake tensors and the meta device have no such value, and a GPU would be synchronised.
    """
    return table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])


def sizeable(mass: Tensor) -> Tensor:
    """The mass, or 0 where it is too small to divide by."""
    return torch.where(mass < torch.finfo(mass.dtype).tiny, 0.0, mass)


def times(a: Tensor, x: Tensor) -> Tensor:
    """``a * x``, but 0 where a is 0 and x is infinite."""
    return a * torch.where(a == 0, x.nan_to_num(torch.nan, 0.0, 0.0), x)


def blanked(x: Tensor, counted: Tensor) -> Tensor:
    """``x`` with zeros in ignored rows, without a copy if it is known that there are none."""
    blank = ~counted
    needed = not readable(blank) or bool(blank.any())
    return x.masked_fill(blank.unsqueeze(-1), 0.0) if needed else x
