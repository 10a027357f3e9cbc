"""torch's own sample inputs for its linear cross entropy: what it takes gives the same results here.

The deliberate differences are those of test_torch_samples.
"""

from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close
from torch.testing._internal.common_methods_invocations import op_db

from labelsmooth.functional import linear_cross_entropy
from tests.cases import chunks

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
THEIRS = F.linear_cross_entropy
EPS = (0.0, 0.1, 1.0)


class Sample(NamedTuple):
    input: Tensor
    linear_weight: Tensor
    target: Tensor
    options: dict[str, Any]

    def to(self, dtype: torch.dtype) -> "Sample":
        """The same numbers in another type, as new leaves."""

        def leaf(x: Any) -> Any:
            if isinstance(x, Tensor) and x.is_floating_point():
                return x.detach().to(dtype).requires_grad_(x.requires_grad)
            return x

        hidden, weight, target = map(leaf, self[:3])
        return Sample(hidden, weight, target, {k: leaf(v) for k, v in self.options.items()})

    def fixed(self) -> "Sample":
        """A soft target that asks for no gradient, for which no logits are made as a whole."""
        return self._replace(target=self.target.detach()) if self.target.requires_grad else self

    def run(self, loss_function: Any, label_smoothing: float) -> list[Tensor]:
        """The loss, and its gradients by whatever wants one."""
        given = (self.input, self.linear_weight, self.target)
        # How torch's own is chunked does not matter here, and it warns where it cannot be; ours has two rows.
        options = {k: v for k, v in self.options.items() if k != "options"}
        options |= {} if loss_function is THEIRS else {**chunks(2), **self.options}
        loss = loss_function(*given, label_smoothing=label_smoothing, **options)
        leaves = [x for x in (*given, *self.options.values()) if isinstance(x, Tensor) and x.requires_grad]
        return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]


@cache
def samples(dtype: torch.dtype) -> list[Sample]:
    """Of all variants of the operator; of those that differ in their chunks only, the last."""
    ops = [op for op in op_db if op.name == "nn.functional.linear_cross_entropy"]
    assert len(ops) > 1
    found = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for op in ops:
            for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
                weight, target = sample.args
                it = Sample(sample.input, weight, target, sample.kwargs)
                found[name(it)] = it
    return list(found.values())


def name(sample: Sample) -> str:
    words = ["x".join(map(str, x.shape)) or "scalar" for x in sample[:3]]
    words += ["soft" if sample.target.is_floating_point() else "hard"]
    words += [
        k if isinstance(v, Tensor) else f"{k}={v}"
        for k, v in sorted(sample.options.items())
        if k != "options"
    ]
    return "-".join(words)


NAMES = list(map(name, samples(torch.float64)))


@pytest.mark.slow
def test_samples_are_many_and_never_smooth() -> None:
    # Otherwise the smoothing given below would be given twice.
    assert not any("label_smoothing" in s.options for dtype in DTYPES for s in samples(dtype))
    assert any(s.linear_weight.dim() > 2 for s in samples(torch.float64))
    assert any("options" in s.options for s in samples(torch.float64))
    assert any(s.input.dim() == 1 for s in samples(torch.float64))


# Every sample as it is, and smoothed a little and altogether.
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES.__getitem__)
def test_equals_torch(i: int, dtype: torch.dtype) -> None:
    sample = samples(dtype)[i]
    for given in {id(s.target): s for s in (sample, sample.fixed())}.values():
        for eps in EPS:
            ours, theirs = given.run(linear_cross_entropy, eps), given.run(THEIRS, eps)
            for mine, other in zip(ours, theirs, strict=True):
                assert_close(mine, other, equal_nan=True)


# As in test_torch_samples; but what is rounded here are the logits, which neither loss knows better, so that
# torch is lucky more often, and a rounding of the largest number is free.
@pytest.mark.parametrize("dtype", DTYPES[2:], ids=str)
@pytest.mark.parametrize("i", range(len(NAMES)), ids=NAMES.__getitem__)
def test_no_rougher_than_torch(i: int, dtype: torch.dtype) -> None:
    sample = samples(dtype)[i].fixed()
    for eps in EPS:
        ours = sample.run(linear_cross_entropy, eps)
        assert ours[0].dtype == torch.float32
        assert all(grad.dtype == dtype for grad in ours[1:])
        theirs = sample.run(THEIRS, eps)
        exact = sample.to(torch.float64).run(THEIRS, eps)
        for mine, other, truth in zip(ours, theirs, exact, strict=True):
            assert torch.equal(mine.isnan(), truth.isnan())
            if mine.isnan().any() or not mine.numel():
                continue
            free = torch.finfo(dtype).eps * truth.abs().max()
            assert (mine - truth).abs().max() <= 2 * (other - truth).abs().max() + free
