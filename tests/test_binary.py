"""Binary cross entropy with smoothing, against torch's, its definition, and that of two classes."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expecttest import assert_expected_inline
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth._modules.binary import BCEWithLogitsLoss
from labelsmooth.functional import binary_cross_entropy_with_logits, cross_entropy
from labelsmooth.schedules import by_class, constant, delayed, linear

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


def full(value: Any, default: float) -> list[list[float]]:
    """An option for each element."""
    if value is None:
        value = default
    if isinstance(value, nn.Module):
        value = value.eps
    return torch.as_tensor(value, dtype=torch.float64).expand(N, C).tolist()


def smoothed(target: Tensor, eps: Any, prior: Any, off_target: str) -> Tensor:
    """p by its definition, element by element."""
    p = torch.empty(N, C, dtype=torch.float64)
    strengths, priors = full(eps, 0.0), full(prior, 0.5)
    for i in range(N):
        for j in range(C):
            t, e, pi = target[i, j].item(), strengths[i][j], priors[i][j]
            on, off = (e * pi, e * (1 - pi)) if off_target == "all" else (e * (1 - t), e * t)
            p[i, j] = (1 - e) * t + on
            assert abs((1 - e) * (1 - t) + off - (1 - p[i, j])) < 1e-12
    return p


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


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
@pytest.mark.parametrize("eps", STRENGTHS.values(), ids=STRENGTHS)
@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
def test_smoothing_is_toward_the_prior(target: Tensor, eps: Any, prior: Any) -> None:
    p = smoothed(target, eps, prior, "all")
    for weight, pos_weight in ((None, None), (WEIGHTS["sample"], POS_WEIGHTS["label"])):
        ours = value_and_gradient(
            lambda x, w=weight, v=pos_weight: binary_cross_entropy_with_logits(
                x, target, w, pos_weight=v, reduction="none", label_smoothing=eps, prior=prior
            ),
            INPUT,
        )
        w, v, x = full(weight, 1.0), full(pos_weight, 1.0), INPUT.tolist()
        for i in range(N):
            for j in range(C):
                p_ij, q = p[i, j].item(), 1 / (1 + math.exp(-x[i][j]))
                loss = -w[i][j] * (v[i][j] * p_ij * math.log(q) + (1 - p_ij) * math.log(1 - q))
                gradient = w[i][j] * ((1 - p_ij) * q - v[i][j] * p_ij * (1 - q))
                assert ours[0][i, j].item() == pytest.approx(loss, rel=1e-10, abs=1e-12)
                assert ours[1][i, j].item() == pytest.approx(gradient, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("eps", STRENGTHS.values(), ids=STRENGTHS)
@pytest.mark.parametrize("target", [HARD, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_smoothing_is_toward_the_other_one(target: Tensor, eps: Any, reduction: Any) -> None:
    p = smoothed(target, eps, None, "others")
    options = {"pos_weight": POS_WEIGHTS["label"], "reduction": reduction}
    ours = value_and_gradient(
        lambda x: binary_cross_entropy_with_logits(
            x, target, label_smoothing=eps, off_target="others", **options
        ),
        INPUT,
    )
    theirs = value_and_gradient(lambda x: F.binary_cross_entropy_with_logits(x, p, **options), INPUT)
    assert_close(ours, theirs)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": [1.0]}, "input must be a tensor, got list"),
        ({"input": torch.ones(N, C).long()}, "input must hold floating-point logits, got torch.int64"),
        ({"target": [1.0]}, "target must be a tensor, got list"),
        ({"target": torch.ones(N)}, r"target must have input's shape \(4, 3\), got \(4,\)"),
        ({"target": torch.ones(N, 1)}, r"target must have input's shape \(4, 3\), got \(4, 1\)"),
        ({"target": torch.ones(N, C) * 1j}, "target must hold real numbers, got torch.complex64"),
        ({"target": torch.ones(N, C, device="meta")}, "target must be on input's device cpu, got meta"),
        ({"weight": 2.0}, "weight must be a tensor, got float"),
        ({"weight": torch.ones(N)}, r"weight must broadcast against input \(4, 3\), got \(4,\)"),
        ({"weight": torch.ones(2, N, C)}, r"weight must broadcast against input \(4, 3\), got \(2, 4, 3\)"),
        ({"pos_weight": 2.0}, "pos_weight must be a tensor, got float"),
        ({"pos_weight": torch.ones(N)}, r"pos_weight must broadcast against input \(4, 3\), got \(4,\)"),
        ({"reduction": "avg"}, "reduction must be one of 'none', 'mean', 'sum', got 'avg'"),
        ({"off_target": "other"}, "off_target must be one of 'all', 'others', got 'other'"),
        ({"label_smoothing": -0.1}, r"label_smoothing must lie in \[0, 1\], got -0.1"),
        ({"label_smoothing": math.nan}, r"label_smoothing must lie in \[0, 1\], got nan"),
        ({"label_smoothing": torch.tensor(1.5)}, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": constant(1.5)}, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": "0.1"}, "label_smoothing must be a number or a tensor, got str"),
        ({"label_smoothing": by_class(torch.ones(C))}, "label_smoothing must be .* got ByClass"),
        ({"label_smoothing": torch.ones(N)}, r"label_smoothing must broadcast against input .* got \(4,\)"),
        ({"prior": 1.5}, r"prior must lie in \[0, 1\], got 1.5"),
        ({"prior": torch.tensor([0.1, math.nan, 0.2])}, r"prior must lie in \[0, 1\], got nan"),
        ({"prior": torch.zeros(N)}, r"prior must broadcast against input \(4, 3\), got \(4,\)"),
        ({"prior": torch.zeros(C, device="meta")}, "prior must be on input's device cpu, got meta"),
        ({"prior": 0.5, "off_target": "others"}, 'prior goes with off_target="all" only'),
        ({"denominator": -1}, "denominator must not be negative or NaN, got -1"),
        ({"denominator": 3, "reduction": "sum"}, 'denominator goes with reduction="mean" only'),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        binary_cross_entropy_with_logits(**{"input": INPUT, "target": HARD, **options})


# The module.


def full_loss(scale: float = 1.0) -> BCEWithLogitsLoss:
    return BCEWithLogitsLoss(
        torch.tensor([1.0, 2.0, 3.0]) * scale,
        pos_weight=torch.tensor([3.0, 2.0, 1.0]) * scale,
        label_smoothing=torch.tensor([0.1, 0.2, 0.3]) * scale,
        prior=torch.tensor([0.5, 0.2, 0.3]) * scale,
    )


def test_the_module_is_the_function() -> None:
    criterion = full_loss()
    expected = binary_cross_entropy_with_logits(
        INPUT,
        HARD,
        torch.tensor([1.0, 2.0, 3.0]),
        pos_weight=torch.tensor([3.0, 2.0, 1.0]),
        label_smoothing=torch.tensor([0.1, 0.2, 0.3]),
        prior=torch.tensor([0.5, 0.2, 0.3]),
    )
    assert_close(criterion(INPUT, HARD), expected, rtol=0, atol=0)
    assert_close(criterion.eval()(INPUT, HARD), expected, rtol=0, atol=0)
    assert_close(criterion(INPUT, HARD, denominator=5), expected * N * C / 5)
    twice = BCEWithLogitsLoss(label_smoothing=0.1, off_target="others", reduction="sum")
    expected = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=0.2, reduction="sum")
    assert_close(twice(INPUT, HARD), expected)
    theirs = nn.BCEWithLogitsLoss(torch.tensor([1.0, 2.0, 3.0]), pos_weight=torch.tensor(2.0))
    ours = BCEWithLogitsLoss(torch.tensor([1.0, 2.0, 3.0]), pos_weight=torch.tensor(2.0))
    assert_close(ours(INPUT, HARD), theirs(INPUT, HARD))


def test_train_only_smooths_in_training_only() -> None:
    criterion = BCEWithLogitsLoss(label_smoothing=0.2, train_only=True)
    smooth = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=0.2)
    assert_close(criterion(INPUT, HARD), smooth)
    assert_close(criterion.eval()(INPUT, HARD), F.binary_cross_entropy_with_logits(INPUT, HARD))
    assert_close(criterion.train()(INPUT, HARD), smooth)


def test_the_end_of_an_epoch_moves_a_schedule() -> None:
    criterion = BCEWithLogitsLoss(label_smoothing=linear(0.0, 0.5, 2))
    for eps in (0.0, 0.25, 0.5, 0.5):
        expected = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=eps)
        assert_close(criterion(INPUT, HARD), expected)
        criterion.end_epoch()
    BCEWithLogitsLoss(label_smoothing=0.1).end_epoch()


def test_a_schedule_may_move_between_forward_and_backward() -> None:
    criterion = BCEWithLogitsLoss(label_smoothing=linear(0.0, 1.0, 4))
    criterion.end_epoch()
    z, target = INPUT.float().requires_grad_(), HARD.float().requires_grad_()
    loss = criterion(z, target)
    criterion.end_epoch()
    ours = torch.autograd.grad(loss, (z, target))
    still = binary_cross_entropy_with_logits(z, target, label_smoothing=0.25)
    assert_close(ours, torch.autograd.grad(still, (z, target)))


def test_tensors_are_in_the_state_and_nothing_is_a_parameter() -> None:
    criterion, other = full_loss(), full_loss(0.5)
    assert sorted(criterion.state_dict()) == ["label_smoothing", "pos_weight", "prior", "weight"]
    assert list(criterion.parameters()) == []
    assert list(BCEWithLogitsLoss(label_smoothing=0.1, prior=0.2).state_dict()) == []
    assert other(INPUT, HARD) != criterion(INPUT, HARD)
    other.load_state_dict(criterion.state_dict())
    assert_close(other(INPUT, HARD), criterion(INPUT, HARD), rtol=0, atol=0)
    scheduled = BCEWithLogitsLoss(label_smoothing=linear(0.0, 0.4, 4))
    assert list(scheduled.state_dict()) == ["label_smoothing.time"]
    scheduled.load_state_dict({"label_smoothing.time": torch.tensor(2)})
    expected = binary_cross_entropy_with_logits(INPUT, HARD, label_smoothing=0.2)
    assert_close(scheduled(INPUT.float(), HARD), expected.float())
    with pytest.raises(RuntimeError, match="size mismatch"):
        other.load_state_dict(BCEWithLogitsLoss(torch.ones(2)).state_dict(), strict=False)


def test_a_parameter_stays_one() -> None:
    eps = nn.Parameter(torch.tensor(0.1))
    criterion = BCEWithLogitsLoss(label_smoothing=eps)
    assert list(criterion.parameters()) == [eps]
    criterion(INPUT, HARD).backward()
    assert eps.grad is not None
    assert eps.grad != 0


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_independent(clone: Callable[[nn.Module], nn.Module]) -> None:
    for criterion in (full_loss(), BCEWithLogitsLoss(label_smoothing=linear(0.2, 0.0, 4))):
        expected = criterion(INPUT, HARD)
        twin = clone(criterion)
        assert_close(twin(INPUT, HARD), expected, rtol=0, atol=0)
        for buffer in twin.buffers():
            buffer.zero_()
        assert_close(criterion(INPUT, HARD), expected, rtol=0, atol=0)


def test_tensors_move_with_the_module() -> None:
    loss = full_loss()
    kept = {buffer.dtype for buffer in loss.buffers()}
    criterion = loss.to(torch.bfloat16)  # which rounds nothing
    assert {buffer.dtype for buffer in criterion.buffers()} == kept
    assert torch.bfloat16 not in kept
    assert criterion(INPUT.bfloat16(), HARD).dtype == torch.float32
    meta = full_loss().to("meta")
    assert meta(INPUT.to("meta"), HARD.to("meta")).device.type == "meta"


def test_repr() -> None:
    assert_expected_inline(
        repr(BCEWithLogitsLoss(label_smoothing=0.1, prior=0.2)),
        """BCEWithLogitsLoss(label_smoothing=0.1, prior=0.2, reduction='mean', off_target='all', \
train_only=False)""",
    )
    assert_expected_inline(
        repr(full_loss()),
        """BCEWithLogitsLoss(label_smoothing=(3,), weight=(3,), pos_weight=(3,), prior=(3,), \
reduction='mean', off_target='all', train_only=False)""",
    )
    assert_expected_inline(
        repr(BCEWithLogitsLoss(label_smoothing=delayed(0.1, 3))),
        """\
