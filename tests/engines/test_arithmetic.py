"""exp and the short types, number by number.

The gradient is ``of_exp * exp(z - z_max) + of_prior * prior``: with statistics of our own choice, each half
of it shows one function as it is.
"""

import pytest
import torch
from torch import Tensor

from tests.cases import kernel
from tests.engines.private import ABSENT, Measures, compute_dtype, dense

pytestmark = kernel

SHORT = [torch.bfloat16, torch.float16]
# of lse 0, z_max 0 and a prior's mass of 1
STATISTICS = [[0.0], [0.0], [0.0], [0.0], [0.0], [0.0], [1.0], [1.0], [0.0], [0.0]]


def gradient(z: Tensor, by_lse: float, by_prior: float, prior: Tensor) -> Tensor:
    """``by_lse * exp(z) + by_prior * prior``."""
    real = compute_dtype(z)
    measures = Measures(torch.tensor([ABSENT]), torch.ones(1, dtype=torch.bool), prior.to(real))
    grad = torch.tensor([[by_lse], [0.0], [by_prior], [0.0], [0.0]], dtype=real)
    return dense.backward(grad, z[None], measures, torch.tensor(STATISTICS, dtype=real))[0]


def exp(z: Tensor) -> Tensor:
    return gradient(z, 1.0, 0.0, torch.zeros_like(z))


@pytest.mark.parametrize(
    ("dtype", "lowest"), [(torch.float32, -87.3365), (torch.float64, -708.396)], ids=["float32", "float64"]
)
def test_exp_is_within_2_ulp(dtype: torch.dtype, lowest: float) -> None:
    few = torch.linspace(lowest, 0, 200_000, dtype=torch.float64)
    near_0 = -torch.logspace(-20, 0, 50_000, dtype=torch.float64)
    # Where the exponent changes, and the sign of the rest with it.
    halves = (
        torch.arange(0, int(lowest / 0.6931), -1, dtype=torch.float64) * 0.5 * torch.log(torch.tensor(2.0))
    )
    x = torch.cat([few, near_0, halves[halves > lowest]]).to(dtype)
    found = exp(x)
    truth = x.double().exp()  # its own error is half an ulp of float64
    ulp = torch.finfo(dtype).eps * truth.log2().floor().exp2()
    assert ((found.double() - truth).abs() / ulp).max() <= (1.2 if dtype == torch.float32 else 2)
    assert exp(torch.zeros(7, dtype=dtype)).equal(torch.ones(7, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_exp_of_what_has_no_normal_exp(dtype: torch.dtype) -> None:
    smallest = torch.finfo(dtype).smallest_normal
    x = torch.tensor([-88.0, -110.0, -700.0, -709.0, -750.0, -1e30, -torch.inf], dtype=dtype)
    found = exp(x)
    assert bool(((found - x.exp()).abs() <= smallest).all())
    assert found[-1] == 0
    assert exp(torch.tensor([torch.nan], dtype=dtype)).isnan()


def patterns(dtype: torch.dtype) -> Tensor:
    """Every number of a short type, NaN not among them."""
    numbers = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    return numbers[~numbers.isnan()]


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_every_short_logit_is_read_exactly(dtype: torch.dtype) -> None:
    numbers = patterns(dtype)
    count = torch.ones(len(numbers), dtype=torch.bool)
    # One class a row: its logit is the largest, to be widened alone or along with others.
    for z in (numbers[:, None], numbers[:, None].expand(-1, 17).contiguous()):
        z_max = dense.forward(z, Measures(torch.zeros(len(z), dtype=torch.long), count))[8]
        assert z_max.equal(numbers.float())


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_gradients_are_rounded_as_torch_rounds(dtype: torch.dtype) -> None:
    """To nearest, ties to even: every number, all ties between two of them, and what is next to a tie."""
    numbers = patterns(dtype).float()
    finite = numbers[numbers.isfinite()].sort().values
    ties = finite[:-1] + (finite[1:] - finite[:-1]) / 2
    largest = torch.tensor(torch.finfo(dtype).max)
    step = torch.finfo(dtype).eps * 2 ** largest.log2().floor()
    over = torch.stack([largest + step / 2, largest + step / 2 * 0.999, torch.tensor(3e38)])
    tiny = torch.tensor([1e-45, 1e-38, 1e-30, 1e-8, 2.98e-8, 2.99e-8, 6e-8, 0.0])
    exact = torch.cat([finite, ties, over, -over, tiny, -tiny, torch.tensor([torch.inf, -torch.inf])])
    around = torch.cat(
        [exact, exact.nextafter(torch.tensor(torch.inf)), exact.nextafter(-torch.tensor(torch.inf))]
    )
    wanted = around[around != 0]  # 0 * exp has no sign to keep
    # Nothing of it is lost on the way: the logits' half of the sum is 0.
    found = gradient(torch.zeros(len(wanted), dtype=dtype), 0.0, 1.0, wanted)
    assert found.equal(wanted.to(dtype))
    assert gradient(torch.zeros(40, dtype=dtype), 0.0, 1.0, torch.full((40,), torch.nan)).isnan().all()


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_gradient_of_short_logits_is_that_of_float32_rounded(dtype: torch.dtype) -> None:
    z = (4 * torch.randn(5, 3000, generator=torch.Generator().manual_seed(0))).to(dtype)
    measures = Measures(torch.arange(5), torch.ones(5, dtype=torch.bool), None, torch.linspace(0, 2, 3000))
    for size in (1.0, 1e-4, 1e5, 1e38):
        grad = size * torch.tensor([[1.0], [-0.9], [-0.1], [0.0], [0.0]]).expand(5, 5)
        short, wide = (dense.backward(grad, x, measures, dense.forward(x, measures)) for x in (z, z.float()))
        assert short.equal(wide.to(dtype))
