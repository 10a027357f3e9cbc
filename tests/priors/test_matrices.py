"""Priors from how the classes relate: against their definitions, written as loops."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import priors

G = torch.Generator().manual_seed(0)
TREE: priors.Tree = {"animal": ["cat", "dog"], "vehicle": {"road": ["car", "bus"], "air": ["plane"]}}
# cat, dog, car, bus, plane
HEIGHTS = torch.tensor(
    [[0.0, 1, 3, 3, 3], [1, 0, 3, 3, 3], [3, 3, 0, 1, 2], [3, 3, 1, 0, 2], [3, 3, 2, 2, 0]],
    dtype=torch.float64,
)


def fall_off(distances: Tensor, beta: float) -> Tensor:
    largest = float(distances.max())
    weights = [[math.exp(-beta * d / largest) for d in row] for row in distances.tolist()]
    return torch.tensor([[w / sum(row) for w in row] for row in weights])


def heights(tree: priors.Tree, classes: list[str] | None = None) -> Tensor:
    """What the distances must have been, up to their unit, in units of the largest."""
    logs = priors.hierarchy(tree, beta=1.0, classes=classes).probabilities.log()
    return logs.diagonal().unsqueeze(-1) - logs


@pytest.mark.parametrize("beta", [0, 1.0, 30.0])
def test_hierarchy_of_a_tree(beta: float):
    assert_close(priors.hierarchy(TREE, beta).probabilities, fall_off(HEIGHTS, beta))


@pytest.mark.parametrize("beta", [0, 1.0, 30.0])
def test_hierarchy_of_distances(beta: float):
    assert_close(priors.hierarchy(7 * HEIGHTS, beta).probabilities, fall_off(HEIGHTS, beta))


def test_hierarchy_in_another_order():
    order = [4, 0, 3, 1, 2]
    classes = [["cat", "dog", "car", "bus", "plane"][i] for i in order]
    assert_close(heights(TREE, classes), HEIGHTS[order][:, order] / 3)


# Sequences of both kinds, groups of one name, a lone leaf beside a group, and chains of groups, whose height
# counts although nothing branches.
TREES: list[tuple[priors.Tree, list[list[float]]]] = [
    (["a", "b", "c"], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]),
    ((("a", "b"), "c"), [[0, 1, 2], [1, 0, 2], [2, 2, 0]]),
    ({"x": "a", "y": ["b", "c"]}, [[0, 2, 2], [2, 0, 1], [2, 1, 0]]),
    ([{"x": {"y": ["a", "b"]}}, "c"], [[0, 1, 4], [1, 0, 4], [4, 4, 0]]),
    ([["a", "b"], [["c"]]], [[0, 1, 3], [1, 0, 3], [3, 3, 0]]),
]


@pytest.mark.parametrize(("tree", "expected"), TREES)
def test_distances_of_trees(tree: priors.Tree, expected: list[list[float]]):
    distances = torch.tensor(expected, dtype=torch.float64)
    assert_close(heights(tree), distances / distances.max())


@pytest.mark.parametrize("temperature", [0.1, 1, 20.0])
def test_similarity(temperature: float):
    matrix = torch.randn(4, 4, generator=G, dtype=torch.float64)
    weights = [[math.exp(s / temperature) for s in row] for row in matrix.tolist()]
    expected = torch.tensor([[w / sum(row) for w in row] for row in weights])
    assert_close(priors.similarity(matrix, temperature).probabilities, expected)


@pytest.mark.parametrize("temperature", [0.1, 1])
@pytest.mark.parametrize("scale", [1.0, 1e200, 1e-300])  # the squares of the last two are inf and 0
def test_embedding(temperature: float, scale: float):
    e = torch.randn(4, 3, generator=G, dtype=torch.float64)
    norms = [math.sqrt(sum(x * x for x in row)) for row in e.tolist()]
    expected = torch.zeros(4, 4)
    for y in range(4):
        cosines = [float(e[y] @ e[k]) / norms[y] / norms[k] for k in range(4)]
        weights = [math.exp(c / temperature) for c in cosines]
        expected[y] = torch.tensor([w / sum(weights) for w in weights])
    assert_close(priors.embedding(e * scale, temperature).probabilities, expected)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64])
@pytest.mark.parametrize("pseudo_count", [0, 0.5])
def test_confusion(dtype: torch.dtype, pseudo_count: float):
    counts = torch.tensor([[5, 1, 0], [2, 2, 4], [0, 0, 1]], dtype=dtype)
    expected = torch.zeros(3, 3)
    for y in range(3):
        for k in range(3):
            row = counts[y].tolist()
            expected[y, k] = (row[k] + pseudo_count) / (sum(row) + 3 * pseudo_count)
    assert_close(priors.confusion(counts, pseudo_count).probabilities, expected)


def test_confusion_of_a_class_without_samples():
    counts = torch.tensor([[0, 0], [1, 3]])
    assert_close(priors.confusion(counts, 2.0).probabilities[0], torch.tensor([0.5, 0.5]))


def test_no_gradient_reaches_what_a_prior_was_made_of():
    e = torch.randn(3, 2, generator=G, dtype=torch.float64, requires_grad=True)
    assert not priors.embedding(e).probabilities.requires_grad
    assert not priors.similarity(e @ e.T).probabilities.requires_grad
