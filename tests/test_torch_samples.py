"""torch's own sample inputs for its cross entropy: what it takes gives the same loss and gradients here.

One deliberate difference meets the samples: for float16 and bfloat16 logits the loss is float32. (The others,
masked classes, NaN in rows that do not count, a smoothing that is negative or NaN, and the types of errors,
are in no sample, and are tested as our own behaviour.)
"""

from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db

from labelsmooth.engines import available
from labelsmooth.functional import cross_entropy

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
DENSE = available()["dense"]


def runs(reference: list[torch.dtype], dense: list[torch.dtype]) -> pytest.MarkDecorator:
    """Each engine and type. The reference's code is the same for all types, the kernel's is not."""
    skip = pytest.mark.skipif(not DENSE.present, reason=str(DENSE))
    cases = [pytest.param("reference", dtype, id=f"reference-{dtype}") for dtype in reference]
    cases += [pytest.param("dense", dtype, id=f"dense-{dtype}", marks=skip) for dtype in dense]
    return pytest.mark.parametrize(("engine", "dtype"), cases)


class Sample(NamedTuple):
    input: Tensor
    target: Tensor
    options: dict[str, Any]

    def to(self, dtype: torch.dtype) -> "Sample":
        """The same numbers in another type, as new leaves."""

        def leaf(x: Any) -> Any:
            if isinstance(x, Tensor) and x.is_floating_point():
                return x.detach().to(dtype).requires_grad_(x.requires_grad)
            return x

        return Sample(leaf(self.input), leaf(self.target), {k: leaf(v) for k, v in self.options.items()})

    def by(self, engine: str) -> "Sample":
        """What that engine can differentiate: the kernel does so by the input alone."""
        return self if engine == "reference" else self._replace(target=self.target.detach())

    def run(self, loss_function: Any, label_smoothing: float, **engine: str) -> list[Tensor]:
        """The loss, and its gradients by whatever wants one."""
        options = {"label_smoothing": label_smoothing, **self.options, **engine}
        loss = loss_function(self.input, self.target, **options)
        leaves = [x for x in (self.input, self.target, *self.options.values()) if isinstance(x, Tensor)]
        return [loss.detach(), *torch.autograd.grad(loss.sum(), [x for x in leaves if x.requires_grad])]


@cache
def samples(dtype: torch.dtype) -> list[Sample]:
    (op,) = (op for op in op_db if op.name == "nn.functional.cross_entropy")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [
            Sample(sample.input, sample.args[0], sample.kwargs)
            for sample in op.sample_inputs("cpu", dtype, requires_grad=True)
        ]


def name(i: int) -> str:
    sample = samples(torch.float64)[i]
    words = ["x".join(map(str, sample.input.shape)), "soft" if sample.target.is_floating_point() else "hard"]
    words += [k if isinstance(v, Tensor) else f"{k}={v}" for k, v in sample.options.items()]
    return "-".join(words)


def test_samples_never_smooth() -> None:
    # Otherwise the smoothing given below would be given twice.
    assert not any("label_smoothing" in s.options for dtype in DTYPES for s in samples(dtype))


# Every sample as it is, and smoothed a little and altogether.
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@runs([torch.float64], [torch.float64, torch.float32])
@pytest.mark.parametrize("i", range(len(samples(torch.float64))), ids=name)
def test_equals_torch(i: int, engine: str, dtype: torch.dtype, eps: float) -> None:
    sample = samples(dtype)[i].by(engine)
    found = sample.run(cross_entropy, eps, engine=engine)
    for ours, theirs in zip(found, sample.run(F.cross_entropy, eps), strict=True):
        assert_close(ours, theirs, equal_nan=True)


# In a short type torch's own answer is rough, so the measure is float64 on the same numbers: we may be twice
# as far from it as torch. Torch can hit it by luck, so float32's error in the sum of a few numbers of size 1
# is free, and the rounding of a result to its own type.
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@runs([torch.float16], [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("i", range(len(samples(torch.float64))), ids=name)
def test_no_rougher_than_torch(i: int, engine: str, dtype: torch.dtype, eps: float) -> None:
    sample = samples(dtype)[i].by(engine)
    ours = sample.run(cross_entropy, eps, engine=engine)
    assert ours[0].dtype == torch.float32
    assert all(grad.dtype == dtype for grad in ours[1:])
    theirs = sample.run(F.cross_entropy, eps)
    exact = sample.to(torch.float64).run(F.cross_entropy, eps)
    for mine, other, truth in zip(ours, theirs, exact, strict=True):
        assert torch.equal(mine.isnan(), truth.isnan())
        free = 1e-6 + torch.finfo(mine.dtype).eps * truth.abs()
        excess = (mine - truth).abs() - 2 * (other - truth).abs().max() - free
        assert bool(((excess <= 0) | truth.isnan()).all()), f"{mine} against {truth}, torch {other}"
