"""The dense engine under all of torch's machinery: autograd, torch.func, the compiler, export, hooks."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from functorch import compile as functorch_compile
from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from labelsmooth import functional
from tests.cases import kernel, random
from tests.engines.private import DIFFERENTIABLE, STATISTICS, Measures, compute_dtype, dense, route
from tests.small import EPS, HARD, IGNORING, INPUT, MATRIX, SCHEDULE, WEIGHT, Graphs

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here

pytestmark = [
    kernel,
    # torch's own forward-mode differentiation does that when first used.
    pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning"),
    # A batch of gradients goes through the operator one at a time.
    pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning"),
]


def operands(case: str) -> tuple[Any, ...]:
    z = random(4, 6).float()
    target: Tensor = torch.tensor([0, 5, 2, 2])
    counted = torch.tensor([True, True, False, True])
    prior = weight = None
    match case:
        case "strided":
            z = random(4, 9).float()[:, 2:8]
        case "scattered":
            z = random(6, 4).float().T
        case "dimensions":
            z, target, counted = random(2, 2, 6).float(), target.reshape(2, 2), counted.reshape(2, 2)
        case "no rows":
            z, target, counted = z[:0], target[:0], counted[:0]
        case "soft":
            target = random(4, 6).float().softmax(-1)
        case "vectors":
            prior, weight = random(6).float().softmax(-1), random(6).float().abs()
        case "matrix":
            prior = random(6, 6).float().softmax(-1)
        case "bfloat16":
            z = z.bfloat16()
    return z, target, counted, prior, weight, case == "matrix"


OPERANDS = [
    "contiguous", "strided", "scattered", "dimensions", "no rows", "soft", "vectors", "matrix", "bfloat16"
]  # fmt: skip


# Its warnings are about its own workings.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OPERANDS)
def test_opcheck(case: str) -> None:
    z, *rest = operands(case)
    torch.library.opcheck(torch.ops.labelsmooth.dense.default, (z.detach().requires_grad_(), *rest))
    statistics = torch.ops.labelsmooth.dense.default(z, *rest)
    grad = torch.ones(5, *z.shape[:-1], dtype=compute_dtype(z))
    torch.library.opcheck(torch.ops.labelsmooth.dense_backward.default, (grad, z, statistics, *rest))


def test_second_derivatives_of_a_mean() -> None:
    """That of softmax, however it is asked for."""
    z = INPUT[0]
    q = z.softmax(-1)
    expected = q.diag() - q.outer(q)
    for options in ({}, {"z_loss": 0.0, "weight": torch.ones(3)}):

        def loss(z: Tensor, options: dict[str, Any] = options) -> Tensor:
            return cross_entropy(z, HARD[0], label_smoothing=0.3, engine="dense", **options)

        for vectorize in (False, True):
            assert_close(torch.autograd.functional.hessian(loss, z, vectorize=vectorize), expected)
        leaf = z.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        assert_close(
            torch.autograd.grad(grad, leaf, torch.eye(3).double(), is_grads_batched=True)[0], expected
        )
        # A penalty on the gradient, as it is trained with.
        leaf = z.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        grad.square().sum().backward()
        assert_close(leaf.grad, 2 * expected @ grad.detach())


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_batched_gradients(reduction: Any) -> None:
    leaf = INPUT.clone().requires_grad_()
    loss = cross_entropy(leaf, HARD, label_smoothing=0.1, reduction=reduction, engine="dense")
    many = random(5, *loss.shape)
    for create_graph in (False, True):
        (batched,) = torch.autograd.grad(
            loss, leaf, many, is_grads_batched=True, retain_graph=True, create_graph=create_graph
        )
        looped = [torch.autograd.grad(loss, leaf, one, retain_graph=True)[0] for one in many]
        assert_close(batched, torch.stack(looped))


# One way through the statistics and one through the pass that does all at once.
WAYS: list[dict[str, Any]] = [{}, {"weight": torch.ones(3).double()}]


@pytest.fixture(params=WAYS, ids=["all at once", "operator"])
def loss(request: pytest.FixtureRequest) -> Callable[..., Tensor]:
    def loss(z: Tensor, **options: Any) -> Tensor:
        return cross_entropy(z, HARD, label_smoothing=0.1, engine="dense", **{**request.param, **options})

    return loss


def plain_gradient() -> Tensor:
    leaf = INPUT.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(leaf, HARD, label_smoothing=0.1), leaf)[0]


def test_backward_twice(loss: Callable[..., Tensor]) -> None:
    leaf = INPUT.clone().requires_grad_()
    found = loss(leaf)
    found.backward(retain_graph=True)
    once = leaf.grad
    assert once is not None
    once = once.clone()
    leaf.grad = None
    found.backward()
    assert leaf.grad is not None
    assert leaf.grad.equal(once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        found.backward()


def test_logits_that_change_before_backward(loss: Callable[..., Tensor]) -> None:
    z = INPUT.clone().requires_grad_() * 1
    found = loss(z)
    z.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_loss_can_be_changed_in_place(loss: Callable[..., Tensor]) -> None:
    leaf = INPUT.clone().requires_grad_()
    found = loss(leaf)
    found *= 3
    found += 1
    found.div_(2)
    found.backward()
    assert leaf.grad is not None
    assert_close(leaf.grad, 1.5 * plain_gradient())
    with torch.no_grad():
        assert_close(loss(INPUT).mul_(2), 2 * loss(INPUT))


# jit.trace is deprecated, and thinks little of any branch.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_recorded(loss: Callable[..., Tensor]) -> None:
    """Who records torch's operators gets the loss, not its value of today."""
    other = INPUT.flip(0)
    graph = make_fx(loss)(INPUT)
    assert "labelsmooth.dense" in graph.code
    assert_close(graph(other), loss(other))
    traced: Any = torch.jit.trace(loss, (INPUT,), check_trace=False)
    assert_close(traced(other), loss(other))
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert cross_entropy(INPUT, HARD, label_smoothing=0.1).shape == ()


