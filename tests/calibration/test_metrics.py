"""ECE, its bins and its noise floor, against plain loops and against a model whose truth is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from labelsmooth.calibration import accuracy, expected_calibration_error, noise_floor, reliability
from labelsmooth.calibration._metrics import bin_of, confidence, correct

examples = settings(max_examples=50, deadline=None, derandomize=True)
nan = math.nan


def logits_of(probabilities: list[list[float]]) -> Tensor:
    """Logits whose softmax is ``probabilities``; a lead of 800 makes a probability of 1."""
    return torch.tensor(probabilities, dtype=torch.float64).log().clamp_min(-800)


def softmax(row: list[float]) -> list[float]:
    top = max(row)
    powers = [math.exp(z - top) for z in row]
    return [power / math.fsum(powers) for power in powers]


def group(logits: Tensor, labels: Tensor, num_bins: int) -> list[list[tuple[float, float]]]:
    """Each bin's (confidence, right or wrong), one row at a time, by the definition of a bin."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(num_bins)]
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        sure, right = max(softmax(row)), float(row.index(max(row)) == label)
        (home,) = (b for b in range(num_bins) if b / num_bins < sure <= (b + 1) / num_bins)
        bins[home].append((sure, right))
    return bins


def ece_of(bins: list[list[tuple[float, float]]]) -> float:
    gaps = [abs(math.fsum(sure - right for sure, right in rows)) for rows in bins]
    return math.fsum(gaps) / sum(map(len, bins))


def mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else nan


# Random batches, from flat to saturated rows; then what has gone wrong elsewhere.
# Edges are in (low, high], and the last bin holds 1.0 (torchmetrics puts it behind the last one).
EDGES: dict[str, tuple[Tensor, list[int], int]] = {
    "confidence 1": (logits_of([[0.05, 0.95], [0.0, 1.0]]), [1, 0], 15),
    "confidence 1, one bin": (logits_of([[0.0, 1.0]]), [0], 1),
    "on the edge 1/2": (logits_of([[0.5, 0.5], [0.5, 0.5], [0.6, 0.4]]), [0, 1, 1], 2),
    "on the edge 3/4": (logits_of([[0.75, 0.25], [0.7, 0.3], [0.8, 0.2]]), [0, 0, 1], 4),
    "one row": (torch.tensor([[0.3, -1.0, 2.0]]), [2], 15),
    "one class": (torch.tensor([[0.3], [7.0]]), [0, 0], 15),
    "ties": (torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [2.0, 2.0, 2.0]]), [0, 2, 1], 10),
    "a masked class": (torch.tensor([[1.0, 0.0, -math.inf]]), [0], 15),
}


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 300.0])
@pytest.mark.parametrize(("N", "K", "num_bins"), [(200, 2, 15), (57, 10, 15), (64, 5, 1), (40, 3, 100)])
def test_bins_equal_those_of_a_loop_over_rows(scale: float, N: int, K: int, num_bins: int):
    generator = torch.Generator().manual_seed(N)
    logits = scale * torch.randn(N, K, generator=generator)
    labels = torch.randint(K, (N,), generator=generator)
    check_bins(logits, labels, num_bins)


@pytest.mark.parametrize("case", EDGES)
def test_bins_at_the_edges(case: str):
    logits, labels, num_bins = EDGES[case]
    check_bins(logits, torch.tensor(labels), num_bins)


def check_bins(logits: Tensor, labels: Tensor, num_bins: int):
    expected = group(logits, labels, num_bins)
    r = reliability(logits, labels, num_bins)
    assert r.count.tolist() == [len(rows) for rows in expected]
    assert int(r.count.sum()) == len(labels)
    for values, field in zip((r.confidence, r.accuracy), (0, 1), strict=True):
        means = torch.tensor([mean([row[field] for row in rows]) for rows in expected], dtype=torch.float64)
        assert_close(values, means, equal_nan=True)  # NaN in the empty bins, and only there
    assert r.ece == pytest.approx(ece_of(expected), abs=1e-12)
    assert expected_calibration_error(logits, labels, num_bins) == r.ece
    assert accuracy(logits, labels) == pytest.approx(mean([right for rows in expected for _, right in rows]))


def test_ece_by_hand():
    # The case of torchmetrics' issue 3510: both in the last bin, mean confidence 0.975, one of two right.
    assert expected_calibration_error(*rows_of("confidence 1")) == pytest.approx(0.475)


def rows_of(case: str) -> tuple[Tensor, Tensor]:
    logits, labels, _ = EDGES[case]
    return logits, torch.tensor(labels)


@pytest.mark.parametrize("num_bins", [10, 15, 25, 49])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(num_bins: int):
    # 7 / 25 * 25 is above 7 in float64, so the edge must be compared with, not multiplied out.
    edges = torch.arange(1, num_bins + 1, dtype=torch.float64) / num_bins
    assert bin_of(edges, num_bins).tolist() == list(range(num_bins))
    above = edges.nextafter(torch.tensor(2.0, dtype=torch.float64))[:-1]
    assert bin_of(above, num_bins).tolist() == list(range(1, num_bins))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    N, K = draw(st.integers(1, 12)), draw(st.integers(2, 4))
    # Quarters, so that ties and shifts are exact.
    values = draw(st.lists(st.integers(-80, 80), min_size=N * K, max_size=N * K))
    labels = draw(st.lists(st.integers(0, K - 1), min_size=N, max_size=N))
    return torch.tensor(values).reshape(N, K) / 4.0, torch.tensor(labels)


