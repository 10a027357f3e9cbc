"""The private names that tests of engines call, in one place, and what those of the dense one share."""

from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from labelsmooth import functional
from labelsmooth._core.precision import compute_dtype as compute_dtype
from labelsmooth._core.statistics import ABSENT as ABSENT
from labelsmooth._core.statistics import DIFFERENTIABLE as DIFFERENTIABLE
from labelsmooth._core.statistics import STATISTICS as STATISTICS
from labelsmooth._core.statistics import Measures as Measures
from labelsmooth._engines import dense as dense
from labelsmooth._engines import reference as reference
from labelsmooth._engines import route as route
from labelsmooth._engines.layout import SIDE_BY_SIDE as SIDE_BY_SIDE
from labelsmooth._engines.layout import in_columns as in_columns
from labelsmooth._engines.layout import in_rows as in_rows
from tests.cases import random

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here
BLOCK = 1024  # of the kernel
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


class Kind(NamedTuple):
    soft: bool
    prior: str | None
    weight: bool
    exclude: bool

    def __str__(self) -> str:
        return "-".join(
            [
                "soft" if self.soft else "hard",
                self.prior or "uniform",
                *["weight"] * self.weight,
                *["others"] * self.exclude,
            ]
        )

    def measures(self, z: Tensor) -> Measures:
        """For those logits; the last row does not count."""
        real, N, K = compute_dtype(z), len(z), z.size(-1)
        target: Tensor = torch.arange(N) * 7 % K
        if self.soft:
            target = 2 * random(N, K).softmax(-1).to(real)  # which need not sum to 1
        priors = {None: None, "vector": (K,), "matrix": (K, K)}
        shape = priors[self.prior]
        prior = None
        if shape is not None:
            prior = random(*shape).abs()
            prior[..., 1::3] = 0
            prior = (prior / prior.sum(-1, keepdim=True)).to(real)
        weight = (random(K).abs() * (torch.arange(K) % 5 != 4)).to(real) if self.weight else None
        return Measures(target, torch.arange(N) < N - 1, prior, weight, self.exclude)


KINDS = [
    kind
    for kind in map(
        Kind._make, product([False, True], [None, "vector", "matrix"], [False, True], [False, True])
    )
    if not (kind.soft and (kind.prior == "matrix" or kind.exclude))
]


def answers(engine: Any, z: Tensor, measures: Measures, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics and gradient."""
    if engine is dense:
        found = dense.forward(z, measures)
        return found, dense.backward(grad, z, measures, found)
    leaf = z.detach().clone().requires_grad_()
    found = torch.stack(reference.row_statistics(leaf, measures)[:STATISTICS])
    return found.detach(), torch.autograd.grad(found[:DIFFERENTIABLE], leaf, grad)[0]


def double(measures: Measures) -> Measures:
    floating: list[Any] = [
        x.double() if isinstance(x, Tensor) and x.dtype.is_floating_point else x for x in measures
    ]
    return Measures(*floating)


def assert_near(ours: Tensor, naive: Tensor, truth: Tensor, size: float = 0.0) -> None:
    """At most twice as far from the truth as the naive one, and a few last digits, for it may have luck."""
    finite = truth.isfinite()
    assert ours.isfinite().equal(finite)
    torch.testing.assert_close(ours[~finite].double(), truth[~finite], rtol=0, atol=0, equal_nan=True)
    if finite.any():
        # float64 is its own truth.
        digits = (64 if ours.dtype == torch.float64 else 4) * torch.finfo(ours.dtype).eps
        worst = 2 * (naive.double() - truth)[finite].abs().amax() + digits * truth[finite].abs().amax().clamp(
            min=size
        )
        assert (ours.double() - truth)[finite].abs().amax() <= worst


def assert_equals_reference(z: Tensor, measures: Measures) -> None:
    grad = random(DIFFERENTIABLE, *z.shape[:-1]).to(compute_dtype(z))
    ours = answers(dense, z, measures, grad)
    naive = answers(reference, z, measures, grad)
    truth = answers(reference, z.double(), double(measures), grad.double())
    assert ours[0].dtype == compute_dtype(z)
    assert ours[1].dtype == z.dtype
    counted = measures.counted
    assert bool(ours[0][:, ~counted].isfinite().all())
    for one, other, exact in zip(ours[0], naive[0], truth[0], strict=True):
        for i in counted.nonzero():
            assert_near(one[i], other[i], exact[i], size=1.0)
    for one, other, exact in zip(ours[1], naive[1], truth[1], strict=True):
        assert_near(one, other, exact)


def losses(z: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The losses of the rows and the gradient of their sum."""
    leaf = z.detach().clone().requires_grad_()
    loss = cross_entropy(leaf, target, reduction="none", **options)
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0]


def total(z: Tensor, target: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """The sum and its gradient: what ``uniform.eager`` finds by itself."""
    leaf = z.detach().clone().requires_grad_()
    loss = cross_entropy(leaf, target, reduction="sum", engine="dense", **options)
    return loss.detach(), torch.autograd.grad(loss, leaf)[0]