def test_lazy_minus_sign(loss: Callable[..., Tensor]) -> None:
    lazy = torch._neg_view(INPUT)  # pyright: ignore[reportPrivateImportUsage]
    assert_close(loss(lazy), loss(-INPUT))


def test_gradient_modes(loss: Callable[..., Tensor]) -> None:
    leaf = INPUT.clone().requires_grad_()
    expected = loss(leaf).detach()
    assert not loss(INPUT).requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = loss(leaf)
            assert not found.requires_grad
            assert found.equal(expected)
            assert loss(INPUT * 1).equal(expected)
            _, nll = loss(INPUT * 1, return_nll=True)
            assert not nll.requires_grad
    with torch.inference_mode():
        z = INPUT * 1
    assert loss(z).equal(expected)
    assert_close(torch.autograd.grad(loss(z.clone() + leaf - INPUT), leaf)[0], plain_gradient())


def test_autocast(loss: Callable[..., Tensor]) -> None:
    expected = loss(INPUT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        leaf = INPUT.clone().requires_grad_()
        found = loss(leaf)
        assert found.equal(expected)
        # The logits of a model under autocast are short, and so is their gradient.
        w, x = random(3, 5).float().requires_grad_(), random(4, 5).float()
        z = F.linear(x, w)
        assert z.dtype == torch.bfloat16
        short = loss(z)
        assert short.dtype == torch.float32
        assert_close(short, loss(z.float()))
        short.backward()
    assert w.grad is not None
    assert_close(torch.autograd.grad(found, leaf)[0], plain_gradient())


def test_hooks_of_saved_tensors(loss: Callable[..., Tensor]) -> None:
    shapes: list[torch.Size] = []

    def pack(x: Tensor) -> Tensor:
        shapes.append(x.shape)
        return x.clone()

    leaf = INPUT.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        found = loss(leaf)
    assert INPUT.shape in shapes
    assert_close(torch.autograd.grad(found, leaf)[0], plain_gradient())
    with torch.autograd.graph.save_on_cpu():
        found = loss(leaf)
    assert_close(torch.autograd.grad(found, leaf)[0], plain_gradient())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoint(use_reentrant: bool, loss: Callable[..., Tensor]) -> None:
    leaf = INPUT.clone().requires_grad_()
    found = checkpoint(lambda z: loss(z * 2) / 2, leaf, use_reentrant=use_reentrant)
    assert isinstance(found, Tensor)
    found.backward()
    expected = INPUT.clone().requires_grad_()
    (F.cross_entropy(expected * 2, HARD, label_smoothing=0.1) / 2).backward()
    assert_close(leaf.grad, expected.grad)


def test_hooks_and_anomaly_mode(loss: Callable[..., Tensor]) -> None:
    leaf = INPUT.clone().requires_grad_()
    seen: list[Tensor] = []
    with torch.autograd.set_detect_anomaly(True, check_nan=True):
        z = leaf * 1
        z.register_hook(seen.append)
        loss(z).backward()
    assert_close(seen[0], plain_gradient())


OPTIONS: list[dict[str, Any]] = [
    {},
    {"weight": WEIGHT, "denominator": 3.0},
    {"prior": MATRIX, "off_target": "others", "reduction": "none"},
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "weight", "matrix"])
def test_compiled_forward_and_backward(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    graphs: list[str] = []

    def compiler(graph: torch.fx.GraphModule, example_inputs: Any) -> Any:
        graphs.append(graph.code)
        return functorch_compile.make_boxed_func(graph.forward)

    backend = aot_autograd(fw_compiler=compiler, bw_compiler=compiler)
    compiled = torch.compile(cross_entropy, fullgraph=True, backend=backend)
    results = []
    for function in (cross_entropy, compiled):
        leaf = INPUT.clone().requires_grad_()
        loss, nll = function(leaf, IGNORING, label_smoothing=EPS, return_nll=True, engine="dense", **options)
        results.append((loss, nll, torch.autograd.grad(loss.sum(), leaf)[0]))
    assert_close(results[1], results[0])
    forward, backward = graphs
    assert "ops.labelsmooth.dense.default" in forward
    assert "ops.labelsmooth.dense_backward.default" in backward


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (4,)], ids=["scalar", "row"])
def test_tensor_strength_compiles_once(shape: tuple[int, ...]) -> None:
    graphs = Graphs()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend=graphs)
    for eps in SCHEDULE:
        strength = torch.full(shape, eps, dtype=torch.float64)
        loss = compiled(INPUT, HARD, label_smoothing=strength, engine="dense")
        assert_close(loss, F.cross_entropy(INPUT, HARD, label_smoothing=eps))
    assert graphs.count == 1


