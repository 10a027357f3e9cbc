"""Every way of differentiating, mapping and compiling gives the derivative of the same function."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.utils import counters
from torch.autograd import gradcheck, gradgradcheck
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LabelSmoothingLoss, by_class
from labelsmooth.functional import cross_entropy, label_smoothing_loss
from tests.small import EPS, HARD, IGNORING, INPUT, MASKED, MATRIX, SCHEDULE, SOFT, WEIGHT, Graphs, K

# torch's own forward-mode differentiation does that when first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")


@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_gradcheck_by_everything(target: Tensor) -> None:
    def loss(z: Tensor, target: Tensor, eps: Tensor, prior: Tensor, weight: Tensor) -> Tensor:
        return cross_entropy(z, target, weight, label_smoothing=eps, prior=prior.softmax(-1))

    tensors = [x.clone() for x in (INPUT, target, EPS, MATRIX, WEIGHT)]
    leaves = [x.requires_grad_() if x.is_floating_point() else x for x in tensors]
    assert gradcheck(loss, leaves, check_forward_ad=True)
    assert gradgradcheck(loss, leaves)


def test_gradcheck_of_the_divergence() -> None:
    def loss(z: Tensor, smoothing: Tensor) -> Tensor:
        return label_smoothing_loss(z, HARD, smoothing)

    for z in (INPUT, MASKED):
        leaves = (z.clone().requires_grad_(), torch.tensor(0.3, dtype=torch.float64, requires_grad=True))
        assert gradcheck(loss, leaves, check_forward_ad=True)
        assert gradgradcheck(loss, leaves)


def test_hessian_is_that_of_softmax() -> None:
    # diag(q) - q q^T, whatever the target.
    z = INPUT[0]
    q = z.softmax(-1)
    for target in (HARD[0], SOFT[0]):
        hessian = torch.func.hessian(lambda z, t=target: cross_entropy(z, t, label_smoothing=0.3))(z)
        assert_close(hessian, q.diag() - q.outer(q))
    assert_close(torch.func.hessian(lambda z: label_smoothing_loss(z, HARD[0]) * K)(z), q.diag() - q.outer(q))


# torch itself cannot map a weighted mean, whose divisor depends on the targets.
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_vmap_over_batches(eps: float, reduction: str) -> None:
    inputs = torch.stack([INPUT, 2 * INPUT, INPUT.flip(0)])
    targets = torch.stack([HARD, IGNORING, HARD.flip(0)])
    options: dict[str, Any] = {"weight": WEIGHT, "reduction": reduction, "label_smoothing": eps}
    mapped = torch.vmap(lambda z, y: cross_entropy(z, y, **options))(inputs, targets)
    looped = [F.cross_entropy(z, y, **options) for z, y in zip(inputs, targets, strict=True)]
    assert_close(mapped, torch.stack(looped))


def test_vmap_over_other_arguments() -> None:
    strengths = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    mapped = torch.vmap(lambda eps: cross_entropy(INPUT, HARD, label_smoothing=eps))(strengths)
    assert_close(
        mapped, torch.stack([F.cross_entropy(INPUT, HARD, label_smoothing=eps) for eps in (0, 0.3, 1)])
    )
    priors = torch.stack([MATRIX, MATRIX.flip(0)])
    mapped = torch.vmap(lambda prior: cross_entropy(INPUT, SOFT, label_smoothing=EPS, prior=prior))(priors)
    looped = [cross_entropy(INPUT, SOFT, label_smoothing=EPS, prior=prior) for prior in priors]
    assert_close(mapped, torch.stack(looped))


def test_gradient_of_each_sample() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y, label_smoothing=0.1)

    expected = torch.func.grad(lambda z: F.cross_entropy(z, HARD, reduction="sum", label_smoothing=0.1))(
        INPUT
    )
    assert_close(torch.vmap(torch.func.grad(loss))(INPUT, HARD), expected)


@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_a_scalar_compiles_once(target: Tensor) -> None:
    graphs = Graphs()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend=graphs)
    for eps in SCHEDULE:
        loss = compiled(INPUT, target, label_smoothing=torch.tensor(eps, dtype=torch.float64))
        assert_close(loss, F.cross_entropy(INPUT, target, label_smoothing=eps))
    assert graphs.count == 1


@pytest.mark.slow
def test_float_strength_compiles_at_most_twice() -> None:
    graphs = Graphs()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend=graphs)
    for eps in SCHEDULE:
        loss = compiled(INPUT, HARD, label_smoothing=eps)
        assert_close(loss, F.cross_entropy(INPUT, HARD, label_smoothing=eps))
    assert 1 <= graphs.count <= 2


@pytest.mark.slow
def test_schedule_in_a_module_compiles_at_most_twice() -> None:
    for criterion, name in ((CrossEntropyLoss(), "label_smoothing"), (LabelSmoothingLoss(), "smoothing")):
        graphs = Graphs()
        compiled = torch.compile(criterion, fullgraph=True, backend=graphs)
        for eps in SCHEDULE:
            setattr(criterion, name, eps)
            assert_close(compiled(INPUT, HARD), criterion(INPUT, HARD))
        assert 1 <= graphs.count <= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "criterion",
    [
        CrossEntropyLoss(label_smoothing=by_class(EPS[:K]), prior=MATRIX, train_only=True),
        LabelSmoothingLoss(),
    ],
    ids=["CrossEntropyLoss", "LabelSmoothingLoss"],
)
def test_compiled_module(criterion: torch.nn.Module) -> None:
    torch.compiler.reset()
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    assert_close(compiled(INPUT, HARD), criterion(INPUT, HARD))


@pytest.mark.slow
def test_floats_stay_two_graphs_through_the_whole_compiler() -> None:
    """Behind the first tracer, a float that meets no tensor's arithmetic is a constant again."""
    torch.compiler.reset()
    counters.clear()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    z = INPUT.clone().requires_grad_()
    for eps in (0.1, 0.2, 0.3, 0.0, 1.0):
        assert_close(compiled(z, HARD, label_smoothing=eps), F.cross_entropy(z, HARD, label_smoothing=eps))
    assert 1 <= counters["stats"]["unique_graphs"] <= 2


@pytest.mark.slow
def test_compiled_for_any_batch_size() -> None:
    graphs = Graphs()
    compiled = torch.compile(cross_entropy, fullgraph=True, dynamic=True, backend=graphs)
    for n in (2, 3, 4):
        loss = compiled(INPUT[:n], HARD[:n], label_smoothing=0.1)
        assert_close(loss, cross_entropy(INPUT[:n], HARD[:n], label_smoothing=0.1))
    assert graphs.count == 1


@pytest.mark.slow
def test_compiled_transforms() -> None:
    def loss(z: Tensor) -> Tensor:
        return cross_entropy(z, HARD, label_smoothing=0.1)

    def transforms(z: Tensor) -> tuple[Tensor, ...]:
        both = torch.stack([z, 2 * z])
        return torch.func.grad(loss)(z), torch.vmap(loss)(both), torch.func.jvp(loss, (z,), (z,))[1]

    compiled = torch.compile(transforms, fullgraph=True, backend="aot_eager")
    assert_close(compiled(INPUT), transforms(INPUT))
