"""The temperature, against a search that knows no slope, and where the data leave it no inner minimum."""

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from labelsmooth.calibration import _temperature as temperature
from labelsmooth.calibration import accuracy, expected_calibration_error, fit_temperature, noise_floor

LOW, HIGH = 0.01, 100.0


def rows(seed: int, N: int, K: int, scale: float, wrong: float) -> tuple[Tensor, Tensor]:
    """Logits that are right but for a share ``wrong``, as an over-confident model's are."""
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(N, K, generator=generator, dtype=torch.float64)
    other = torch.randint(K, (N,), generator=generator)
    return logits, torch.where(torch.rand(N, generator=generator) < wrong, other, logits.argmax(-1))


def drawn(N: int) -> tuple[Tensor, Tensor]:
    """A calibrated model: the labels are drawn from its own probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, 5, generator=generator, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(-1)


def few_rows(seed: int) -> tuple[Tensor, Tensor]:
    """30 rows whose NLL is smallest well inside the bounds: drawn ones can be worse than constant logits."""
    logits, labels = rows(seed, 30, 3, 2.0, 0.5)
    losses = [nll(logits, labels, T) for T in (LOW, LOW * 1.1, HIGH / 1.1, HIGH)]
    assume(losses[0] > losses[1] and losses[2] < losses[3])
    return logits, labels


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    return float(F.cross_entropy(logits.double() / temperature, labels))


# Temperatures from 0.2 to 30: logits too small and too large, sure and unsure labels, two classes and many.
CASES = [
    (0, 50, 2, 1.0, 0.3),
    (1, 200, 10, 0.1, 0.5),
    (2, 200, 10, 8.0, 0.4),
    (3, 1000, 5, 50.0, 0.5),
    (4, 300, 100, 3.0, 0.2),
    (5, 30, 3, 0.02, 0.6),
    (6, 400, 4, 20.0, 0.01),
]


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_minimum_of_a_fine_grid(case: tuple[int, int, int, float, float]):
    logits, labels = rows(*case)
    temperature = fit_temperature(logits, labels)
    grid = torch.logspace(math.log10(LOW), math.log10(HIGH), 1001, dtype=torch.float64).tolist()
    best = min(grid, key=lambda T: nll(logits, labels, T))
    assert nll(logits, labels, temperature) <= nll(logits, labels, best)
    assert temperature == pytest.approx(best, rel=0.01)  # a step of the grid is 0.9 %


@pytest.mark.parametrize("case", CASES)
def test_it_is_where_scipy_finds_it(case: tuple[int, int, int, float, float]):
    optimize = pytest.importorskip("scipy.optimize", reason="it comes with scikit-learn")
    logits, labels = rows(*case)
    found = optimize.minimize_scalar(
        lambda u: nll(logits, labels, math.exp(u)),
        bounds=(math.log(LOW), math.log(HIGH)),
        method="bounded",
        options={"xatol": 1e-10},
    )
    # A search by values alone knows the place of a minimum to the square root of their precision.
    assert fit_temperature(logits, labels) == pytest.approx(math.exp(found.x), rel=1e-6)


@pytest.mark.parametrize("T", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_it_finds_the_factor_of_calibrated_logits(T: float):
    calibrated, labels = drawn(20_000)
    assert fit_temperature(T * calibrated, labels) == pytest.approx(T, rel=0.02)


def test_it_repairs_the_confidence_and_leaves_the_predictions():
    logits, labels = drawn(5000)
    too_sure = 4 * logits
    scaled = too_sure / fit_temperature(too_sure, labels)
    assert torch.equal(scaled.argmax(-1), too_sure.argmax(-1))
    assert accuracy(scaled, labels) == accuracy(too_sure, labels)
    assert expected_calibration_error(too_sure, labels) > 0.2
    # What is left is chance: one draw's ECE is hardly ever half above its mean.
    assert expected_calibration_error(scaled, labels) < 1.5 * noise_floor(scaled, draws=100)


# Where every row is right, ever surer is ever better; a fit in whole steps of Newton creeps there, and one
# that takes a slope of 0 for the minimum stops as soon as float64 has no more of the tail.
@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[3.0, 0.0], [0.0, 1.0]], [0, 1]),
        ([[10.0, 0.0]], [0]),
        ([[1000.0, 0.0]], [0]),
        ([[1e-3, 0.0]], [0]),
        ([[0.0, 0.0, -1000.0]], [0]),  # tied at the top: sure of two
        ([[2.0, 0.0], [0.0, 0.0]], [0, 1]),
    ],
)
def test_separable_rows_end_on_the_lower_bound(logits: list[list[float]], labels: list[int]):
    with pytest.warns(
        UserWarning, match="^T = 0.01 is a bound, since the NLL .* every row is classified correctly; pass"
    ):
        assert fit_temperature(torch.tensor(logits), torch.tensor(labels)) == LOW


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        ([[2.0, 0.0], [2.0, 0.0]], [0, 1]),  # the best at infinite T
        ([[5.0, 0.0], [0.0, 9.0]], [1, 0]),  # wrong throughout
        ([[800.0, 0.0]], [1]),
    ],
)
def test_uninformative_rows_end_on_the_upper_bound(logits: list[list[float]], labels: list[int]):
    with pytest.warns(
        UserWarning,
        match="^T = 100.0 is a bound, since the NLL .* the logits are worse than constant ones; check",
    ):
        assert fit_temperature(torch.tensor(logits), torch.tensor(labels)) == HIGH


@pytest.mark.parametrize("bounds", [(0.5, 0.8), (3.0, 7.0), (1.0, 2.0), (0.1, 0.3), (1e-9, 1e90)])
def test_it_stays_within_the_bounds_it_is_given(bounds: tuple[float, float]):
    low, high = bounds
    right, wrong = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    with pytest.warns(UserWarning, match=f"^T = {low} is a bound"):
        assert fit_temperature(right, torch.tensor([0]), bounds=bounds) == low
    with pytest.warns(UserWarning, match=f"^T = {re.escape(str(high))} is a bound"):
        assert fit_temperature(wrong, torch.tensor([0]), bounds=bounds) == high
    assert fit_temperature(torch.zeros(3, 2), torch.tensor([0, 0, 1]), bounds=bounds) == min(
        max(1, low), high
    )


@pytest.mark.parametrize("beside", [0.9999, 1.0001])
def test_it_is_found_next_to_a_bound(beside: float):
    T = fit_temperature(*rows(*CASES[0]))
    bounds = (0.01, T * beside) if beside > 1 else (T * beside, 100.0)
    assert fit_temperature(*rows(*CASES[0]), bounds=bounds) == pytest.approx(T, rel=1e-11)


def test_by_hand():
    # Three of four are right, so the confidence must be 3/4: 4 / T = log 3.
    logits, labels = torch.tensor([[4.0, 0.0]]).repeat(4, 1), torch.tensor([0, 0, 0, 1])
    assert fit_temperature(logits, labels) == pytest.approx(4 / math.log(3), rel=1e-12)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**20), st.floats(0.05, 20))
def test_it_scales_with_the_logits(seed: int, c: float):
    logits, labels = few_rows(seed)
    T = fit_temperature(logits, labels)
    assume(min(T, c * T) > LOW * 1.1 and max(T, c * T) < HIGH / 1.1)
    assert fit_temperature(c * logits, labels) == pytest.approx(c * T, rel=1e-9)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**20), st.floats(-50, 50))
def test_a_shift_of_each_row_does_not_matter(seed: int, shift: float):
    logits, labels = few_rows(seed)
    shifted = logits + shift * torch.arange(30).unsqueeze(-1)
    assert fit_temperature(shifted, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-8)


def test_a_masked_class_is_as_good_as_none():
    logits, labels = rows(0, 100, 3, 3.0, 0.4)
    masked = torch.cat([logits, torch.full((100, 1), -math.inf)], 1)
    assert fit_temperature(masked, labels) == pytest.approx(fit_temperature(logits, labels), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_are_computed_in_float64(dtype: torch.dtype):
    logits, labels = rows(0, 200, 5, 3.0, 0.4)
    short = logits.to(dtype)
    assert fit_temperature(short, labels) == fit_temperature(short.double(), labels)
    assert fit_temperature(short, labels.int()) == fit_temperature(short, labels)


def test_the_logits_are_not_written_to_and_no_gradient_is_kept():
    logits, labels = rows(0, 20, 3, 3.0, 0.4)
    before = logits.clone()
    assert isinstance(fit_temperature(logits.requires_grad_(), labels), float)
    assert torch.equal(logits, before)


def test_bad_input_is_named():
    logits, labels = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
    with pytest.raises(ValueError, match=r"labels must be integers of shape \(4,\), got torch.int64 \(3,\)"):
        fit_temperature(logits, labels[:3])
    with pytest.raises(ValueError, match="logits must have at least one row"):
        fit_temperature(logits[:0], labels[:0])
    for bounds in (
        (0.0, 1.0),
        (2.0, 1.0),
        (1.0, 1.0),
        (-1.0, 1.0),
        (math.nan, 1.0),
        (1.0, math.inf),
        ("a", "b"),
        (1, 2, 3),
    ):
        with pytest.raises(ValueError, match=r"bounds must be two increasing positive numbers, got \("):
            fit_temperature(logits, labels, bounds=bounds)  # pyright: ignore[reportArgumentType]
    for bounds in (5.0, None, "ab"):
        with pytest.raises(ValueError, match="bounds must be two increasing positive numbers, got "):
            fit_temperature(logits, labels, bounds=bounds)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"bounds must lie in \[1e-90, 1e\+90\], got \(1e-300, 1\)"):
        fit_temperature(logits, labels, bounds=(1e-300, 1))


def test_a_label_without_a_probability_is_named():
    logits = torch.tensor([[1.0, 0.0], [2.0, 1.0], [1.0, -math.inf]])
    labels = torch.tensor([0, 1, 1])
    with pytest.raises(
        ValueError, match=r"labels .* above -inf, or the NLL is infinite .* class 1 in row 2$"
    ):
        fit_temperature(logits, labels)
    # Left out, it does no harm.
    labels[2] = -100
    assert fit_temperature(logits, labels, spread=1) == fit_temperature(logits[:2], labels[:2], spread=1)


def test_a_narrow_prior_holds_it_at_1():
    logits, labels = rows(*CASES[2])
    assert fit_temperature(logits, labels, spread=1e-250) == 1
    spread: Any = np.float32(1e-6)
    assert fit_temperature(logits, labels, spread=spread) == pytest.approx(1, abs=1e-6)


def test_constant_logits_leave_it_alone():
    assert fit_temperature(torch.tensor([[0.0, 0.0], [3.0, 3.0]]), torch.tensor([0, 1])) == 1


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_a_prior_pulls_it_toward_1(spread: float):
    """The least of the summed loss and (log T / spread)^2 / 2 on a grid."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (40,), generator=generator)
    logits = 3 * torch.randn(40, 3, generator=generator) + 2 * torch.eye(3)[labels]
    T = fit_temperature(logits, labels, spread=spread)
    grid = torch.logspace(-2, 2, 40001, dtype=torch.float64)
    nll = torch.zeros_like(grid)
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        nll -= (row / grid.unsqueeze(-1)).log_softmax(-1)[:, label]
    least = (nll + (grid.log() / spread).square() / 2).argmin()
    assert pytest.approx(float(grid[least]), rel=5e-4) == T
    assert abs(math.log(T)) < abs(math.log(fit_temperature(logits, labels)))


