"""Models that hold a loss are exported, traced and given subclasses of tensors, as with torch's own loss."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.testing import assert_close

import labelsmooth
from labelsmooth import formulas, functional, priors, schedules
from labelsmooth._core.modes import plain
from labelsmooth.engines import available

N, D, K = 6, 4, 5
generator = torch.Generator().manual_seed(0)
X, Y = torch.randn(N, D, generator=generator), torch.randint(K, (N,), generator=generator)
WEIGHT = torch.linspace(0.3, 1.7, K)
CRITERIA: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: labelsmooth.CrossEntropyLoss(),
    "smoothed": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=0.1),
    "weight and prior": lambda: labelsmooth.CrossEntropyLoss(
        WEIGHT, label_smoothing=0.1, prior=priors.sord(K), z_loss=0.01
    ),
    "MaxSup": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=0.1, formula=formulas.MaxSup()),
    "schedule": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=schedules.linear(0.1, 0.2, steps=3)),
    "LabelSmoothingLoss": lambda: labelsmooth.LabelSmoothingLoss(0.1),
    "OnlineLabelSmoothing": lambda: labelsmooth.OnlineLabelSmoothing(K).eval(),
}


class Model(nn.Module):
    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(D, K)
        self.criterion = criterion

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.criterion(self.layer(x), y)


class HeadModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = labelsmooth.LinearCrossEntropyLoss(D, K, bias=True, label_smoothing=0.1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(x, y)


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: lambda make=make: Model(make()) for name, make in CRITERIA.items()},
    "head": HeadModel,
}


@pytest.mark.slow
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_an_exported_graph_is_torch_alone(name: str, strict: bool) -> None:
    """It is to run where this package is not installed."""
    model = MODELS[name]()
    exported = torch.export.export(model, (X, Y), strict=strict)
    called = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
    assert called
    assert not [target for target in called if "labelsmooth" in target]
    assert_close(exported.module()(X, Y), model(X, Y))


@pytest.mark.parametrize("name", MODELS)
def test_onnx(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, path = MODELS[name](), str(tmp_path / "model.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(model, (X, Y), dynamo=True, verbose=False)
    program.save(path)
    session = runtime.InferenceSession(path)
    names = [given.name for given in session.get_inputs()]
    (found,) = session.run(None, dict(zip(names, (X.numpy(), Y.numpy()), strict=True)))
    assert_close(torch.as_tensor(found), model(X, Y).detach())


@pytest.mark.parametrize("name", MODELS)
def test_symbolic_trace(name: str) -> None:
    model = MODELS[name]()
    traced = torch.fx.symbolic_trace(model)
    assert_close(traced(X, Y), model(X, Y))
    assert_close(traced(2 * X[:3], Y[:3]), model(2 * X[:3], Y[:3]))


def test_symbolic_trace_in_training() -> None:
    """The means are added to in each call, and not while it is traced."""
    model = Model(labelsmooth.OnlineLabelSmoothing(K))
    traced = torch.fx.symbolic_trace(model)
    assert traced.get_buffer("criterion.sums").count_nonzero() == 0
    expected = Model(labelsmooth.OnlineLabelSmoothing(K))
    assert_close(traced(X, Y), expected(X, Y))
    assert_close(traced.get_buffer("criterion.sums"), expected.get_buffer("criterion.sums"))


@pytest.mark.parametrize(
    "module", [labelsmooth.OnlineLabelSmoothing(K), labelsmooth.LinearCrossEntropyLoss(D, K)]
)
def test_symbolic_trace_of_a_loss_that_has_to_be_a_part(module: nn.Module) -> None:
    name = type(module).__name__
    with pytest.raises(ValueError, match=f"^{name} must be within the module that torch.fx traces"):
        torch.fx.symbolic_trace(module)


def test_symbolic_trace_of_the_binary_loss() -> None:
    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.criterion = labelsmooth.BCEWithLogitsLoss(label_smoothing=0.1, pos_weight=WEIGHT)

        def forward(self, x: Tensor, on: Tensor) -> Tensor:
            return self.criterion(2 * x, on)

    x, on = torch.randn(N, K), torch.rand(N, K).round()
    assert_close(torch.fx.symbolic_trace(Binary())(x, on), Binary()(x, on))


class Plain(Tensor):
    """As fastai's and MONAI's: torch's own dispatch, and a type that stays."""


