"""Every tensor of a call has to be on the device of its input; the error names the one that is not."""

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

import labelsmooth as ls
from labelsmooth import functional as F
from labelsmooth import priors, schedules
from labelsmooth._targets.mixed import Mixed
from labelsmooth.priors import PerSample
from labelsmooth.schedules import Schedule

Z = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2])
P = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])
V = torch.tensor([0.5, 0.25, 0.25])
H, W, B = torch.eye(2, 4), torch.eye(3, 4), torch.ones(3)
HALF = torch.tensor(0.5)
ROWS = torch.tensor([0.5, 0.25])
FEW = priors.per_sample(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[0, 1], [2, 0]]))


class Case(NamedTuple):
    loss: Callable[..., Any]
    required: dict[str, Any]
    options: list[dict[str, Any]]
    input: str = "input"


CROSS_ENTROPY: list[dict[str, Any]] = [
    {"weight": V},
    {"weight": V, "weighting": "sample"},
    {"label_smoothing": HALF},
    {"label_smoothing": ROWS},
    {"label_smoothing": ls.by_class(V)},
    {"label_smoothing": schedules.constant(0.1)},
    {"prior": V},
    {"prior": torch.eye(3)},
    {"prior": priors.Prior(V)},
    {"prior": priors.per_sample(P)},
    {"prior": FEW},
    {"sample_weight": ROWS},
    {"sample_weight": HALF},
    {"denominator": HALF},
    {"target": Mixed(Y, Y, 0.5)},
    {"target": Mixed(Y, Y, HALF)},
    {"target": Mixed(Y, Y, ROWS)},
    {"target": P},
]
HEAD: list[dict[str, Any]] = [{"linear_bias": B}, *CROSS_ENTROPY]


def module(kind: Callable[..., Any]) -> Callable[..., Any]:
    def call(**options: Any) -> Any:
        called = ("input", "target", "pred", "sample_weight", "denominator")
        at = {k: options.pop(k) for k in called if k in options}
        if isinstance(options.get("prior"), PerSample):
            at["prior"] = options.pop("prior")
        return kind(**options)(**at)

    return call


def online(input: Tensor, **options: Any) -> Any:
    def made(**options: Any) -> torch.nn.Module:
        made = ls.OnlineLabelSmoothing(3, **options).eval()
        return copy.deepcopy(made).to("meta") if input.is_meta else made  # the means of its own

    return module(made)(input=input, **options)


def head(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None = None, **options: Any) -> Any:
    def made(**options: Any) -> torch.nn.Module:
        made = ls.LinearCrossEntropyLoss(4, 3, bias=linear_bias is not None, **options)
        made.linear.weight = torch.nn.Parameter(linear_weight)
        if linear_bias is not None:
            made.linear.bias = torch.nn.Parameter(linear_bias)
        return made

    return module(made)(input=input, **options)


def sharded(loss: Callable[..., Any]) -> Callable[..., Any]:
    return lambda **options: loss(group=None, **options)