def test_a_prior_keeps_it_from_the_bounds():
    logits, labels = 5 * torch.eye(4)[torch.arange(30) % 4], torch.arange(30) % 4
    with pytest.warns(UserWarning, match="T = 0.01 is a bound"):
        assert fit_temperature(logits, labels) == 0.01
    assert 0.2 < fit_temperature(logits, labels, spread=1) < 1
    with pytest.warns(UserWarning, match="T = 100.0 is a bound"):
        assert fit_temperature(-logits, labels) == 100
    assert 1 < fit_temperature(-logits, labels, spread=1) < 100


def test_a_prior_hardly_moves_it_with_many_rows():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5000, 5, generator=generator)
    labels = (logits / 2).softmax(-1).multinomial(1, generator=generator).squeeze(-1)
    assert fit_temperature(logits, labels, spread=1) == pytest.approx(
        fit_temperature(logits, labels), rel=2e-3
    )


@pytest.mark.parametrize("spread", [0.0, -1.0, math.nan])
def test_the_spread_has_to_be_above_0(spread: float):
    with pytest.raises(ValueError, match="spread must be above 0, got"):
        fit_temperature(torch.zeros(1, 2), torch.tensor([0]), spread=spread)


@pytest.mark.parametrize("spread", ["1", True, None, torch.ones(2)])
def test_the_spread_has_to_be_a_number(spread: object):
    with pytest.raises(ValueError, match="spread must be a number, got"):
        fit_temperature(torch.zeros(1, 2), torch.tensor([0]), spread=spread)  # pyright: ignore[reportArgumentType]