BCEWithLogitsLoss(
  reduction='mean', off_target='all', train_only=False
  (label_smoothing): Schedule(delayed(eps=0.1, steps=3), now 0)
)""",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 2.0}, "weight must be a tensor, got float"),
        ({"pos_weight": [1.0]}, "pos_weight must be a tensor, got list"),
        ({"reduction": "avg"}, "reduction must be one of 'none', 'mean', 'sum', got 'avg'"),
        ({"off_target": "other"}, "off_target must be one of 'all', 'others', got 'other'"),
        ({"label_smoothing": 1.5}, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": torch.tensor([0.5, -1.0])}, r"label_smoothing must lie in \[0, 1\], got -1.0"),
        ({"label_smoothing": linear(0.1, 1.5, 9)}, r"label_smoothing must lie in \[0, 1\], got 1.5"),
        ({"label_smoothing": delayed(-0.4, 9)}, r"label_smoothing must lie in \[0, 1\], got -0.4"),
        ({"label_smoothing": by_class(torch.ones(C))}, "label_smoothing must be .* got ByClass"),
        ({"prior": -0.5}, r"prior must lie in \[0, 1\], got -0.5"),
        ({"prior": "uniform"}, "prior must be a number or a tensor, got str"),
        ({"prior": 0.2, "off_target": "others"}, 'prior goes with off_target="all" only'),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BCEWithLogitsLoss(**options)
