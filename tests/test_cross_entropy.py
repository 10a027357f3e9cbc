"""cross_entropy against the oracle, and what it does at the edges of floating-point numbers."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth.functional import cross_entropy
from tests import oracle
from tests.cases import ENGINES, PRECISE, gradients

INF, NAN = torch.inf, torch.nan


def assert_equals_oracle(input: Tensor, target: Tensor, weight: Tensor | None = None, **options: Any) -> None:
    """Loss, NLL and gradient: in float64 to its last few digits, in float32 to assert_close's standard."""
    leaf, other = (x.detach().requires_grad_() for x in (input.clone(), input.double()))
    loss, nll = cross_entropy(leaf, target, weight, return_nll=True, **options)
    truth, plain = oracle.cross_entropy(other, target, weight, **options)
    accuracy = PRECISE if input.dtype == torch.float64 else {}
    found = [loss, nll, *gradients(loss, [leaf])]
    for ours, theirs in zip(found, [truth, plain, *gradients(truth, [other])], strict=True):
        assert_close(ours, theirs.to(input.dtype), equal_nan=True, **accuracy)


def logits(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return 3 * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def probabilities(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1)).softmax(-1)


def gradient(loss: Tensor, input: Tensor) -> Tensor:
    return torch.autograd.grad(loss, input)[0]


TARGET = torch.tensor([0, 1, 2, 3, 1, 0])
VALID = torch.tensor(
    [[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.bool
)
MASKED = logits(6, 4).masked_fill(~VALID, -INF)
SOFT = (probabilities(6, 4) * VALID) / (probabilities(6, 4) * VALID).sum(-1, keepdim=True)
VECTOR = torch.tensor([0.5, 0.3, 0.0, 0.2], dtype=torch.float64)
MATRIX = torch.tensor(
    [[0.1, 0.2, 0.3, 0.4], [0.5, 0.0, 0.5, 0.0], [0.7, 0.3, 0.0, 0.0], [0.0, 0.0, 0.2, 0.8]],
    dtype=torch.float64,
)
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5], dtype=torch.float64)
PER_ROW = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.2, 0.3], dtype=torch.float64)


def test_nll_is_the_loss_without_smoothing_and_has_no_gradient() -> None:
    options: dict[str, Any] = {"weight": WEIGHT, "prior": VECTOR}
    scale = PER_ROW.clone().requires_grad_()
    for reduction in ("none", "mean", "sum"):
        z = logits(6, 4).requires_grad_()
        common = {**options, "reduction": reduction, "sample_weight": scale}
        loss, nll = cross_entropy(z, TARGET, label_smoothing=0.3, return_nll=True, **common)
        assert_close(nll, cross_entropy(z, TARGET, **common).detach())
        assert loss.requires_grad
        assert not nll.requires_grad
        alone = cross_entropy(z, TARGET, label_smoothing=0.3, **common)
        assert_close(loss, alone)
        assert_close(gradient(loss.sum(), z), gradient(alone.sum(), z))


NOTHING: list[dict[str, Any]] = [
    {"target": torch.tensor([-100, -100])},
    {"target": torch.tensor([0, 1]), "sample_weight": torch.zeros(2)},
    {"target": probabilities(2, 4), "sample_weight": torch.zeros(2)},
]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("case", NOTHING, ids=["ignored", "hard", "soft"])
def test_rows_that_do_not_count_have_no_gradient(case: dict[str, Any], reduction: Any) -> None:
    z = logits(2, 4).requires_grad_()
    options: dict[str, Any] = {"denominator": 0.0} if reduction == "mean" else {}
    loss = cross_entropy(z, **case, reduction=reduction, label_smoothing=0.1, **options)
    assert_close(loss, torch.zeros_like(loss), rtol=0, atol=0)
    assert_close(gradient(loss.sum(), z), torch.zeros_like(z), rtol=0, atol=0)


@pytest.mark.parametrize("case", NOTHING, ids=["ignored", "hard", "soft"])
def test_plain_mean_over_nothing_is_nan(case: dict[str, Any]) -> None:
    assert cross_entropy(logits(2, 4), **case, label_smoothing=0.1).isnan()


