"""What a loss is told stays as exact as float32, whatever the default type is and wherever it is moved."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import labelsmooth
from labelsmooth import by_class, priors, schedules
from labelsmooth.formulas import MaxSup

K = 5
WEIGHT = torch.tensor([0.1, 70000.0, 1.0, 0.3, 2.0])
EPS = torch.tensor([0.1, 0.2, 0.3, 0.05, 0.15])
Z = torch.linspace(-2, 2, 4 * K).reshape(4, K)
Y = torch.tensor([1, 0, 4, 2])

MODULES: dict[str, Callable[[], nn.Module]] = {
    "weight": lambda: labelsmooth.CrossEntropyLoss(WEIGHT, label_smoothing=0.1),
    "eps": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=torch.tensor(0.1)),
    "by_class": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=by_class(EPS)),
    "by_counts": lambda: labelsmooth.CrossEntropyLoss(
        label_smoothing=schedules.by_counts(torch.tensor([900, 70, 30, 5, 1]), 0.3, 0.1)
    ),
    "prior": lambda: labelsmooth.CrossEntropyLoss(label_smoothing=0.1, prior=priors.sord(K)),
    "LabelSmoothingLoss": lambda: labelsmooth.LabelSmoothingLoss(torch.tensor(0.1)),
    "head": lambda: labelsmooth.LinearCrossEntropyLoss(
        K, K, dtype=torch.float32, weight=WEIGHT, label_smoothing=torch.tensor(0.1)
    ),
    "online": lambda: labelsmooth.OnlineLabelSmoothing(K, label_smoothing=torch.tensor(0.1)),
    "binary": lambda: labelsmooth.BCEWithLogitsLoss(
        WEIGHT, pos_weight=WEIGHT, label_smoothing=EPS, prior=EPS
    ),
    "large schedule": lambda: labelsmooth.CrossEntropyLoss(
        label_smoothing=schedules.linear(1e5, 2e5, steps=3), formula=MaxSup()
    ),
    **{
        name: lambda made=made: labelsmooth.CrossEntropyLoss(label_smoothing=made)
        for name, made in {
            "constant": schedules.constant(0.1),
            "linear": schedules.linear(0.1, 0.7, steps=3),
            "cosine": schedules.cosine(0.1, 0.7, steps=3),
            "warm_up": schedules.warm_up(0.7, steps=3),
            "delayed": schedules.delayed(0.1, steps=2),
            "drop_late": schedules.drop_late(0.1, steps=2),
        }.items()
    },
}
ROUNDED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "half": lambda m: m.half(),
    "bfloat16": lambda m: m.bfloat16(),
    "to": lambda m: m.to(torch.float16),
    "to and back": lambda m: m.half().float(),
    "inside": lambda m: nn.Sequential(nn.Linear(2, 2), m).half()[1],
}


@pytest.fixture
def bfloat16() -> Any:
    torch.set_default_dtype(torch.bfloat16)
    yield
    torch.set_default_dtype(torch.float32)


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in module.named_buffers()}


def loss(module: nn.Module) -> Tensor:
    target = Y if not isinstance(module, labelsmooth.BCEWithLogitsLoss) else (Z > 0).float()
    if isinstance(module, labelsmooth.LinearCrossEntropyLoss):
        with torch.no_grad():
            module.linear.weight.copy_(torch.eye(K))
        return module(Z.to(module.linear.weight.dtype), Y)
    return module(Z, target)


def check_same(module: nn.Module, expected: dict[str, Tensor]) -> None:
    assert expected
    for name, x in module.named_buffers():
        assert_close(x, expected[name], rtol=0, atol=0)


@pytest.mark.parametrize("rounded", ROUNDED)
@pytest.mark.parametrize("name", MODULES)
def test_a_short_type_leaves_it(name: str, rounded: str) -> None:
    module = copy.deepcopy(MODULES[name]())
    expected, before = buffers(module), loss(module).detach()
    if name == "online":
        expected = buffers(module)
    moved = ROUNDED[rounded](module)
    check_same(moved, expected)
    if name != "head":  # whose parameters are rounded
        assert_close(loss(moved).detach(), before, rtol=0, atol=0)
    for again in (
        copy.deepcopy(moved),
        pickle.loads(pickle.dumps(moved)) if "lambda" not in repr(moved) else moved,
    ):
        assert {n: x.dtype for n, x in again.named_buffers()} == {n: x.dtype for n, x in expected.items()}


def test_parameters_are_rounded_as_ever() -> None:
    head = labelsmooth.LinearCrossEntropyLoss(K, K, weight=WEIGHT).half()
    assert head.linear.weight.dtype == torch.float16
    assert head.weight is not None
    assert head.weight.dtype == torch.float32
    learned = labelsmooth.CrossEntropyLoss(label_smoothing=nn.Parameter(torch.tensor(0.1))).half()
    assert isinstance(learned.label_smoothing, nn.Parameter)
    assert learned.label_smoothing.dtype == torch.float16


@pytest.mark.parametrize("name", MODULES)
def test_double_stays_double(name: str) -> None:
    module = copy.deepcopy(MODULES[name]()).double()
    kinds = {x.dtype for x in module.buffers() if x.is_floating_point()}
    assert kinds == {torch.float64}
    assert {x.dtype for x in module.half().buffers() if x.is_floating_point()} == {torch.float64}


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "warm_up", "delayed", "drop_late"])
def test_schedules_under_a_short_default(name: str) -> None:
    make = {
        "constant": lambda: schedules.constant(0.1),
        "linear": lambda: schedules.linear(0.1, 0.7, steps=3),
        "cosine": lambda: schedules.cosine(0.1, 0.7, steps=3),
        "warm_up": lambda: schedules.warm_up(0.7, steps=3),
        "delayed": lambda: schedules.delayed(0.1, steps=2),
        "drop_late": lambda: schedules.drop_late(0.1, steps=2),
    }[name]
    short = make()
    torch.set_default_dtype(torch.float32)
    long = make()
    torch.set_default_dtype(torch.bfloat16)
    for _ in range(5):
        assert_close(short.eps, long.eps, rtol=0, atol=0)
        short.step()
        torch.set_default_dtype(torch.float32)
        long.step()
        torch.set_default_dtype(torch.bfloat16)


@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize("eps", [0.1, 1 / 3])
def test_numbers_under_a_short_default(eps: float) -> None:
    """Of float32 logits the loss is the same, whatever the default type."""
    cross_entropy: Any = labelsmooth.functional.cross_entropy
    for options in ({}, {"engine": "reference"}, {"weight": WEIGHT}, {"off_target": "others"}):
        found = cross_entropy(Z, Y, label_smoothing=eps, **options)
        torch.set_default_dtype(torch.float32)
        expected = cross_entropy(Z, Y, label_smoothing=eps, **options)
        torch.set_default_dtype(torch.bfloat16)
        assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("name", ["weight", "eps", "online", "binary", "prior", "by_class"])
def test_a_state_of_a_short_type(name: str, assign: bool) -> None:
    """Its numbers are rounded, and what is made of them is not."""
    module = copy.deepcopy(MODULES[name]())
    state = {
        n: x.bfloat16() if x.is_floating_point() and "prior.prob" not in n else x
        for n, x in module.state_dict().items()
    }
    module.load_state_dict(state, assign=assign)
    for n, x in module.named_buffers():
        assert not x.is_floating_point() or x.dtype == torch.float32, n


def test_given_in_a_short_type() -> None:
    weight = torch.tensor([0.5, 2.0, 1.0, 1.0, 1.0])
    short, long = (labelsmooth.CrossEntropyLoss(w, label_smoothing=0.1) for w in (weight.half(), weight))
    assert short.weight is not None
    assert short.weight.dtype == torch.float32
    assert_close(short(Z, Y), long(Z, Y))
    assert long.weight is weight


@pytest.mark.parametrize("name", ["eps", "head", "binary"])
@pytest.mark.parametrize("train_only", [False, True])
def test_the_mode_matters_to_train_only_alone(
    name: str, train_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a module never asks, no graph depends on."""
    module: Any = copy.deepcopy(MODULES[name]())
    module.train_only = train_only
    asked: list[str] = []
    found = nn.Module.__getattribute__

    def ask(self: nn.Module, attribute: str) -> Any:
        if attribute == "training" and isinstance(self, type(module)):
            asked.append(attribute)
        return found(self, attribute)

    monkeypatch.setattr(type(module), "__getattribute__", ask)
    loss(module)
    assert bool(asked) is train_only


@pytest.mark.parametrize("name", ["weight", "eps", "by_class", "prior", "LabelSmoothingLoss", "binary"])
def test_memory_that_nobody_wrote_is_seen(name: str) -> None:
    """After ``to_empty()``, until a state is loaded."""
    module, expected = copy.deepcopy(MODULES[name]()), loss(MODULES[name]())
    state = copy.deepcopy(module.state_dict())
    module.to("meta").to_empty(device="cpu")
    assert all(x.isnan().all() for x in module.buffers())
    if name in ("weight", "prior"):
        assert loss(module).isnan()
    else:  # whose range is checked
        with pytest.raises(ValueError, match=r"must lie in .*, got nan"):
            loss(module)
    module.load_state_dict(state)
    assert_close(loss(module), expected)
