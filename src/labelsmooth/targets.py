"""What we smooth toward (the prior), how much (the strength), and what of."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from labelsmooth.checks import check_prior
from labelsmooth.schedules import ByClass, Schedule

OffTarget = Literal["all", "others"]
Weighting = Literal["torch", "sample"]
Strength = float | Tensor | ByClass | Schedule


class Prior(nn.Module):
    """A distribution over the classes, for all samples or for those of each class; see ``labelsmooth.priors``.

    As a module it moves and is saved with the loss that holds it.
    """

    probabilities: Tensor  # (K,), or (K, K) whose row k serves the samples of class k

    def __init__(self, probabilities: Tensor, description: str) -> None:
        super().__init__()
        check_prior(probabilities, probabilities.size(-1) if probabilities.dim() else 0)
        self.register_buffer("probabilities", probabilities)
        self.description = description

    def extra_repr(self) -> str:
        shape = "K" if self.probabilities.dim() == 1 else "K x K"
        return f"{self.description}, {shape} with K={self.probabilities.size(-1)}"


@dataclass(frozen=True, eq=False, repr=False)
class PerSample:
    """A distribution over the classes for each sample; made by ``labelsmooth.priors``.

    Either whole or, for few classes in each row, as pairs of a class and its probability; a class that
    appears twice has the sum, and probabilities that do not sum to 1 are renormalised.
    """

    probabilities: Tensor  # in the input's shape; or (..., k), in the target's shape and k
    classes: Tensor | None = None  # (..., k)
    description: str = "per sample"

    def __repr__(self) -> str:
        shape = tuple(self.probabilities.shape)
        what = "whole" if self.classes is None else f"{shape[-1]} classes each"
        return f"PerSample({self.description}, {what}, shape {shape})"


@dataclass(frozen=True, eq=False)
class Mixed:
    """Two labels for each sample, the first with share lam; made by :func:`mixed`."""

    first: Tensor
    second: Tensor
    lam: float | Tensor