def test_denominator() -> None:
    z, target = logits(3, 4), torch.tensor([0, -100, 2])
    total = cross_entropy(z, target, reduction="sum", label_smoothing=0.1)
    for denominator in (5, 5.0, torch.tensor(5), torch.tensor([5.0])):
        loss = cross_entropy(z, target, label_smoothing=0.1, denominator=denominator)
        assert_close(loss, total / 5, rtol=1e-14, atol=0)
    # A wrong denominator is not hidden when there are rows, whatever their classes weigh.
    assert cross_entropy(z, target, denominator=0.0).isinf()
    weight = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    assert_equals_oracle(z, target, weight, label_smoothing=0.1, denominator=5.0)
    assert cross_entropy(z, target, weight, label_smoothing=0.1, denominator=0.0).isinf()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_what_stands_in_a_row_that_does_not_count_reaches_nothing(bad: float, soft: bool) -> None:
    z = logits(3, 4)
    target = probabilities(3, 4) if soft else torch.tensor([1, 2, 3])
    keep = torch.tensor([0, 2])
    clean = z[keep].requires_grad_()
    expected, _ = oracle.cross_entropy(clean, target[keep], label_smoothing=0.1)
    poisoned = z.index_fill(0, torch.tensor([1]), bad).requires_grad_()
    if soft:
        target = target.index_fill(0, torch.tensor([1]), bad)
    cases: list[dict[str, Any]] = [{"target": target, "sample_weight": torch.tensor([1.0, 0.0, 1.0])}]
    if not soft:
        cases.append({"target": torch.tensor([1, -100, 3])})
    for case in cases:
        loss = cross_entropy(poisoned, **case, label_smoothing=0.1)
        grad = gradient(loss, poisoned)
        assert_close(loss, expected)
        assert_close(grad[keep], torch.autograd.grad(expected, clean, retain_graph=True)[0])
        assert_close(grad[1], torch.zeros_like(grad[1]), rtol=0, atol=0)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_masked_target_is_infinite_unless_nothing_goes_to_it(soft: bool) -> None:
    z = torch.tensor([[-INF, 1.0, 0.0, 2.0]], dtype=torch.float64)
    target = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64) if soft else torch.tensor([0])
    assert oracle.cross_entropy(z, target, label_smoothing=0.1)[0] == INF
    for eps in (0.0, 0.1, 1.0):
        assert_equals_oracle(z, target, label_smoothing=eps)
    assert cross_entropy(z, target, label_smoothing=1.0).isfinite()


def test_one_matrix_row_per_class() -> None:
    # Row k for class k, not column k.
    z, target = torch.tensor([[0.0, 1.0, 2.0]]), torch.tensor([0])
    prior = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    loss = cross_entropy(z, target, label_smoothing=1.0, prior=prior)
    assert_close(loss, F.cross_entropy(z, torch.tensor([1])))


# 50,000 classes, where a sum of float16 terms overflows; the reference is float64 on the same logits.
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("off_target", ["all", "others"])
def test_short_types_are_computed_in_float32(dtype: torch.dtype, off_target: Any) -> None:
    z = logits(2, 50_000).to(dtype).requires_grad_()
    target = torch.tensor([7, 49_999])
    loss = cross_entropy(z, target, label_smoothing=0.1, off_target=off_target)
    assert loss.dtype == torch.float32
    grad = gradient(loss, z)
    assert grad.dtype == dtype
    exact = z.detach().double().requires_grad_()
    expected, _ = oracle.cross_entropy(exact, target, label_smoothing=0.1, off_target=off_target)
    assert_close(loss, expected.float())
    assert_close(grad, gradient(expected, exact).to(dtype))


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_autocast_changes_nothing(soft: bool) -> None:
    z = logits(6, 4, dtype=torch.float32)
    target = probabilities(6, 4, dtype=torch.float32) if soft else TARGET
    for prior in (None, VECTOR, MATRIX):
        for weighting in ("torch", "sample"):
            options: dict[str, Any] = {"prior": prior, "weighting": weighting, "label_smoothing": 0.3}
            expected = cross_entropy(z, target, WEIGHT + 0.1, **options)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                assert_close(cross_entropy(z, target, WEIGHT + 0.1, **options), expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32])
def test_any_integer_type(dtype: torch.dtype) -> None:
    expected = cross_entropy(logits(6, 4), TARGET, label_smoothing=0.1)
    assert_close(cross_entropy(logits(6, 4), TARGET.to(dtype), label_smoothing=0.1), expected, rtol=0, atol=0)


