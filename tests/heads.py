"""A linear head, its loss in chunks of 3, 3 and 1 rows, and the loss of its logits."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth.functional import cross_entropy, linear_cross_entropy
from tests.cases import chunks

N, D, K = 7, 3, 5


class Problem(NamedTuple):
    input: Tensor
    linear_weight: Tensor
    linear_bias: Tensor | None
    target: Tensor
    softcap: float | None
    options: dict[str, Any]

    @property
    def leaves(self) -> list[Tensor]:
        return [x for x in self[:3] if isinstance(x, Tensor) and x.requires_grad]

    def ours(self, **options: Any) -> Any:
        return linear_cross_entropy(
            self.input,
            self.linear_weight,
            self.target,
            linear_bias=self.linear_bias,
            softcap=self.softcap,
            **{**chunks(3), **self.options, **options},
        )

    def logits(self) -> Tensor:
        z = F.linear(self.input, self.linear_weight, self.linear_bias)
        return z if self.softcap is None else self.softcap * torch.tanh(z / self.softcap)

    def theirs(self, **options: Any) -> Any:
        options = {**self.options, **options, "engine": "reference"}
        return cross_entropy(self.logits(), self.target, **options)


def problem(seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> Problem:
    generator = torch.Generator().manual_seed(seed)
    tensors = [
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((N, D), (K, D), (K,))
    ]
    hidden, weight, bias = (x.to(dtype).requires_grad_() for x in tensors)
    target = torch.randint(K, (N,), generator=generator)
    return Problem(hidden, weight, bias, target, None, options)


def gradients(loss: Tensor, leaves: list[Tensor], **how: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss.sum(), leaves, **how)
