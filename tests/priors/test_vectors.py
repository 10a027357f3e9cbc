"""Priors for all samples: against their definitions, written as loops."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import priors


@pytest.mark.parametrize("num_classes", [1, 2, 7])
def test_uniform(num_classes: int):
    assert_close(priors.uniform(num_classes).probabilities, torch.tensor([1 / num_classes] * num_classes))


COUNTS = torch.tensor([4.0, 0.0, 9.0, 2.5], dtype=torch.float64)


# Below 1, at it and above.
@pytest.mark.parametrize("temperature", [0.5, 1, 2.0, 0.01])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.int64, torch.uint8])
def test_unigram(temperature: float, dtype: torch.dtype):
    counts = COUNTS.to(dtype)
    powers = [c ** (1 / temperature) for c in counts.tolist()]
    expected = torch.tensor([p / sum(powers) for p in powers])
    assert_close(priors.unigram(counts, temperature).probabilities, expected)


def test_unigram_of_huge_powers():
    pi = priors.unigram(torch.tensor([5e5, 1e6, 0.0]), temperature=1e-3).probabilities
    assert_close(pi, torch.tensor([2.0**-1000, 1.0, 0.0]))


VALID = torch.tensor([True, False, True, True])
MATRIX = torch.tensor(
    [[0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25] * 4], dtype=torch.float64
)


def test_masked_vector():
    pi = torch.tensor([0.1, 0.2, 0.3, 0.4])
    expected = torch.tensor([0.1 / 0.8, 0.0, 0.3 / 0.8, 0.4 / 0.8])
    assert_close(priors.masked(VALID, pi).probabilities, expected)
    assert_close(priors.masked(VALID, priors.Prior(pi, "mine")).probabilities, expected)


def test_masked_uniform():
    assert_close(priors.masked(VALID).probabilities, torch.tensor([1 / 3, 0, 1 / 3, 1 / 3]))


def test_masked_matrix():
    """Class 1 is not valid, and its own row has nothing else: it is uniform over the others."""
    expected = torch.zeros(4, 4)
    for y in range(4):
        kept = [float(MATRIX[y, k]) if VALID[k] else 0.0 for k in range(4)]
        expected[y] = torch.tensor(kept) / sum(kept) if sum(kept) else VALID / 3
    assert expected[1, 0] == 1 / 3
    assert_close(priors.masked(VALID, MATRIX).probabilities, expected)


def test_masked_matrix_keeps_what_an_invalid_class_has_left():
    valid = torch.tensor([True, True, False, True])
    assert_close(priors.masked(valid, MATRIX).probabilities[2], torch.tensor([0.5, 0.5, 0.0, 0.0]))


@pytest.mark.parametrize("prior", [MATRIX, MATRIX[0]], ids=["matrix", "vector"])
def test_masked_leaves_what_it_is_given(prior: Tensor):
    given = priors.Prior(prior.clone(), "mine")
    priors.masked(VALID, given)
    assert_close(given.probabilities, prior, rtol=0, atol=0)