@pytest.mark.parametrize("target", [TARGET, SOFT], ids=["hard", "soft"])
def test_common_offset_costs_no_precision(target: Tensor) -> None:
    # Logits in quarters, so that adding 10,000 is exact in float32.
    z = (logits(6, 4, dtype=torch.float32) * 4).round() / 4
    near = cross_entropy(z, target, label_smoothing=0.1, prior=VECTOR, reduction="none")
    far = cross_entropy(z + 1e4, target, label_smoothing=0.1, prior=VECTOR, reduction="none")
    assert_close(far, near, rtol=0, atol=0)


def test_saturated_logits() -> None:
    z = torch.tensor([[1e4, 0.0, -1e4], [0.0, 1e4, 0.0], [-1e4, -1e4, 1e4]], dtype=torch.float32)
    assert_equals_oracle(z, torch.tensor([0, 0, 2]), label_smoothing=0.1, reduction="none")
    assert_equals_oracle(z.double(), torch.tensor([0, 0, 2]), label_smoothing=0.1, reduction="none")


def test_others_keeps_its_precision_when_the_prior_has_nearly_all_on_one_class() -> None:
    prior = torch.tensor([1 - 1e-5, 9e-6, 1e-6], dtype=torch.float64).float()
    z = logits(3, 3, dtype=torch.float32)
    for target in (torch.tensor([0, 1, 2]), torch.eye(3)):
        assert_equals_oracle(z, target, prior=prior, off_target="others", label_smoothing=0.5)


@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 2), (3, 4, 0)])
def test_empty_batch(shape: tuple[int, ...]) -> None:
    for target in (torch.zeros(shape[0], *shape[2:], dtype=torch.long), torch.zeros(shape)):
        z = torch.zeros(shape, requires_grad=True)
        assert cross_entropy(z, target, reduction="none").shape == (shape[0], *shape[2:])
        assert cross_entropy(z, target, reduction="sum") == 0
        assert cross_entropy(z, target, label_smoothing=0.1).isnan()
        loss = cross_entropy(z, target, label_smoothing=0.1, denominator=0.0)
        assert loss == 0
        assert gradient(loss, z).shape == shape


def test_layout_does_not_matter() -> None:
    z = logits(4, 12).T[::2]
    assert not z.is_contiguous()
    assert_equals_oracle(z, TARGET, label_smoothing=0.1)
    assert_equals_oracle(z, SOFT.T.contiguous().T, label_smoothing=0.1)


def test_arguments_and_grad_mode_are_left_alone() -> None:
    tensors = {"input": MASKED, "weight": WEIGHT, "prior": MATRIX, "sample_weight": PER_ROW}
    for target in (TARGET, SOFT):
        before = {name: tensor.clone() for name, tensor in {**tensors, "target": target}.items()}
        with torch.no_grad():
            loss = cross_entropy(**tensors, target=target, label_smoothing=PER_ROW)  # pyright: ignore[reportArgumentType, reportCallIssue]
            assert not torch.is_grad_enabled()
        assert not loss.requires_grad
        for name, tensor in {**tensors, "target": target}.items():
            assert_close(tensor, before[name], rtol=0, atol=0)
    assert torch.is_grad_enabled()


# Finite differences by everything that can be learnt; away from the ends of [0, 1], where they step outside.
@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("target", [TARGET, SOFT], ids=["hard", "soft"])
def test_learnable_strength_and_prior(target: Tensor, off_target: Any) -> None:
    def loss(eps: Tensor, prior: Tensor, weight: Tensor, scale: Tensor) -> Tensor:
        return cross_entropy(
            MASKED,
            target,
            weight,
            label_smoothing=eps,
            prior=prior.softmax(-1),
            off_target=off_target,
            sample_weight=scale,
        )

    for eps in (torch.tensor(0.3), torch.linspace(0.1, 0.9, 6)):
        for prior in (logits(4), logits(4, 4)):
            learnt = (eps.double(), prior, WEIGHT + 1, PER_ROW + 1)
            assert torch.autograd.gradcheck(loss, [x.clone().requires_grad_() for x in learnt])


@pytest.mark.parametrize("weighting", ["torch", "sample"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_scale_of_the_weights_cancels(engine: Any, weighting: Any) -> None:
    """Of the z-loss too, which is weighted as its row."""
    one, ten = (
        cross_entropy(
            logits(6, 4), TARGET, w, label_smoothing=0.1, weighting=weighting, z_loss=0.03, engine=engine
        )
        for w in (WEIGHT, 10 * WEIGHT)
    )
    assert_close(one, ten)
