"""Priors of each sample's own: against their definitions, and against a convolution of one-hot maps."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from labelsmooth import priors
from labelsmooth.functional import cross_entropy

G = torch.Generator().manual_seed(0)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=G, dtype=torch.float64)


def dense(prior: priors.PerSample, num_classes: int) -> Tensor:
    """Over all classes, which come last."""
    assert prior.classes is not None
    rows = torch.zeros(*prior.classes.shape[:-1], num_classes)
    return rows.scatter_add(-1, prior.classes, prior.probabilities)


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 5, 3), (2, 5, 3, 4)])
def test_whole(shape: tuple[int, ...]):
    p = randn(*shape).softmax(min(1, len(shape) - 1)).requires_grad_()
    prior = priors.per_sample(p)
    assert prior.classes is None
    assert_close(prior.probabilities, p.detach(), rtol=0, atol=0)


def test_whole_with_the_classes_last():
    priors.per_sample(randn(2, 3, 5).softmax(-1), dim=-1)
    z, y = randn(2, 3, 5), torch.zeros(2, 5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"prior of each sample must .* sum to 1"):
        cross_entropy(z, y, prior=priors.per_sample(z.softmax(-1)))
    cross_entropy(z, y, prior=priors.per_sample(z.softmax(1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_few_classes_are_renormalised(dtype: torch.dtype):
    p = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.125, 0.375]], dtype=dtype)
    classes = torch.tensor([[7, 3, 7], [0, 1, 2]], dtype=torch.int32)
    prior = priors.per_sample(p, classes)
    expected = torch.zeros(2, 8)
    expected[0, 7], expected[0, 3] = 0.75, 0.25
    expected[1, 1], expected[1, 2] = 0.25, 0.75
    assert prior.probabilities.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    given = priors.PerSample(prior.probabilities.double(), prior.classes)
    assert_close(dense(given, 8), expected)


SHAPES = [((5,), None), ((2, 5), None), ((2, 5, 3), None), ((2, 3, 5), -1), ((2, 5, 3, 4), 1)]


@pytest.mark.parametrize(("shape", "class_dim"), SHAPES)
@pytest.mark.parametrize("k", [None, 1, 3, 5])
@pytest.mark.parametrize("temperature", [1, 4.0])
def test_teacher(shape: tuple[int, ...], class_dim: int | None, k: int | None, temperature: float):
    logits = randn(*shape).requires_grad_()
    dim = min(1, len(shape) - 1) if class_dim is None else class_dim
    prior = priors.teacher(logits, temperature, k, dim=class_dim)
    assert not prior.probabilities.requires_grad
    rows = logits.detach().movedim(dim, -1)
    expected = torch.zeros_like(rows)
    for i in itertools.product(*map(range, rows.shape[:-1])):
        kept = sorted(range(5), key=lambda c, i=i: -rows[i][c])[:k]
        weights = {c: math.exp(rows[i][c] / temperature) for c in kept}
        for c in kept:
            expected[i][c] = weights[c] / sum(weights.values())
    if k is None:
        assert_close(prior.probabilities.movedim(dim, -1), expected)
    else:
        assert prior.probabilities.shape == (*rows.shape[:-1], k)
        assert_close(dense(prior, 5), expected)


def test_masked_classes_of_a_teacher():
    logits = torch.tensor([[0.0, -torch.inf, math.log(3)]])
    assert_close(priors.teacher(logits).probabilities, torch.tensor([[0.25, 0.0, 0.75]]))
    assert_close(dense(priors.teacher(logits, k=3), 3), torch.tensor([[0.25, 0.0, 0.75]]))


def test_few_classes_of_a_teacher_never_become_rows():
    """Beside the logits, 8 MB, nothing is made that is a tenth of their size."""
    logits = torch.zeros(4, 500_000, dtype=torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        priors.teacher(logits, k=8)
        priors.per_sample(torch.ones(4, 8) / 8, torch.full((4, 8), 499_999))
    results: Any = profiled.profiler
    sizes = [event.nbytes() for event in results.kineto_results.events() if event.name() == "[memory]"]
    assert sizes
    assert max(sizes) < 800_000


def neighbours(labels: Tensor, size: int, sigma: float | None, ignore_index: int, num_classes: int) -> Tensor:
    """The definition, position by position."""
    spatial, reach = labels.shape[1:], size // 2
    expected = torch.zeros(*labels.shape, num_classes)
    for i in itertools.product(*map(range, labels.shape)):
        total = 0.0
        for o in itertools.product(range(-reach, reach + 1), repeat=len(spatial)):
            if not any(o):
                continue
            at = [min(max(x + dx, 0), n - 1) for x, dx, n in zip(i[1:], o, spatial, strict=True)]
            label = int(labels[(i[0], *at)])
            if label != ignore_index:
                w = 1.0 if sigma is None else math.exp(-sum(dx * dx for dx in o) / (2 * sigma**2))
                expected[(*i, label)] += w
                total += w
        if total:
            expected[i] /= total
    return expected


@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("sigma", [None, 0.7])
@pytest.mark.parametrize(
    ("shape", "size"), [((2, 6), 3), ((1, 7), 5), ((2, 3, 4), 3), ((1, 1, 5), 5), ((1, 2, 3, 2), 3)]
)
def test_neighbourhood(shape: tuple[int, ...], size: int, sigma: float | None, ignore_index: int):
    labels = torch.randint(3, shape, generator=G)
    labels[labels == 2] = ignore_index
    labels.view(-1)[0] = 1
    prior = priors.neighbourhood(labels, size, sigma, ignore_index=ignore_index)
    assert prior.probabilities.shape == (*shape, size ** (len(shape) - 1) - 1)
    assert_close(dense(prior, 3), neighbours(labels, size, sigma, ignore_index, 3))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_neighbourhood_of_short_types(dtype: torch.dtype):
    labels = torch.tensor([[[0, 200], [255, 0]]])
    ignored = {"ignore_index": 255}
    expected = priors.neighbourhood(labels, **ignored)
    prior = priors.neighbourhood(labels.to(dtype), **ignored)
    assert_close(dense(prior, 201), dense(expected, 201))


def test_nothing_but_ignored_neighbours_leave_nothing():
    labels = torch.full((1, 5, 5), -100)
    labels[0, 2, 2] = 3
    prior = priors.neighbourhood(labels)
    assert_close(prior.probabilities[0, 2, 2], torch.zeros(8))
    assert prior.classes is not None
    assert int(prior.classes.min()) == 0


def test_the_smallest_gaussian_leaves_the_nearest():
    for sigma in (1e-3, 1e-25, 1e-200):
        prior = priors.neighbourhood(torch.tensor([[0, 1, 2, 3, 4]]), size=5, sigma=sigma)
        assert_close(dense(prior, 5)[0, 2], torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0]))
        # Of the neighbours there are, here the diagonal ones.
        corners = torch.tensor([[[1, -100, 1], [-100, 0, -100], [1, -100, 2]]])
        prior = priors.neighbourhood(corners, sigma=sigma)
        assert_close(dense(prior, 3)[0, 1, 1], torch.tensor([0.0, 0.75, 0.25]))


def test_the_coldest_teacher_is_sure():
    logits = torch.tensor([[1.0, 3.0, 2.0], [5.0, 5.0, 0.0]])
    sure = torch.tensor([[0.0, 1.0, 0.0], [0.5, 0.5, 0.0]])
    assert_close(priors.teacher(logits, temperature=1e-40).probabilities, sure)
    assert_close(dense(priors.teacher(logits, temperature=1e-40, k=2), 3), sure)


def test_the_largest_shares():
    prior = priors.per_sample(torch.tensor([[3e38, 3e38]]), torch.tensor([[0, 2]]))
    assert_close(dense(prior, 3), torch.tensor([[0.5, 0.0, 0.5]]))


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_half_of_a_gaussian_neighbourhood_is_svls(size: int, dimensions: int):
    """Spatially varying label smoothing: the one-hot map, padded by replication, convolved with a Gaussian
    whose centre is replaced by the sum of the others, and divided by the kernel's sum."""
    num_classes, sigma = 4, 1.0
    labels = torch.randint(num_classes, (2, *(5, 4, 6)[:dimensions]), generator=G)
    line = torch.exp(-(torch.arange(size) - size // 2).square() / (2 * sigma**2))
    kernel = line
    for _ in range(dimensions - 1):
        kernel = kernel.unsqueeze(-1) * line
    kernel = kernel / kernel.sum()
    centre = (size // 2,) * dimensions
    kernel[centre] = 1 - kernel[centre]
    kernel = kernel / kernel.sum()
    one_hot = F.one_hot(labels, num_classes).movedim(-1, 1).double()
    padded = F.pad(one_hot, [size // 2] * (2 * dimensions), mode="replicate")
    convolve = F.conv2d if dimensions == 2 else F.conv3d
    svls = convolve(padded, kernel.expand(num_classes, 1, *kernel.shape), groups=num_classes)
    prior = dense(priors.neighbourhood(labels, size, sigma), num_classes).movedim(-1, 1)
    assert_close(0.5 * one_hot + 0.5 * prior, svls)


def test_neighbourhood_is_never_of_all_classes():
    labels = torch.tensor([[[0, 10**12], [5, 5]]])
    prior = priors.neighbourhood(labels)
    assert prior.probabilities.shape == (1, 2, 2, 8)


@pytest.mark.parametrize("k", [None, 2])
def test_losses_toward_a_teacher(k: int | None):
    z, logits, target = randn(3, 4), randn(3, 4), torch.tensor([0, 3, 1])
    prior = priors.teacher(logits, k=k)
    pi = prior.probabilities if k is None else dense(prior, 4)
    expected = F.cross_entropy(z, 0.7 * F.one_hot(target, 4) + 0.3 * pi)
    assert_close(cross_entropy(z, target, label_smoothing=0.3, prior=prior), expected)


def test_a_loss_toward_no_neighbours_is_that_of_the_label():
    z, target = randn(1, 4, 3, 3), torch.full((1, 3, 3), -100)
    target[0, 1, 1] = 2
    found = cross_entropy(z, target, label_smoothing=0.3, prior=priors.neighbourhood(target))
    assert_close(found, F.cross_entropy(z, target))
