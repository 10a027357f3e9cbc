"""One row without a batch: every option goes through torch.compile, fake tensors and the meta device, as
torch's own loss does; nothing reads the label's value."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from labelsmooth import by_class, functional, mixed, priors, schedules
from labelsmooth.formulas import ConfidencePenalty, ForwardCorrection, MaxSup

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy
smoothing_term: Any = functional.smoothing_term

K = 5
WEIGHT = torch.linspace(0.3, 1.7, K)
P = torch.linspace(0.1, 1.0, K * K).reshape(K, K).softmax(-1)
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": WEIGHT},
    "weight by sample": {"weight": WEIGHT, "weighting": "sample"},
    "by_class": {"label_smoothing": by_class(torch.linspace(0, 0.4, K))},
    "schedule": {"label_smoothing": schedules.constant(0.1)},
    "vector": {"prior": P[0]},
    "matrix": {"prior": P},
    "matrix for the others": {"prior": P, "off_target": "others"},
    "ordinal": {"prior": priors.sord(K)},
    "all": {"weight": WEIGHT, "prior": P, "label_smoothing": by_class(torch.linspace(0, 0.4, K))},
    "MaxSup": {"formula": MaxSup(), "weight": WEIGHT},
    "ConfidencePenalty": {"formula": ConfidencePenalty(), "weight": WEIGHT},
    "ForwardCorrection": {"formula": ForwardCorrection(), "prior": P[0], "weight": WEIGHT},
    "sample_weight": {"sample_weight": torch.tensor(0.5), "weight": WEIGHT},
    "z_loss": {"z_loss": 0.1, "weight": WEIGHT},
}
SHAPES = [(), (3,), (2, 4)]


def case(name: str, rows: tuple[int, ...]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(*rows[:1], K, *rows[1:], generator=generator)
    y = torch.randint(K, rows, generator=generator)
    return z, y, {"label_smoothing": 0.1, **OPTIONS[name]}


def moved(x: Any, device: str) -> Any:
    if isinstance(x, torch.nn.Module):
        return copy.deepcopy(x).to(device)
    return x.to(device) if isinstance(x, Tensor) else x


@pytest.mark.slow
@pytest.mark.parametrize("rows", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_compiled(name: str, rows: tuple[int, ...]) -> None:
    torch.compiler.reset()
    z, y, options = case(name, rows)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(z, y, **options)

    assert_close(torch.compile(loss, fullgraph=True, backend="aot_eager")(z, y), loss(z, y))


@pytest.mark.parametrize("rows", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_on_the_meta_device(name: str, rows: tuple[int, ...]) -> None:
    z, y, options = case(name, rows)
    options = {key: moved(x, "meta") for key, x in options.items()}
    for reduction, shape in (("mean", ()), ("none", rows)):
        loss = cross_entropy(z.to("meta"), y.to("meta"), reduction=reduction, **options)
        assert loss.shape == shape
        assert loss.device.type == "meta"


@pytest.mark.parametrize("rows", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIONS)
def test_fake(name: str, rows: tuple[int, ...]) -> None:
    z, y, options = case(name, rows)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = mode.from_tensor
        assert cross_entropy(fake(z), fake(y), reduction="none", **options).shape == rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["compiled", "meta"])
def test_others(kind: str) -> None:
    """The head, what smooths it from outside, and mixed labels."""
    h, W, b, y = torch.randn(3), torch.randn(K, 3), torch.randn(K), torch.tensor(2)
    calls: list[Any] = [
        lambda h, W, b, y: linear_cross_entropy(h, W, y, linear_bias=b, weight=b.exp(), prior=b.softmax(0)),
        lambda h, W, b, y: smoothing_term(h, W, y, linear_bias=b),
        lambda h, W, b, y: cross_entropy(b, mixed(y, y, 0.3), b.exp(), label_smoothing=0.1),
        lambda h, W, b, y: functional.label_smoothing_loss(b, y, 0.1),
    ]
    for call in calls:
        if kind == "meta":
            assert call(*(x.to("meta") for x in (h, W, b, y))).shape == ()
        else:
            torch.compiler.reset()
            compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
            assert_close(compiled(h, W, b, y), call(h, W, b, y))