LOSSES = {
    "cross_entropy": Case(F.cross_entropy, {"input": Z, "target": Y}, CROSS_ENTROPY),
    "CrossEntropyLoss": Case(module(ls.CrossEntropyLoss), {"input": Z, "target": Y}, CROSS_ENTROPY),
    "OnlineLabelSmoothing": Case(
        online,
        {"input": Z, "target": Y},
        [o for o in CROSS_ENTROPY if "prior" not in o],
    ),
    "linear_cross_entropy": Case(F.linear_cross_entropy, {"input": H, "linear_weight": W, "target": Y}, HEAD),
    "LinearCrossEntropyLoss": Case(head, {"input": H, "linear_weight": W, "target": Y}, HEAD),
    "label_smoothing_loss": Case(
        F.label_smoothing_loss,
        {"pred": Z, "target": Y},
        [{"smoothing": HALF}, {"smoothing": schedules.constant(0.1)}],
        "pred",
    ),
    "LabelSmoothingLoss": Case(
        module(ls.LabelSmoothingLoss),
        {"pred": Z, "target": Y},
        [{"smoothing": HALF}, {"smoothing": schedules.constant(0.1)}],
        "pred",
    ),
    "smoothing_term": Case(
        F.smoothing_term,
        {"input": H, "linear_weight": W, "target": Y},
        [{"linear_bias": B}, {"prior": V}, {"prior": priors.Prior(V)}],
    ),
    **{
        name: Case(
            loss,
            {"input": Z, "target": P},
            [
                {"weight": V},
                {"weight": HALF},
                {"pos_weight": V},
                {"label_smoothing": V},
                {"label_smoothing": HALF},
                {"label_smoothing": schedules.constant(0.1)},
                {"prior": V},
                {"prior": HALF},
                {"denominator": HALF},
            ],
        )
        for name, loss in {
            "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
            "BCEWithLogitsLoss": module(ls.BCEWithLogitsLoss),
        }.items()
    },
    "vocab_parallel_cross_entropy": Case(
        sharded(F.vocab_parallel_cross_entropy),
        {"logits_shard": Z, "target": Y},
        CROSS_ENTROPY,
        "logits_shard",
    ),
    "vocab_parallel_linear_cross_entropy": Case(
        sharded(F.vocab_parallel_linear_cross_entropy),
        {"input": H, "linear_weight": W, "target": Y},
        HEAD,
    ),
}


def elsewhere(value: Any) -> Iterator[Any]:
    """The same with one of its tensors on the meta device, each in turn."""
    if isinstance(value, Tensor):
        yield value.to("meta")
    elif isinstance(value, torch.nn.Module):
        yield copy.deepcopy(value).to("meta")
    elif isinstance(value, Mixed | PerSample):
        parts = ("first", "second", "lam") if isinstance(value, Mixed) else ("probabilities", "classes")
        held = {part: getattr(value, part) for part in parts}
        for part, x in held.items():
            if isinstance(x, Tensor):
                yield type(value)(**{**held, part: x.to("meta")})


def everything_elsewhere(value: Any) -> Any:
    if isinstance(value, Mixed | PerSample):
        parts = ("first", "second", "lam") if isinstance(value, Mixed) else ("probabilities", "classes")
        return type(value)(**{part: everything_elsewhere(getattr(value, part)) for part in parts})
    return next(elsewhere(value), value)


GIVEN = [
    pytest.param(loss, case.required | options, id=f"{loss}-{'-'.join(options)}{i}")
    for loss, case in LOSSES.items()
    for i, options in enumerate([{}, *case.options])
]


@pytest.fixture(autouse=True, scope="module")
def _group() -> Iterator[None]:
    store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(("loss", "given"), GIVEN)
def test_the_tensor_on_another_device_is_named(loss: str, given: dict[str, Any]) -> None:
    case = LOSSES[loss]
    case.loss(**given)
    wrong = [
        (name, given | {name: x}) for name in given if name != case.input for x in elsewhere(given[name])
    ]
    assert wrong
    for name, arguments in wrong:
        message = f"{name} must be on input's device cpu, got meta"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            case.loss(**arguments)


@pytest.mark.parametrize("numbers_too", [True, False])
@pytest.mark.parametrize(("loss", "given"), [x for x in GIVEN if "vocab" not in str(x.id)])
def test_all_tensors_on_another_device(loss: str, given: dict[str, Any], numbers_too: bool) -> None:
    """Numbers may stay on a CPU, as in torch."""
    arguments = {
        name: value
        if not numbers_too
        and ((isinstance(value, Tensor) and not value.dim()) or isinstance(value, Schedule))
        else everything_elsewhere(value)
        for name, value in given.items()
    }
    assert LOSSES[loss].loss(**arguments).device.type == "meta"


@pytest.mark.parametrize("options", CROSS_ENTROPY)
def test_dtensor(options: dict[str, Any]) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    z = distribute_tensor(Z, init_device_mesh("cpu", (1,)), [Shard(1)])
    given: dict[str, Any] = {"target": Y} | options
    F.cross_entropy(z, **given)
    for name in given:
        for x in elsewhere(given[name]):
            with pytest.raises(ValueError, match=f"^{name} must be on input's device cpu, got meta$"):
                F.cross_entropy(z, **(given | {name: x}))
