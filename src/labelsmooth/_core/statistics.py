"""What an engine is given beside the logits, and what it finds in each row of them."""

from collections.abc import Callable
from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

from labelsmooth._core.modes import readable

ABSENT: Final = torch.iinfo(torch.int64).min  # the index of a target class that another shard of z has


class Measures(NamedTuple):
    """The two measures over the classes, the target's and the prior's, that each row's logits are held to."""

    target: Tensor  # (...) class indices, or ABSENT; (..., m) if there are shares; or (..., K) probabilities
    counted: Tensor  # (...) whether a row counts; the others may hold anything
    prior: Tensor | None = None  # (K,), or (K, K) whose row k serves the rows of class k; None is uniform
    weight: Tensor | None = None  # (K,) class weights
    exclude_target: bool = False  # whether the prior leaves the target class out
    shares: Tensor | None = None  # (..., m) what each of a row's classes has of the target
    per_row: bool = False  # whether the prior is (..., K), one for each row
    classes: Tensor | None = None  # (..., k) the classes of such a prior, then (..., k) too
    margin: float | None = None  # of the hinge; None: there is none
    squared: bool = False  # whether the hinge is
    spread: bool = False  # whether model_z is asked for

    @property
    def soft(self) -> bool:
        return self.target.is_floating_point()

    @property
    def by_class(self) -> bool:
        """Whether each class has a prior of its own."""
        return self.prior is not None and self.prior.dim() == 2 and not self.per_row

    @property
    def mixed(self) -> bool:
        """Whether the prior of a row is a mixture of those of the classes, a matrix product that only the
        reference makes."""
        return (self.soft or self.shares is not None) and (self.exclude_target or self.by_class)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return tuple(getattr(self, name) for name in TENSORS)

    def with_tensors(self, *tensors: Tensor | None) -> Self:
        return self._replace(**dict(zip(TENSORS, tensors, strict=True)))

    def by_row(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same, with what there is for each row changed, which has the dimensions of ``counted`` or one
        more."""

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
        """Some of the rows, which have one dimension."""
        return self if part == slice(0, len(self.counted)) else self.by_row(lambda x: x[part])

    def flat(self) -> Self:
        """The same with all rows in one dimension."""
        dims = self.counted.dim()
        return self.by_row(lambda x: x.reshape(-1, *x.shape[dims:]))


TENSORS: Final = ("target", "counted", "prior", "weight", "shares", "classes")


class RowStatistics(NamedTuple):
    """What a loss has to know of a row of logits z: one number each per row.

    A non-negative measure a over the classes enters by its mass, sum_k a_k, and by <a, z>; its cross
    entropy to the model is then mass * lse - <a, z>. Logits are measured from the row's largest, on
    which no cross entropy depends, so that a common offset costs no precision. Rows that do not count
    are finite and have no gradient.
    """

    lse: Tensor  # log sum_k exp(z_k - z_max)
    target_z: Tensor  # <target, z - z_max>; the target is e_y, or the class probabilities, times the weights
    prior_z: Tensor  # <prior, z - z_max>; the prior is renormalised over the valid classes, times the weights
    hinge: Tensor  # <prior, relu(z_max - z - margin)>, or of its square; its gradient is by z_max too
    model_z: Tensor  # <softmax(z), z - z_max>
    target_mass: Tensor
    prior_mass: Tensor
    valid_mass: Tensor  # the prior's mass over the valid classes, before it is renormalised
    z_max: Tensor  # a constant to autograd, as the masses are: the gradient of lse is that of lse + z_max
    slope: Tensor  # what the gradient of the hinge has at the largest logit, the first of the largest
    overlap: Tensor | None = None  # <target, prior>: no engine's work, and there only if a formula asks


class Gradient(NamedTuple):
    """That of a loss by the first of the row statistics, which are those with a gradient by the logits."""

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
    """a, of the cross entropy to the target p."""
    prior: float | Tensor = 0.0
    """b, of the cross entropy to the prior."""
    hinge: float | Tensor = 0.0
    """c, of the hinge with margin m."""
    entropy: float | Tensor = 0.0
    """d, of the entropy of the model."""


class Linear(NamedTuple):
    """Losses of rows that are linear in their statistics, but for a square of the lse."""

    factors: Factors
    scale: Tensor  # of each row
    z_loss: float  # the factor of the squared lse
    z_by_target: bool  # whether that is weighted by the target's mass


STATISTICS: Final = 10  # that engines find
DIFFERENTIABLE: Final = 5  # the first of them, which have a gradient by the logits
assert RowStatistics._fields[STATISTICS:] == ("overlap",)
assert RowStatistics._fields[:DIFFERENTIABLE] == Gradient._fields


def renormalised(
    target_z: Tensor, prior_z: Tensor, target_mass: Tensor, prior_mass: Tensor, valid_mass: Tensor
) -> tuple[Tensor, Tensor]:
    """prior_z and prior_mass of the prior over its valid classes; without mass on any, the target's."""
    empty = valid_mass == 0
    divisor = valid_mass.masked_fill(empty, 1.0)
    return torch.where(empty, target_z, prior_z / divisor), torch.where(
        empty, target_mass, prior_mass / divisor
    )


def class_dim_of(dims: int, class_dim: int | None = None) -> int:
    """The class dimension of logits with so many: unless given 1, as in torch, or 0 without a batch."""
    return min(1, dims - 1) if class_dim is None else class_dim


def taken(table: Tensor, index: Tensor) -> Tensor:
    """``table[index]``. Of an index without a dimension torch would read the value, which compilers, fake
    tensors and the meta device do not have, and which a GPU would have to be waited for."""
    return table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])


def sizeable(mass: Tensor) -> Tensor:
    """A mass that can be divided by, or none."""
    return torch.where(mass < torch.finfo(mass.dtype).tiny, 0.0, mass)


def times(a: Tensor, x: Tensor) -> Tensor:
    """``a * x``, and 0 where a is 0 and x infinite."""
    return a * torch.where(a == 0, x.nan_to_num(torch.nan, 0.0, 0.0), x)


def blanked(x: Tensor, counted: Tensor) -> Tensor:
    """``x`` with zeros in the rows that do not count; no copy where it is seen to change nothing."""
    blank = ~counted
    needed = not readable(blank) or bool(blank.any())
    return x.masked_fill(blank.unsqueeze(-1), 0.0) if needed else x
