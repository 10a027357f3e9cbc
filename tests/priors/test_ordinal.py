"""Priors for ordered classes: against their definitions, scipy's distributions and the published tables."""

import itertools
import math
from collections.abc import Callable

import pytest
import scipy.stats
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import priors

SIZES = [2, 3, 5, 12]


def rows(num_classes: int, weight: Callable[[int, int], float]) -> Tensor:
    """Row y has weight(k, y) at k, divided by the row's sum."""
    table = [[weight(k, y) for k in range(num_classes)] for y in range(num_classes)]
    return torch.tensor([[w / sum(row) for w in row] for row in table])


PHI: dict[str, Callable[[int, int], float]] = {
    "absolute": lambda k, y: abs(k - y),
    "squared": lambda k, y: (k - y) ** 2,
    "log": lambda k, y: (math.log(k + 1) - math.log(y + 1)) ** 2,
}


@pytest.mark.parametrize("alpha", [0, 0.3, 2.0])
@pytest.mark.parametrize("distance", ["absolute", "squared", "log"])
@pytest.mark.parametrize("num_classes", SIZES)
def test_sord(num_classes: int, distance: priors.Distance, alpha: float):
    expected = rows(num_classes, lambda k, y: math.exp(-alpha * PHI[distance](k, y)))
    assert_close(priors.sord(num_classes, distance, alpha).probabilities, expected)


@pytest.mark.parametrize(("power", "tau"), [(1, 1), (2.0, 0.5), (1.5, 3.0)])
@pytest.mark.parametrize("num_classes", SIZES)
def test_exponential(num_classes: int, power: float, tau: float):
    expected = rows(num_classes, lambda k, y: math.exp(-(abs(k - y) ** power) / tau))
    assert_close(priors.exponential(num_classes, power, tau).probabilities, expected)


def test_exponential_is_sord():
    assert_close(priors.exponential(6, 2, 4).probabilities, priors.sord(6, "squared", 0.25).probabilities)


@pytest.mark.parametrize("num_classes", SIZES)
def test_binomial(num_classes: int):
    expected = [
        [
            scipy.stats.binom.pmf(k, num_classes - 1, 0.1 + 0.8 * y / (num_classes - 1))
            for k in range(num_classes)
        ]
        for y in range(num_classes)
    ]
    assert_close(priors.binomial(num_classes).probabilities, torch.tensor(expected))


# As printed by dlordinal, the library of the paper's authors, for alpha2 = 0.01.
PUBLISHED_ENDS = {4: (0.01154505, 0.00396503), 5: (0.01154505, 0.00505524), 7: (0.01154505, 0.00654182)}


@pytest.mark.parametrize("num_classes", PUBLISHED_ENDS)
def test_triangular_is_as_published(num_classes: int):
    first, last = PUBLISHED_ENDS[num_classes]
    expected = torch.zeros(num_classes, num_classes)
    for y in range(num_classes):
        for k in {y - 1, y + 1} & set(range(num_classes)):
            expected[y, k] = {0: first, num_classes - 1: last}.get(y, 0.01)
        expected[y, y] = 1 - expected[y].sum()
    # The table has 8 digits, and is of the interval from 1e-9 to 1 - 1e-9.
    assert_close(priors.triangular(num_classes).probabilities, expected, rtol=0, atol=6e-9)


