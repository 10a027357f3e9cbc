"""A prior for each sample, whole or of a few classes: the loss of a target nobody makes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth import functional, priors
from labelsmooth.priors import PerSample
from tests.cases import (
    CLASSES,
    ENGINES,
    FEW,
    FEW_ROWS,
    HARD,
    INF,
    MASKED,
    PRECISE,
    ROWS,
    SHARES,
    K,
    N,
    Z,
    gradients,
    random,
)  # fmt: skip

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here
TARGET = HARD


def one_hot(target: Tensor) -> Tensor:
    """Nothing for an ignored one."""
    return F.one_hot(target.clamp(min=0), K).double() * (target >= 0).unsqueeze(-1)


# A sure teacher's other classes have next to nothing, too little to divide by.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["whole", "few", "vector"])
@pytest.mark.parametrize("by", ["mask", "others"])
@pytest.mark.parametrize("left", [1e-37, 1e-40])
def test_next_to_nothing(left: float, by: str, kind: str, engine: str | None) -> None:
    z, other = (random(1, 3).float().requires_grad_() for _ in range(2))
    row, classes = torch.tensor([[1.0, left, 0.0]]), torch.tensor([[0, 1, 2]])
    prior = {"whole": PerSample(row), "few": PerSample(row, classes), "vector": row[0]}[kind]
    if by == "others":
        if kind == "vector":
            with pytest.raises(ValueError, match="needs mass on other classes, and prior gives class 0 all"):
                cross_entropy(z, torch.tensor([0]), prior=prior, engine=engine, off_target="others")
            return
        target, valid = torch.tensor([0]), torch.tensor([True, True, True])
    else:
        target, valid = torch.tensor([2]), torch.tensor([False, True, True])
    options: dict[str, Any] = {"off_target": "others" if by == "others" else "all"}
    loss = cross_entropy(
        z.masked_fill(~valid, -INF), target, label_smoothing=0.5, prior=prior, engine=engine, **options
    )
    log_q = other.masked_fill(~valid, -INF).log_softmax(-1)
    expected = -0.5 * log_q[0, target[0]] - 0.5 * log_q[0, 1]
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert grad.isfinite().all()
    if left > torch.finfo(torch.float32).tiny:
        assert_close(loss, expected)
        assert_close(grad, torch.autograd.grad(expected, other)[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("off_target", ["all", "others"])
def test_few_classes_are_their_rows(off_target: str, engine: str | None) -> None:
    """Float rounding of what was given included: whatever the sum, it is renormalised by the loss."""
    options: dict[str, Any] = {"label_smoothing": 0.4, "off_target": off_target, "reduction": "none"}
    z, other = (MASKED.clone().requires_grad_() for _ in range(2))
    few = cross_entropy(z, TARGET, prior=PerSample(3 * SHARES, CLASSES), engine=engine, **options)
    whole = cross_entropy(other, TARGET, prior=PerSample(FEW_ROWS), engine=engine, **options)
    assert_close(few, whole, **PRECISE)
    assert_close(gradients(few, [z]), gradients(whole, [other]), **PRECISE)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", [None, 1, 3, K])
def test_teacher(k: int | None, temperature: float) -> None:
    """Distillation: the cross entropy to (1 - eps) e_y + eps softmax(t / T), over its k largest."""
    t = random(N, K + 3)[:, :K]
    lowest = t.sort(-1, descending=True).values[:, (K if k is None else k) - 1].unsqueeze(-1)
    q = (t / temperature).masked_fill(t < lowest, -INF).softmax(-1)
    expected = F.cross_entropy(Z, 0.6 * one_hot(TARGET) + 0.4 * q)
    prior = priors.teacher(t, temperature, k)
    assert_close(cross_entropy(Z, TARGET, label_smoothing=0.4, prior=prior), expected, **PRECISE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ignored", [False, True])
def test_spatially_varying_label_smoothing(ignored: bool, engine: str | None) -> None:
    """SVLS: the one-hot map, padded by replication, convolved with a Gaussian whose centre is replaced by the
    sum of the others, and divided by the kernel's sum."""
    labels = torch.randint(K, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    line = torch.exp(-(torch.arange(-1, 2, dtype=torch.float64) ** 2) / 2)
    weights = line.outer(line)
    weights[1, 1] = 0
    around = weights / weights.sum()
    if ignored:
        labels[0, :3, :3] = -100  # whose centre has no neighbours, and does not count
        labels[1, 2, 2] = -100
    maps = one_hot(labels).movedim(-1, 1)
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    neighbours = F.conv2d(padded, around.expand(K, 1, 3, 3), groups=K)
    # Where some do not count the others have their share.
    mass = neighbours.sum(1, keepdim=True)
    neighbours = torch.where(mass > 0, neighbours / mass, maps)
    counted = labels >= 0
    target = 0.5 * maps + 0.5 * neighbours
    z, other = (random(2, K, 5, 4).requires_grad_() for _ in range(2))
    expected = -(target * other.log_softmax(1)).sum(1)[counted].mean()
    prior = priors.neighbourhood(labels, sigma=1.0)
    exact = PerSample(weights.flatten()[[0, 1, 2, 3, 5, 6, 7, 8]].expand(2, 5, 4, 8), prior.classes)
    loss = cross_entropy(z, labels, label_smoothing=0.5, prior=prior, engine=engine)
    assert_close(loss, expected, rtol=1e-6, atol=0)
    right = gradients(expected, [other])
    assert_close(gradients(loss, [z]), right, rtol=1e-5, atol=1e-9)
    if not ignored:
        loss = cross_entropy(z, labels, label_smoothing=0.5, prior=exact, engine=engine)
        assert_close(loss, expected, **PRECISE)
        assert_close(gradients(loss, [z]), right, **PRECISE)


def test_no_gradient_reaches_a_prior() -> None:
    logits = Z.clone().requires_grad_()
    for prior in (
        priors.teacher(logits),
        priors.teacher(logits, k=2),
        priors.per_sample(logits.softmax(-1)),
    ):
        assert not cross_entropy(Z, TARGET, label_smoothing=0.3, prior=prior).requires_grad


@pytest.mark.parametrize("prior", [PerSample(ROWS), FEW], ids=["whole", "few"])
def test_samples_may_be_mapped(prior: PerSample) -> None:
    def loss(z: Tensor, y: Tensor, shares: Tensor, classes: Tensor) -> Tensor:
        row = PerSample(shares, None if prior.classes is None else classes)
        return cross_entropy(z, y, label_smoothing=0.2, prior=row)

    found = torch.func.vmap(torch.func.grad(loss))(Z, TARGET, prior.probabilities, CLASSES)
    leaf = Z.clone().requires_grad_()
    total = cross_entropy(leaf, TARGET, label_smoothing=0.2, prior=prior, reduction="sum")
    assert_close(found, torch.autograd.grad(total, leaf)[0], **PRECISE)


@pytest.mark.slow
def test_compiles_once() -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def loss(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return cross_entropy(z, y, label_smoothing=0.2, prior=priors.teacher(t, 2.0, k=3))

    for t in (Z + 1, -Z, Z.flip(0)):
        expected = cross_entropy(Z, TARGET, label_smoothing=0.2, prior=priors.teacher(t, 2.0, k=3))
        assert_close(loss(Z, TARGET, t), expected)
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compiled_maps() -> None:
    torch.compiler.reset()
    labels = torch.randint(K, (2, 5, 4), generator=torch.Generator().manual_seed(0))

    def loss(z: Tensor) -> Tensor:
        return cross_entropy(z, labels, label_smoothing=0.5, prior=priors.neighbourhood(labels))

    z, other = (random(2, K, 5, 4).requires_grad_() for _ in range(2))
    compiled: Any = torch.compile(loss, backend="aot_eager", fullgraph=True)
    ours, theirs = compiled(z), loss(other)
    assert_close(ours, theirs)
    assert_close(gradients(ours, [z]), gradients(theirs, [other]))


def test_no_rows_and_no_classes_named() -> None:
    empty = torch.zeros(0, K, dtype=torch.float64)
    prior = PerSample(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    none = torch.zeros(0, dtype=torch.long)
    assert cross_entropy(empty, none, label_smoothing=0.1, prior=prior, reduction="sum") == 0
    nothing = PerSample(torch.zeros(N, 0), torch.zeros(N, 0, dtype=torch.long))
    assert_close(cross_entropy(Z, TARGET, label_smoothing=0.5, prior=nothing), F.cross_entropy(Z, TARGET))
