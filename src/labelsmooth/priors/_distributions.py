"""The types of priors: a distribution for all samples, for each class, or for each sample."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from labelsmooth._core.checks import check_prior, check_tensor
from labelsmooth._core.exact import Exact, keep, moved


class Prior(Exact):
    """A distribution over the classes for all samples, or one for the samples of each class. The functions of
    ``labelsmooth.priors`` make it.

    It is a module, so it moves and is saved with the loss that holds it. A cast to half precision (float16,
    bfloat16) keeps its dtype. It is checked when it is made or loaded, not in each call.
    """

    probabilities: Tensor  # (K,), or (K, K) whose row k is the prior of the samples of class k

    def __init__(self, probabilities: Tensor, description: str = "given") -> None:
        super().__init__()
        check_tensor("prior", probabilities)
        _check_values(probabilities)
        keep(self, "probabilities", probabilities)
        self.description = description

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # Checks first, so that an error leaves the prior unchanged.
        probabilities = state_dict.get(f"{prefix}probabilities")
        if isinstance(probabilities, Tensor):
            _check_values(probabilities)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{self.description}, shape {tuple(self.probabilities.shape)}"


def _check_values(probabilities: Tensor) -> None:
    check_prior(probabilities, probabilities.size(-1) if probabilities.dim() else 0)


class PerSample(NamedTuple):
    """A distribution over the classes for each sample. The functions of ``labelsmooth.priors`` make it.

    It has the probabilities of all classes, or of k classes per row together with their indices. The
    probabilities of a repeated class are added, and k probabilities are renormalised. The loss checks all
    rows except the ignored ones, which may hold any values.
    """

    probabilities: Tensor  # the input's shape; or (..., k), the target's shape and k
    classes: Tensor | None = None  # (..., k)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The prior on another device."""
        return self._make(moved(self, lambda x: x.to(device, non_blocking=non_blocking)))

    def pin_memory(self) -> Self:
        return self._make(moved(self, Tensor.pin_memory))

    def __repr__(self) -> str:
        shape = tuple(self.probabilities.shape)
        what = "whole" if self.classes is None else f"{shape[-1]} classes each"
        return f"PerSample({what}, shape {shape})"