@pytest.mark.parametrize("alpha2", [0.003, 0.1, 2 / 9])
@pytest.mark.parametrize("num_classes", SIZES)
def test_triangular_is_the_area_under_triangles(num_classes: int, alpha2: float):
    """Each triangle by its corners, as the paper gives them, and each area by its distribution function."""
    K = num_classes

    def corners(j: int) -> tuple[float, float, float]:
        """The left one, the peak and the right one of class j, counted from 1."""
        if j == 1:
            c = (1 - 2 * alpha2) * (2 * alpha2 - math.sqrt(2 * alpha2))
            alpha1 = ((1 - math.sqrt(1 - 4 * c)) / 2) ** 2
            return 0.0, 0.0, 1 / ((1 - math.sqrt(alpha1)) * K)
        if j == K:
            c = ((K - 1) / K) ** 2 * (1 - 2 * alpha2) * math.sqrt(2 * alpha2) * (math.sqrt(2 * alpha2) - 1)
            alpha3 = ((1 - math.sqrt(1 - 4 * c)) / 2) ** 2
            return 1 + 1 / (K * (math.sqrt(alpha3) - 1)), 1.0, 1.0
        left = (2 * j - 2 - 4 * j * alpha2 + 2 * alpha2 - math.sqrt(2 * alpha2)) / (2 * K * (1 - 2 * alpha2))
        right = (2 * j - 4 * j * alpha2 + 2 * alpha2 + math.sqrt(2 * alpha2)) / (2 * K * (1 - 2 * alpha2))
        return left, (left + right) / 2, right

    expected = torch.zeros(K, K)
    for y in range(K):
        left, peak, right = corners(y + 1)
        triangle = scipy.stats.triang((peak - left) / (right - left), left, right - left)
        for k in range(K):
            expected[y, k] = triangle.cdf((k + 1) / K) - triangle.cdf(k / K)
    assert_close(priors.triangular(num_classes, alpha2).probabilities, expected)


def test_triangular_without_tails_is_one_hot():
    assert_close(priors.triangular(4, 0).probabilities, torch.eye(4))


def areas(a: float, b: float, num_classes: int) -> list[float]:
    edges = scipy.stats.beta.cdf([k / num_classes for k in range(num_classes + 1)], a, b)
    return [high - low for low, high in itertools.pairwise(edges)]


# 100 has parameters of up to 5000, where the continued fraction is longest.
@pytest.mark.parametrize("num_classes", [*SIZES, 100])
def test_beta_has_the_moments_of_its_interval(num_classes: int):
    K, expected = num_classes, []
    for y in range(K):
        mean, variance = (y + 0.5) / K, (0.5 / K) ** 2
        size = mean * (1 - mean) / variance - 1
        a, b = mean * size, (1 - mean) * size
        assert_close(scipy.stats.beta.stats(a, b), (mean, variance), check_dtype=False)
        expected.append(areas(a, b, K))
    # At a = b = 5000, the log-gammas lose five digits.
    assert_close(priors.beta(K).probabilities, torch.tensor(expected), rtol=1e-7, atol=1e-11)


# Singular at both ends and one, flat, integers, narrow, and what only a mirrored fraction can reach.
PARAMETERS = [(0.2, 0.3), (0.5, 7.0), (1.0, 1.0), (4.0, 1.0), (12.0, 12.0), (300.0, 2.0), (1e-3, 900.0)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_beta_of_given_parameters(dtype: torch.dtype):
    given = torch.tensor(PARAMETERS, dtype=dtype)
    expected = torch.tensor([areas(a, b, len(PARAMETERS)) for a, b in given.tolist()])
    assert_close(priors.beta(len(PARAMETERS), given).probabilities, expected, rtol=1e-9, atol=1e-12)


def test_beta_is_as_published():
    """The table of Vargas et al. for 5 classes, and what dlordinal prints for it."""
    table = torch.tensor([[1, 8], [6, 14], [12, 12], [14, 6], [8, 1]])
    pi = priors.beta(5, table).probabilities
    second = [0.16306230596, 0.67401521198, 0.15985465218, 0.00306715018, 0.00000067969]
    assert_close(pi[1], torch.tensor(second), rtol=0, atol=5e-9)  # theirs starts at 1e-9, not 0
    assert_close(pi, pi.flip(0, 1))


FAMILY: list[Callable[[int], priors.Prior]] = [
    priors.sord,
    priors.exponential,
    priors.triangular,
    priors.binomial,
    priors.beta,
]


@pytest.mark.parametrize("make", FAMILY)
def test_rows_are_unimodal(make: Callable[[int], priors.Prior]):
    for row in make(6).probabilities:
        steps = row.diff()
        rises = [bool(step > 0) for step in steps if step]
        assert rises == sorted(rises, reverse=True)
