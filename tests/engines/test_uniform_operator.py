"""The plain loss as an operator, which torch.compile calls in place of its own code."""

from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth.functional import cross_entropy
from tests.cases import kernel, random
from tests.engines.private import DTYPES

pytestmark = kernel

Y = torch.tensor([0, 2, -100, 1, 3])
EPS = torch.tensor(0.1, dtype=torch.float64)


def operator() -> Any:
    return torch.ops.labelsmooth.uniform.default


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("divisor", [None, 1.0])
def test_opcheck(divisor: float | None, dtype: torch.dtype):
    z = random(5, 4).to(dtype)
    for leaf in (z.requires_grad_(), random(5, 8).to(dtype)[:, ::2].detach()):
        torch.library.opcheck(operator(), (leaf, Y, EPS, -100, divisor))


@pytest.mark.slow
def test_opcheck_of_a_map():
    z = random(2, 3, 8, 8).movedim(1, -1).requires_grad_()
    torch.library.opcheck(operator(), (z, torch.randint(3, (2, 8, 8)), EPS, -100, None))


def gradients(loss: Tensor, z: Tensor, **how: Any) -> Tensor:
    return torch.autograd.grad(loss, z, **how)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_value_and_gradient(dtype: torch.dtype):
    z = random(5, 4).to(dtype).requires_grad_()
    wide = z.detach().double().requires_grad_()
    loss, nll, *_ = operator()(z, Y, EPS, -100, None)
    expected = F.cross_entropy(wide, Y, label_smoothing=0.1)
    eps = torch.finfo(loss.dtype).eps
    assert_close(loss.double(), expected, rtol=4 * eps, atol=0.0)
    assert_close(nll.double(), F.cross_entropy(wide, Y), rtol=4 * eps, atol=0.0)
    assert not nll.requires_grad
    eps = torch.finfo(dtype).eps
    found, exact = gradients(3 * loss, z), gradients(3 * expected, wide)
    assert_close(found.double(), exact, rtol=2 * eps, atol=2 * eps)


def test_a_second_derivative():
    z, wide = (random(5, 4).requires_grad_() for _ in range(2))
    loss, *_ = operator()(z, Y, EPS, -100, 1.0)
    theirs = F.cross_entropy(wide, Y, label_smoothing=0.1, reduction="sum")
    by, by_theirs = gradients(loss, z, create_graph=True), gradients(theirs, wide, create_graph=True)
    assert_close(gradients(by.square().sum(), z), gradients(by_theirs.square().sum(), wide))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_compiled(reduction: Literal["mean", "sum"]):
    nodes: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        nodes.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    def loss(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return cross_entropy(z, y, label_smoothing=0.1, reduction=reduction, return_nll=True)

    torch.compiler.reset()
    z = random(5, 4).requires_grad_()
    found, nll = torch.compile(loss, fullgraph=True, backend=backend)(z, Y)
    expected, expected_nll = loss(z, Y)
    assert any("uniform" in node for node in nodes)
    assert_close(found, expected)
    assert_close(nll, expected_nll)
    assert_close(gradients(found, z), gradients(expected, z))


def test_a_target_out_of_range():
    z = random(5, 4)
    with pytest.raises(ValueError, match=r"^target must hold class indices in \[0, 4\), got 4"):
        operator()(z, Y + 1, EPS, -99, None)


@pytest.mark.parametrize(
    ("z", "y"), [(random(5, 4), Y[:4]), (random(5, 4), Y.int()), (random(5, 4).int(), Y)]
)
def test_a_call_from_elsewhere_is_checked(z: Tensor, y: Tensor):
    with pytest.raises(ValueError, match=r"^z and target must hold logits \(\.\.\., K\) and int64 class"):
        operator()(z, y, EPS, -100, None)