@pytest.mark.slow
def test_float_strength_compiles_at_most_twice() -> None:
    graphs = Graphs()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend=graphs)
    for eps in SCHEDULE:
        loss = compiled(INPUT, HARD, label_smoothing=eps, engine="dense")
        assert_close(loss, F.cross_entropy(INPUT, HARD, label_smoothing=eps))
    assert 1 <= graphs.count <= 2


@pytest.mark.slow
def test_compiled_for_any_batch_size() -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(cross_entropy, fullgraph=True, dynamic=True, backend="aot_eager")
    for n in (2, 3, 4):
        leaves = [INPUT[:n].clone().requires_grad_() for _ in range(2)]
        for run, leaf in zip((cross_entropy, compiled), leaves, strict=True):
            run(leaf, HARD[:n], label_smoothing=0.1, engine="dense").backward()
        assert_close(leaves[1].grad, leaves[0].grad)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_compiled_target_out_of_range() -> None:
    torch.compiler.reset()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
    with pytest.raises(ValueError, match=r"target must hold class indices in \[0, 3\), got 7"):
        compiled(INPUT, torch.tensor([0, 1, 7, 2]), label_smoothing=0.1, engine="dense")


class Loss(torch.nn.Module):
    def forward(self, z: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(z, target, label_smoothing=0.1, engine="dense")


@pytest.mark.slow
def test_export() -> None:
    rows = torch.export.Dim("rows", min=2, max=64)
    program = torch.export.export(Loss(), (INPUT, HARD), dynamic_shapes={"z": {0: rows}, "target": {0: rows}})
    assert "labelsmooth.dense.default" in str(program.graph)
    for n in (3, 4):
        assert_close(program.module()(INPUT[:n], HARD[:n]), Loss()(INPUT[:n], HARD[:n]))


def test_measures_need_no_gradient_by_the_masses() -> None:
    """The statistics that are constants have none."""
    leaf = INPUT.clone().requires_grad_()
    found = route.row_statistics(leaf, Measures(HARD, torch.ones(4, dtype=torch.bool)), "dense")
    (grad,) = torch.autograd.grad(sum(x.sum() for x in found[DIFFERENTIABLE:STATISTICS]), leaf)  # pyright: ignore[reportArgumentType, reportCallIssue]
    assert not grad.any()
    assert dense.serves(leaf, Measures(HARD, torch.ones(4, dtype=torch.bool))) is None