class Watching(Tensor):
    seen: list[str] = []  # noqa: RUF012

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(getattr(func, "__name__", ""))
        return super().__torch_function__(func, types, args, kwargs or {})


class Guarded(Tensor):
    """One with a dispatch of its own."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise NotImplementedError


H, W = torch.randn(N, D, generator=generator), torch.randn(K, D, generator=generator)
Z, ON = torch.randn(N, K, generator=generator), torch.rand(N, K, generator=generator).round()
cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy
LOSSES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "cross_entropy": (lambda z, y: cross_entropy(z, y, label_smoothing=0.1), (Z, Y)),
    "weight": (lambda z, y, w: cross_entropy(z, y, w, label_smoothing=0.1), (Z, Y, WEIGHT)),
    "none": (lambda z, y: cross_entropy(z, y, label_smoothing=0.1, reduction="none"), (Z, Y)),
    "prior": (lambda z, y, w: cross_entropy(z, y, label_smoothing=0.1, prior=w / w.sum()), (Z, Y, WEIGHT)),
    "module": (lambda z, y: labelsmooth.CrossEntropyLoss(label_smoothing=0.1)(z, y), (Z, Y)),
    "label_smoothing_loss": (lambda z, y: functional.label_smoothing_loss(z, y, 0.1), (Z, Y)),
    "linear": (lambda h, W, y: linear_cross_entropy(h, W, y, label_smoothing=0.1), (H, W, Y)),
    "smoothing_term": (lambda h, W, y: functional.smoothing_term(h, W, y), (H, W, Y)),
    "binary": (lambda z, t: functional.binary_cross_entropy_with_logits(z, t, label_smoothing=0.1), (Z, ON)),
    "online": (lambda z, y: labelsmooth.OnlineLabelSmoothing(K)(z, y), (Z, Y)),
}


@pytest.mark.parametrize("kind", [Plain, Watching])
@pytest.mark.parametrize("name", LOSSES)
def test_subclasses(name: str, kind: type[Tensor]) -> None:
    """Any argument may be one; the result has the type that torch's own functions give it."""
    loss, given = LOSSES[name]
    expected = loss(*given)
    for i in range(len(given)):
        leaf = given[0].clone().requires_grad_()
        args = [leaf, *given[1:]]
        args[i] = args[i].as_subclass(kind)
        found = loss(*args)
        assert type(found) is kind
        assert type(F.cross_entropy(Z.as_subclass(kind), Y)) is kind
        assert_close(found.as_subclass(Tensor), expected)
        (grad,) = torch.autograd.grad(found.sum(), leaf)
        other = given[0].clone().requires_grad_()
        assert_close(grad.as_subclass(Tensor), torch.autograd.grad(loss(other, *given[1:]).sum(), other)[0])


@pytest.mark.skipif(not available()["dense"].present, reason=str(available()["dense"]))
def test_subclasses_take_the_kernel() -> None:
    for kind in (Plain, Watching):
        z = Z.as_subclass(kind)
        assert_close(cross_entropy(z, Y, engine="dense").as_subclass(Tensor), cross_entropy(Z, Y))


def test_a_dispatch_of_its_own_is_respected() -> None:
    assert plain(Z.as_subclass(Plain))
    assert not plain(Z.as_subclass(Guarded))


def test_a_function_of_torch_to_those_who_watch() -> None:
    Watching.seen.clear()
    cross_entropy(Z.as_subclass(Watching), Y, label_smoothing=0.1)
    assert Watching.seen == ["cross_entropy"]  # one call, and nothing of what it does inside


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Plain, Watching])
def test_subclasses_compile(kind: type[Tensor]) -> None:
    compiled = torch.compile(labelsmooth.CrossEntropyLoss(label_smoothing=0.1), backend="eager")
    assert_close(
        compiled(Z.as_subclass(kind), Y).as_subclass(Tensor), cross_entropy(Z, Y, label_smoothing=0.1)
    )


def test_compiled_inputs_without_a_kind_of_their_own() -> None:
    """What stands for tensors while a graph is made is no subclass to anybody."""
    made = make_fx(lambda h, W: linear_cross_entropy(h, W, Y, label_smoothing=0.1, reduction="none"))(H, W)
    other = torch.randn(N, D)
    assert_close(made(other, W), linear_cross_entropy(other, W, Y, label_smoothing=0.1, reduction="none"))