@pytest.mark.slow
@examples
@given(batches(), st.randoms(use_true_random=False), st.integers(1, 20))
def test_the_order_of_rows_does_not_matter(batch: tuple[Tensor, Tensor], random, num_bins: int):
    logits, labels = batch
    order = torch.tensor(random.sample(range(len(labels)), len(labels)))
    shuffled, r = reliability(logits[order], labels[order], num_bins), reliability(logits, labels, num_bins)
    assert shuffled.count.tolist() == r.count.tolist()
    assert shuffled.ece == pytest.approx(r.ece, abs=1e-12)


@examples
@given(batches(), st.integers(-40, 40))
def test_a_shift_of_all_logits_does_not_matter(batch: tuple[Tensor, Tensor], shift: int):
    logits, labels = batch
    assert confidence(logits + shift).tolist() == confidence(logits).tolist()
    assert correct(logits + shift, labels).tolist() == correct(logits, labels).tolist()


@examples
@given(batches())
def test_ece_lies_between_the_mean_gap_and_one(batch: tuple[Tensor, Tensor]):
    logits, labels = batch
    gap = abs(float(confidence(logits).mean()) - accuracy(logits, labels))
    assert gap - 1e-12 <= expected_calibration_error(logits, labels) <= 1


def test_ece_of_a_calibrated_model_is_its_noise_floor():
    # Labels from the model's own probabilities: what is left is chance, and 1 / sqrt(N) small.
    N, K = 20_000, 6
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, K, generator=generator)
    drawn = [torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0] for _ in range(20)]
    draws = [expected_calibration_error(logits, labels) for labels in drawn]
    floor = noise_floor(logits, draws=200)
    assert floor < 0.01
    # One draw's standard deviation is about a fifth of the floor; 20 draws' mean is surer.
    assert mean(draws) == pytest.approx(floor, rel=0.15)
    assert expected_calibration_error(2 * logits, drawn[0]) > 10 * floor


# The last has more rows in a bin than are drawn one by one.
@pytest.mark.parametrize(("N", "num_bins"), [(50, 15), (300, 5), (5000, 3)])
def test_noise_floor_equals_a_simulation(N: int, num_bins: int):
    logits = torch.randn(N, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sure = np.exp(logits.numpy()).max(1) / np.exp(logits.numpy()).sum(1)
    rng = np.random.default_rng(0)
    home = np.digitize(sure, np.linspace(0, 1, num_bins + 1), right=True)
    eces = []
    for _ in range(2000):
        gaps = sure - (rng.random(N) < sure)
        eces.append(sum(abs(gaps[home == b].sum()) for b in np.unique(home)) / N)
    # Two means of 2000 draws differ by less than 5 of their standard errors.
    error = float(np.std(eces)) / math.sqrt(2000)
    assert abs(noise_floor(logits, num_bins, draws=2000) - np.mean(eces)) < 5 * math.sqrt(2) * error


def test_noise_floor_leaves_the_global_generator_alone_and_repeats():
    logits, before = torch.zeros(30, 2), torch.get_rng_state()
    assert noise_floor(logits, seed=1) == noise_floor(logits, seed=1) != noise_floor(logits, seed=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_certain_model_has_no_noise_floor():
    assert noise_floor(logits_of([[1.0, 0.0], [0.0, 1.0]])) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_short_types_are_computed_in_float64(dtype: torch.dtype):
    logits = torch.randn(100, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    labels = torch.arange(100) % 4
    assert expected_calibration_error(logits, labels) == expected_calibration_error(logits.double(), labels)
    assert noise_floor(logits, draws=10) == noise_floor(logits.double(), draws=10)


FLAT, LABELS = torch.zeros(4, 3), torch.tensor([0, 1, 2, 0])
BAD_ROWS: dict[str, tuple[Tensor, Tensor, str]] = {
    "not (N, K)": (torch.zeros(4), LABELS, r"logits must be .*\(N, K\), got torch.float32 \(4,\)"),
    "integer logits": (FLAT.long(), LABELS, r"logits must be floating point .*, got torch.int64 \(4, 3\)"),
    "no row": (FLAT[:0], LABELS[:0], r"logits must have at least one row .*\(0, 3\)"),
    "no class": (FLAT[:, :0], LABELS, r"logits must have at least one .*class, .*\(4, 0\)"),
    "labels too few": (FLAT, LABELS[:3], r"labels must be integers of shape \(4,\), got torch.int64 \(3,\)"),
    # A column would be compared with every row, and a number come out.
    "labels in a column": (FLAT, LABELS[:, None], r"labels must be .* shape \(4,\), got .* \(4, 1\)"),
    "floating labels": (FLAT, LABELS.float(), r"labels must be integers .*, got torch.float32 \(4,\)"),
    "boolean labels": (FLAT, LABELS.bool(), r"labels must be integers .*, got torch.bool \(4,\)"),
    "label too large": (FLAT, LABELS + 1, r"labels must lie in \[0, 3\), got 1 to 3"),
    "label negative": (FLAT, LABELS - 1, r"labels must lie in \[0, 3\), got -1 to 1"),
}


@pytest.mark.parametrize("metric", [reliability, expected_calibration_error, accuracy])
@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_named(metric: Callable[[Tensor, Tensor], object], case: str):
    logits, labels, message = BAD_ROWS[case]
    with pytest.raises(ValueError, match=message):
        metric(logits, labels)


@pytest.mark.parametrize("case", ["not (N, K)", "integer logits", "no row", "no class"])
def test_bad_logits_are_named_by_the_noise_floor(case: str):
    logits, _, message = BAD_ROWS[case]
    with pytest.raises(ValueError, match=message):
        noise_floor(logits)


def test_bad_numbers_are_named():
    with pytest.raises(ValueError, match="num_bins must be at least 1, got 0"):
        reliability(FLAT, LABELS, 0)
    with pytest.raises(ValueError, match="num_bins must be at least 1, got -3"):
        noise_floor(FLAT, -3)
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        noise_floor(FLAT, draws=0)
