"""Binary cross entropy with smoothing, against torch's, its definition, and that of two classes."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth.functional import binary_cross_entropy_with_logits, cross_entropy
from labelsmooth.schedules import constant, linear
from tests import oracle
from tests.cases import PRECISE, REDUCTIONS

N, C = 4, 3
GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=GENERATOR)


INPUT = 6 * random(N, C) - 3
HARD = torch.tensor([[1, 0, 0], [0, 1, 1], [1, 1, 0], [0, 0, 1]], dtype=torch.float64)
SOFT = random(N, C)
WEIGHTS = {"none": None, "label": random(C), "sample": random(N, 1), "all": random(N, C), "0-d": random()}
POS_WEIGHTS = {"none": None, "label": 4 * random(C), "all": 4 * random(N, C), "0-d": 4 * random()}
STRENGTHS = {
    "none": 0.0,
    "int": 1,
    "float": 0.2,
    "0-d": torch.tensor(0.2, dtype=torch.float64),
    "label": torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64),
    "sample": random(N, 1),
    "all": random(N, C),
    "schedule": constant(0.25),  # a number that float32 has
}
PRIORS = {"none": None, "float": 0.1, "0-d": random(), "label": random(C), "sample": random(N, 1)}


def value_and_gradient(loss: Callable[[Tensor], Tensor], input: Tensor) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


# All that torch takes: every shape of the input, factors that broadcast in each way, and both types.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("pos_weight", POS_WEIGHTS.values(), ids=POS_WEIGHTS)
@pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_without_smoothing_it_is_torch(
    target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: Any, dtype: torch.dtype
) -> None:
    def to(x: Tensor | None) -> Any:
        return None if x is None else x.to(dtype)

    options = {"pos_weight": to(pos_weight), "reduction": reduction}
    ours, theirs = (
        value_and_gradient(lambda x, f=f: f(x, to(target), to(weight), **options), to(INPUT))
        for f in (binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits)
    )
    assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0,), (0, 3)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_shapes_are_torchs(shape: tuple[int, ...], reduction: Any) -> None:
    z, target = 4 * random(*shape) - 2, random(*shape)
    ours, theirs = (
        value_and_gradient(lambda x, f=f: f(x, target, reduction=reduction), z)
        for f in (binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits)
    )
    assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("prior", [*PRIORS, "others"])
@pytest.mark.parametrize("eps", STRENGTHS.values(), ids=STRENGTHS)
@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_value_and_gradient(target: Tensor, eps: Any, prior: str) -> None:
    """Toward the prior, and toward the other one."""
    options = {
        "label_smoothing": eps,
        **({"off_target": prior} if prior == "others" else {"prior": PRIORS[prior]}),
    }
    for weight, pos_weight in ((None, None), (WEIGHTS["sample"], POS_WEIGHTS["label"])):
        given: Any = {"weight": weight, "pos_weight": pos_weight, **options}
        loss, grad = value_and_gradient(
            lambda x, given=given: oracle.binary_cross_entropy_with_logits(x, target, **given), INPUT
        )
        for reduction in REDUCTIONS:
            ours = value_and_gradient(
                lambda x, given=given, r=reduction: binary_cross_entropy_with_logits(
                    x, target, reduction=r, **given
                ),
                INPUT,
            )
            value = {"none": loss, "sum": loss.sum(), "mean": loss.mean()}[reduction]
            by = loss.numel() if reduction == "mean" else 1
            assert_close(ours, (value, grad / by), **PRECISE)


# sigmoid(x) is softmax([0, x]): the same loss is that of two classes, with each convention of its own name.
@pytest.mark.parametrize("eps", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(("off_target", "prior"), [("all", None), ("all", 0.2), ("others", None)])
def test_a_label_is_two_classes(off_target: Any, prior: float | None, eps: float) -> None:
    classes = None if prior is None else torch.tensor([1 - prior, prior], dtype=torch.float64)
    theirs = value_and_gradient(
        lambda x: cross_entropy(
            torch.stack([torch.zeros_like(x), x], 1),
            HARD.long(),
            label_smoothing=eps,
            off_target=off_target,
            prior=classes,
        ),
        INPUT,
    )
    ours = value_and_gradient(
        lambda x: binary_cross_entropy_with_logits(
            x, HARD, label_smoothing=eps, off_target=off_target, prior=prior
        ),
        INPUT,
    )
    assert_close(ours, theirs)


def keras(t: Tensor, eps: float) -> Tensor:
    return t * (1.0 - eps) + 0.5 * eps


def optax(t: Tensor, eps: float) -> Tensor:
    return (1.0 - eps) * t + eps / 2


def toolbelt(t: Tensor, eps: float) -> Tensor:
    return (1 - t) * eps + t * (1 - eps)


def mmpretrain(t: Tensor, eps: float) -> Tensor:
    return t.clone().masked_fill_(t > 0, 1 - eps).masked_fill_(t == 0, eps)


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.4])
@pytest.mark.parametrize(
    ("theirs", "off_target"), [(keras, "all"), (optax, "all"), (toolbelt, "others"), (mmpretrain, "others")]
)
def test_targets_of_other_frameworks(
    theirs: Callable[[Tensor, float], Tensor], off_target: Any, eps: float
) -> None:
    expected = F.binary_cross_entropy_with_logits(INPUT, theirs(HARD, eps))
    ours = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=eps, off_target=off_target)
    assert_close(ours, expected)
    # The one is twice as strong as the other.
    if off_target == "others":
        assert_close(binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=2 * eps), expected)


# Forward mode compiles some of torch's own functions when it is first used, in torch's old way.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("off_target", ["all", "others"])
def test_gradients(off_target: Any, reduction: Any) -> None:
    leaves = [INPUT, SOFT, random(N, 1), random(C), random(C)]

    def loss(x: Tensor, t: Tensor, w: Tensor, eps: Tensor, prior: Tensor | None = None) -> Tensor:
        options: Any = {"pos_weight": POS_WEIGHTS["label"], "reduction": reduction, "off_target": off_target}
        return binary_cross_entropy_with_logits(x, t, w, label_smoothing=eps, prior=prior, **options)

    if off_target == "others":
        leaves.pop()
    arguments = [x.detach().clone().requires_grad_() for x in leaves]
    assert torch.autograd.gradcheck(loss, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(loss, arguments)


# NaN in all that belongs to a label that does not count, with factors that do and do not broadcast.
@pytest.mark.parametrize("per_element", [False, True])
@pytest.mark.parametrize("off_target", ["all", "others"])
def test_what_does_not_count_reaches_nothing(off_target: Any, per_element: bool) -> None:
    weight = torch.tensor([2.0, 0.0, 0.5], dtype=torch.float64)
    pos_weight = torch.tensor([3.0, math.inf, 2.0], dtype=torch.float64)
    z, target = INPUT.clone(), SOFT.clone()
    z[:, 1], target[:, 1] = math.nan, math.nan
    z[0, 1] = -math.inf
    if per_element:
        weight, pos_weight = (x.expand(N, C).clone() for x in (weight, pos_weight))
    eps = torch.tensor(0.3, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (z, weight, eps)]
    options: Any = {"off_target": off_target, "reduction": "sum"}
    loss = binary_cross_entropy_with_logits(
        z, target, weight, pos_weight=pos_weight, label_smoothing=eps, **options
    )
    gradients = torch.autograd.grad(loss, leaves)
    keep = torch.tensor([0, 2])
    kept = [x.detach()[..., keep].requires_grad_() for x in (z, weight)]
    expected = binary_cross_entropy_with_logits(
        kept[0],
        target[:, keep],
        kept[1],
        pos_weight=pos_weight[..., keep],
        label_smoothing=eps,
        **options,
    )
    expected_gradients = torch.autograd.grad(expected, [*kept, eps])
    assert_close(loss, expected)
    assert_close(gradients[2], expected_gradients[2])
    for ours, theirs in zip(gradients[:2], expected_gradients[:2], strict=True):
        assert_close(ours[..., keep], theirs)
        assert (ours[..., 1] == 0).all()


def test_a_bad_strength_that_does_not_count_reaches_nothing() -> None:
    weight = torch.tensor([1.0, 0.0, 1.0])
    bad, good = torch.tensor([0.1, math.nan, 0.2]), torch.tensor([0.1, 0.0, 0.2])

    def loss(x: Tensor, eps: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(x, HARD, weight, label_smoothing=eps)

    unseen = torch.func.grad_and_value(loss)
    assert_close(unseen(INPUT, bad), unseen(INPUT, good))


@pytest.mark.parametrize("denominator", [7, 2.5, torch.tensor(7), torch.tensor([2.5])])
def test_a_denominator_divides_the_sum(denominator: Any) -> None:
    total = binary_cross_entropy_with_logits(INPUT, HARD, WEIGHTS["label"], reduction="sum")
    ours = binary_cross_entropy_with_logits(INPUT, HARD, WEIGHTS["label"], denominator=denominator)
    assert_close(ours, total / float(denominator))


@pytest.mark.parametrize("denominator", [0, 3.0, torch.tensor(0)])
@pytest.mark.parametrize("rows", [0, N])
def test_a_mean_over_nothing_is_0_with_a_denominator(rows: int, denominator: Any) -> None:
    weight = torch.zeros(C)
    z = INPUT[:rows].clone().requires_grad_()
    loss = binary_cross_entropy_with_logits(z, HARD[:rows], weight, denominator=denominator)
    assert loss == 0
    assert_close(torch.autograd.grad(loss, z)[0], torch.zeros_like(z))


def test_weights_do_not_count_in_a_mean() -> None:
    weight = torch.tensor([1.0, 0.0, 0.0])
    expected = F.binary_cross_entropy_with_logits(INPUT[:, 0], HARD[:, 0]) / 3
    assert_close(binary_cross_entropy_with_logits(INPUT, HARD, weight), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    z, options = INPUT.to(dtype), {"label_smoothing": 0.1, "pos_weight": torch.tensor([1.0, 2.0, 3.0])}
    loss, gradient = value_and_gradient(
        lambda x: binary_cross_entropy_with_logits(x, HARD.to(dtype), **options), z
    )
    expected, expected_gradient = value_and_gradient(
        lambda x: binary_cross_entropy_with_logits(x, HARD.float(), **options), z.float()
    )
    assert (loss.dtype, gradient.dtype) == (torch.float32, dtype)
    assert_close(loss, expected, rtol=0, atol=0)
    assert_close(gradient, expected_gradient.to(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_autocast_changes_nothing(dtype: torch.dtype) -> None:
    def loss() -> Tensor:
        return binary_cross_entropy_with_logits(INPUT.to(dtype), HARD, label_smoothing=0.1)

    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = loss()
    assert_close(within, loss(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float16, torch.float32])
def test_targets_of_any_type(dtype: torch.dtype) -> None:
    for off_target in ("all", "others"):
        options: Any = {"label_smoothing": 0.1, "off_target": off_target}
        expected = binary_cross_entropy_with_logits(INPUT, HARD, **options)
        assert_close(binary_cross_entropy_with_logits(INPUT, HARD.to(dtype), **options), expected)


def test_arguments_are_not_written_to() -> None:
    given = [INPUT, HARD, WEIGHTS["all"], POS_WEIGHTS["all"], STRENGTHS["all"], PRIORS["label"]]
    before = copy.deepcopy(given)
    x, t, w, v, eps, prior = given
    assert isinstance(x, Tensor)
    assert isinstance(t, Tensor)
    binary_cross_entropy_with_logits(x, t, w, pos_weight=v, label_smoothing=eps, prior=prior)  # pyright: ignore[reportArgumentType]
    assert_close(given, before, rtol=0, atol=0)


def test_vmap() -> None:
    def loss(x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(x, t, WEIGHTS["label"], label_smoothing=eps, prior=0.2)

    eps = random(N)
    rows = torch.stack([loss(x, t, e) for x, t, e in zip(INPUT, HARD, eps, strict=True)])
    assert_close(torch.vmap(loss)(INPUT, HARD, eps), rows)
    gradients = torch.func.vmap(torch.func.grad(loss))(INPUT, HARD, eps)
    each = [torch.func.grad(loss)(x, t, e) for x, t, e in zip(INPUT, HARD, eps, strict=True)]
    assert_close(gradients, torch.stack(each))


# One graph for all tensors and all times of a schedule; for floats a second, open one may follow the first.
@pytest.mark.parametrize(("kind", "graphs"), [(float, 2), (torch.tensor, 1), (linear, 1)])
def test_compiles_whole_and_seldom(kind: Any, graphs: int) -> None:
    counter = CompileCounter()
    compiled = torch.compile(binary_cross_entropy_with_logits, backend=counter, fullgraph=True)
    schedule = linear(0.1, 0.5, 4)
    for _ in range(5):
        eps = schedule if kind is linear else kind(schedule.eps.item())
        options: Any = {"label_smoothing": eps, "prior": 0.3, "pos_weight": POS_WEIGHTS["label"]}
        expected = binary_cross_entropy_with_logits(INPUT, HARD, **options)
        assert_close(compiled(INPUT, HARD, **options), expected)
        schedule.step()
    assert counter.frame_count <= graphs


@pytest.mark.slow
def test_compiled_gradient() -> None:
    compiled = torch.compile(binary_cross_entropy_with_logits, backend="aot_eager", fullgraph=True)
    options: Any = {"label_smoothing": 0.1, "off_target": "others", "weight": WEIGHTS["label"]}
    ours = value_and_gradient(lambda x: compiled(x, HARD, **options), INPUT)
    theirs = value_and_gradient(lambda x: binary_cross_entropy_with_logits(x, HARD, **options), INPUT)
    assert_close(ours, theirs)


# Where values cannot be read, out of range gives NaN, there and nowhere else.
@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
@pytest.mark.parametrize("name", ["label_smoothing", "prior"])
def test_out_of_range_is_nan_where_values_cannot_be_read(name: str, bad: float) -> None:
    def loss(value: Tensor) -> Tensor:
        options: Any = {"label_smoothing": 0.1, name: value}
        return binary_cross_entropy_with_logits(INPUT, HARD, reduction="none", **options)

    value = torch.tensor([0.1, bad, 0.2])
    losses = torch.compile(loss, backend="eager", fullgraph=True)(value)
    assert losses[:, 1].isnan().all()
    assert losses[:, [0, 2]].isfinite().all()