def test_many_rows_are_the_few_that_they_repeat():
    """Chunks do not show: neither where they end nor in a class that is masked."""
    logits, labels = rows(*CASES[0])
    logits = torch.cat([logits, torch.full((50, 1), -math.inf)], 1)
    many = fit_temperature(logits.repeat(2001, 1), labels.repeat(2001))
    assert many == pytest.approx(fit_temperature(logits, labels), rel=1e-11)


def test_few_passes_over_many_rows(monkeypatch: pytest.MonkeyPatch):
    """A part of them tells where to look, and the rest is Newton's."""
    logits, labels = rows(0, 200_000, 10, 3.0, 0.4)
    read, moments = [], temperature._moments
    monkeypatch.setattr(
        temperature, "_moments", lambda rows, beta: (read.append(len(rows)), moments(rows, beta))[1]
    )
    fit_temperature(logits, labels)
    assert sum(read) <= 4 * len(logits)


@pytest.mark.parametrize("odd", [0, 1])
def test_a_part_that_misleads_does_no_harm(odd: int):
    """Only the part, or only the rest, has rows that are wrong."""
    logits, labels = rows(0, 100_000, 3, 3.0, 0.0)
    wrong = torch.arange(odd, 100_000, 16)
    labels[wrong] = (labels[wrong] + 1) % 3
    found = fit_temperature(logits, labels)
    order = torch.randperm(100_000, generator=torch.Generator().manual_seed(0))
    assert found == pytest.approx(fit_temperature(logits[order], labels[order]), rel=1e-11)


@pytest.mark.slow
def test_it_makes_no_copy_of_the_logits():
    """The most that lies in memory beside the logits, by what torch's allocator was asked for."""
    logits, labels = rows(0, 400_000, 10, 3.0, 0.4)
    logits = logits.float()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        fit_temperature(logits, labels)
    events: Any = profile.events()
    largest = max(event.self_cpu_memory_usage for event in events)
    assert largest <= logits.nbytes / 4
