"""Two labels for each sample, as mixup and CutMix make them: the loss of class probabilities nobody makes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LinearCrossEntropyLoss, functional, mixed
from labelsmooth.formulas import Formula, MarginSmoothing, MaxSup
from tests.cases import (
    ENGINES,
    FEW,
    HARD,
    HEAD,
    INF,
    LAM,
    MATRIX,
    MIXED,
    NAN,
    PRECISE,
    PRIORS,
    SECOND,
    WEIGHT,
    Case,
    D,
    K,
    N,
    Z,
    gradients,
    random,
)  # fmt: skip

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy
A, B = HARD, SECOND


@pytest.mark.parametrize("weighting", ["torch", "sample"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_label_with_all_of_a_row_is_a_class_index_but_for_the_weighted_mean(
    engine: str | None, weighting: str
) -> None:
    """As for class probabilities, weighting "torch" has a mean over rows, whatever their weights."""
    for lam, target in ((1.0, A), (0.0, B)):
        for reduction in ("none", "sum") if weighting == "torch" else ("none", "sum", "mean"):
            options = {"reduction": reduction, "label_smoothing": 0.2, "weighting": weighting}
            found = cross_entropy(Z, mixed(A, B, lam), WEIGHT, engine=engine, **options)
            assert_close(found, cross_entropy(Z, target, WEIGHT, **options), **PRECISE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", [p for p in PRIORS if p != "sparse"])
@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("formula", [None, MaxSup(), MarginSmoothing(0.5, squared=True)], ids=str)
def test_the_same_label_twice_is_that_label(
    formula: Formula | None, off_target: str, prior: str, engine: str
) -> None:
    """Masked classes, that leave nothing of some priors, included."""
    z = Z.clone()
    z[0, 1:4] = -INF  # and so nothing but class 4 in row 0, to which the matrix gives nothing
    z[1, [0, 2]] = -INF
    z[2, [0, 1, 3, 4]] = -INF
    options: dict[str, Any] = {"label_smoothing": 0.3, "prior": PRIORS[prior], "off_target": off_target}
    options |= {"reduction": "none"} | ({} if formula is None else {"formula": formula})
    case = Case("", z, mixed(A, A, 0.3), options)
    if case.refused or (engine == "dense" and case.refused_by_dense):
        return  # as the batteries test
    leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    found = case.loss(leaf, engine=engine)
    expected = cross_entropy(other, A, engine="reference", **options)
    assert_close(found, expected, **PRECISE)
    assert_close(gradients(found, [leaf]), gradients(expected, [other]), **PRECISE)


@pytest.mark.parametrize("engine", ENGINES)
def test_ignored_rows_have_no_gradient(engine: str) -> None:
    """If one label with a share is ignored."""
    a, b, z = A.clone(), B.clone(), Z.clone().requires_grad_()
    a[0], b[1], a[5], b[5], b[2] = [-100] * 5  # the last has no share
    (grad,) = gradients(cross_entropy(z, mixed(a, b, LAM), engine=engine, label_smoothing=0.2), [z])
    assert grad.any(-1).tolist() == [False, False, True, True, True, False, True]


@pytest.mark.parametrize("integer", [torch.uint8, torch.int32])
def test_labels_of_short_types(integer: torch.dtype) -> None:
    found = cross_entropy(Z, mixed(A.to(integer), B.to(integer), LAM))
    assert_close(found, cross_entropy(Z, MIXED), rtol=0, atol=0)


# Masked but for what is too little to divide by.
@pytest.mark.parametrize("by", ["mask", "others"])
@pytest.mark.parametrize("left", [1e-37, 1e-40])
def test_next_to_nothing(left: float, by: str) -> None:
    z, other = (random(1, 3).float().requires_grad_() for _ in range(2))
    valid = torch.tensor([by != "mask", True, True])
    target = mixed(torch.tensor([1]), torch.tensor([2]), 0.25)
    if by == "mask":
        prior, options = torch.tensor([[1.0, left, 0.0]] * 3), {}
    else:
        prior = torch.tensor([[0.0, 0.9995, 0.0], [left, 0.9995, 0.0], [0.9995, 0.0, 0.0]])
        options = {"off_target": "others"}
    loss = cross_entropy(z.masked_fill(~valid, -INF), target, label_smoothing=0.5, prior=prior, **options)
    log_q = other.masked_fill(~valid, -INF).log_softmax(-1)[0]
    toward = log_q[1] if by == "mask" else log_q[0]
    expected = -0.5 * (0.25 * log_q[1] + 0.75 * log_q[2]) - 0.5 * toward
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert grad.isfinite().all()
    if left > torch.finfo(torch.float32).tiny:
        assert_close(loss, expected)
        assert_close(grad, torch.autograd.grad(expected, other)[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_masked_label_costs_all_if_it_has_a_share(engine: str | None) -> None:
    z = Z[:3].clone()
    z[:, 1] = -INF
    target = mixed(torch.tensor([0, 1, 0]), torch.tensor([1, 2, 1]), torch.tensor([0.5, 0.0, 1.0]))
    loss = cross_entropy(z, target, engine=engine, label_smoothing=0.1, reduction="none")
    assert loss.isinf().tolist() == [True, False, False]
    assert loss[1:].isfinite().all()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mean_over_nothing(engine: str) -> None:
    nothing = torch.full_like(A, -100)
    assert cross_entropy(Z, mixed(nothing, B, 0.5), denominator=11.0, engine=engine) == 0
    assert cross_entropy(Z, mixed(nothing, B, 0.5), engine=engine).isnan()


def test_equals_dense_targets_of_torch() -> None:
    one_hot = torch.eye(K, dtype=torch.float64)
    t = LAM[:, None] * one_hot[A] + (1 - LAM)[:, None] * one_hot[B]
    for weight in (None, WEIGHT):
        for reduction in ("none", "mean", "sum"):
            options: dict[str, Any] = {"weight": weight, "reduction": reduction, "label_smoothing": 0.1}
            assert_close(cross_entropy(Z, MIXED, **options), F.cross_entropy(Z, t, **options))


def test_head_over_maps() -> None:
    """A weight of (K, d1, D), and an input of (N, T, D)."""
    hidden, weight = random(2, D), random(K, 3, D)
    a, b = A[:6].reshape(2, 3), B[:6].reshape(2, 3)
    z = torch.einsum("nd,kmd->nkm", hidden, weight)
    found = linear_cross_entropy(hidden, weight, mixed(a, b, 0.3), label_smoothing=0.1, reduction="none")
    assert_close(found, cross_entropy(z, mixed(a, b, 0.3), label_smoothing=0.1, reduction="none"))
    hidden, weight, lam = random(2, 3, D), random(K, D), torch.tensor([[0.2], [0.7]])
    found = linear_cross_entropy(hidden, weight, mixed(a, b, lam), label_smoothing=0.1, reduction="none")
    z = (hidden @ weight.T).movedim(-1, 1)
    assert_close(found, cross_entropy(z, mixed(a, b, lam), label_smoothing=0.1, reduction="none"))


def test_plain_loss_in_evaluation() -> None:
    loss = CrossEntropyLoss(label_smoothing=0.5, train_only=True).eval()
    assert_close(loss(Z, MIXED), cross_entropy(Z, MIXED))


@pytest.mark.parametrize("shape", [(), (N,)])
@pytest.mark.parametrize("prior", [None, MATRIX, FEW], ids=["uniform", "matrix", "few"])
@pytest.mark.parametrize("head", [False, True])
def test_gradient_by_the_share(head: bool, prior: Any, shape: tuple[int, ...]) -> None:
    """A share may be learned."""

    def loss(lam: Tensor) -> Tensor:
        options: dict[str, Any] = {"label_smoothing": 0.2, "weight": WEIGHT, "prior": prior}
        if head:
            return linear_cross_entropy(*(HEAD.input, HEAD.weight), mixed(A, B, lam), **options)
        return cross_entropy(Z, mixed(A, B, lam), **options)

    lam = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, lam)


# Forward mode compiles some of torch's own functions when it is first used, in torch's old way.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_transforms() -> None:
    def loss(z: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
        return cross_entropy(z, mixed(a, b, lam), label_smoothing=0.2)

    found = torch.func.vmap(torch.func.grad(loss))(Z, A, B, LAM)
    leaf = Z.clone().requires_grad_()
    expected = gradients(cross_entropy(leaf, MIXED, label_smoothing=0.2, reduction="sum"), [leaf])
    assert_close(found * 0.5, expected[0], **PRECISE)
    leaf = Z.clone().requires_grad_()
    (expected_grad,) = torch.autograd.grad(loss(leaf, A, B, LAM), leaf)
    pushed: Any = torch.func.jvp(lambda z: loss(z, A, B, LAM), (Z,), (A.double()[:, None] - Z,))
    assert_close(pushed[1], (expected_grad * (A.double()[:, None] - Z)).sum(), **PRECISE)


def test_compiles_once_for_all_shares() -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def loss(z: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
        return cross_entropy(z, mixed(a, b, lam), label_smoothing=0.2)

    for share in (0.3, 0.0, 1.0, 0.7):
        lam = torch.tensor(share)
        assert_close(loss(Z, A, B, lam), cross_entropy(Z, mixed(A, B, lam), label_smoothing=0.2))
    assert counter.frame_count == 1


@pytest.mark.slow
def test_compiles_seldom_for_numbers() -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def loss(z: Tensor, a: Tensor, b: Tensor, lam: float) -> Tensor:
        return cross_entropy(z, mixed(a, b, lam), label_smoothing=0.2)

    for lam in (0.3, 0.41, 0.7, 0.99, 0.123):
        assert_close(loss(Z, A, B, lam), cross_entropy(Z, mixed(A, B, lam), label_smoothing=0.2))
    assert counter.frame_count <= 2


@pytest.mark.slow
def test_compiled_share_out_of_range_is_nan() -> None:
    torch.compiler.reset()
    compiled: Any = torch.compile(
        lambda z, lam: cross_entropy(z, mixed(A, B, lam), reduction="none"), backend="eager", fullgraph=True
    )
    for lam in (1.5, -0.1, NAN):
        assert compiled(Z, torch.tensor(lam)).isnan().all()


def digits() -> tuple[Tensor, Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    return torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)


def mixup(x: Tensor, order: Tensor, g: torch.Generator) -> tuple[Tensor, float]:
    lam = torch.rand((), generator=g).item()
    return lam * x + (1 - lam) * x[order], lam


def mixup_of_each(x: Tensor, order: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    lam = torch.rand(len(x), generator=g)
    share = lam[:, None, None]
    return share * x + (1 - share) * x[order], lam


def cutmix(x: Tensor, order: Tensor, g: torch.Generator) -> tuple[Tensor, float]:
    """A rectangle of the other image, whose area is the other label's share."""
    top, left = torch.randint(8, (2,), generator=g).tolist()
    height, width = torch.randint(1, 6, (2,), generator=g).tolist()
    x = x.clone()
    x[:, top : top + height, left : left + width] = x[order, top : top + height, left : left + width]
    return x, 1 - (min(8, top + height) - top) * (min(8, left + width) - left) / 64


@pytest.mark.parametrize(("mix", "fused"), [(mixup, False), (mixup_of_each, True), (cutmix, False)])
def test_learns_from_mixed_images(mix: Callable[..., tuple[Tensor, Any]], fused: bool) -> None:
    images, labels = digits()
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        head = LinearCrossEntropyLoss(64, 10, bias=True, label_smoothing=0.1)
    criterion = CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(3):
        for batch in torch.randperm(1200, generator=g).split(100):
            x, y = images[batch], labels[batch]
            order = torch.randperm(len(batch), generator=g)
            x, lam = mix(x, order, g)
            target = mixed(y, y[order], lam)
            loss = head(body(x), target) if fused else criterion(head.linear(body(x)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    right = head.linear(body(images[1200:])).argmax(-1) == labels[1200:]
    assert right.float().mean() > 0.8
