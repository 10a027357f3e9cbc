"""What an engine is given beside the logits, and what it finds in each row of them."""

from typing import Final, NamedTuple, Self

import torch
from torch import Tensor

ABSENT: Final = torch.iinfo(torch.int64).min  # the index of a target class that another shard of z has


class Measures(NamedTuple):
    """The two measures over the classes, the target's and the prior's, that each row's logits are held to."""

    target: Tensor  # (...) class indices, or ABSENT, or (..., K) class probabilities
    counted: Tensor  # (...) whether a row counts; the others may hold anything
    prior: Tensor | None = None  # (K,), or (K, K) whose row k serves the rows of class k; None is uniform
    weight: Tensor | None = None  # (K,) class weights
    exclude_target: bool = False  # whether the prior leaves the target class out

    @property
    def soft(self) -> bool:
        return self.target.is_floating_point()

    @property
    def mixed(self) -> bool:
        """Whether the prior of a row is a mixture of those of the classes, a matrix product that only the
        reference makes."""
        per_class = self.exclude_target or (self.prior is not None and self.prior.dim() == 2)
        return self.soft and per_class

    def rows(self, part: slice) -> Self:
        return self._replace(target=self.target[part], counted=self.counted[part])


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
    target_mass: Tensor
    prior_mass: Tensor
    valid_mass: Tensor  # the prior's mass over the valid classes, before it is renormalised
    z_max: Tensor  # a constant to autograd, as the masses are: the gradient of lse is that of lse + z_max


DIFFERENTIABLE = 3  # the leading statistics that have a gradient by the logits


def renormalised(
    target_z: Tensor, prior_z: Tensor, target_mass: Tensor, prior_mass: Tensor, valid_mass: Tensor
) -> tuple[Tensor, Tensor]:
    """prior_z and prior_mass of the prior over its valid classes; without mass on any, the target's."""
    empty = valid_mass == 0
    divisor = valid_mass.masked_fill(empty, 1.0)
    return torch.where(empty, target_z, prior_z / divisor), torch.where(
        empty, target_mass, prior_mass / divisor
    )


def times(a: Tensor, x: Tensor) -> Tensor:
    """``a * x``, and 0 where a is 0 and x infinite."""
    return a * torch.where((a == 0) & x.isinf(), 0.0, x)
