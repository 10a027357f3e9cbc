"""What smoothing adds to a plain cross entropy makes torch's own fused one smooth, exactly."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from labelsmooth.functional import cross_entropy, smoothing_term

N, D, K, EPS = 7, 3, 5, 0.1
REDUCTIONS = ("none", "mean", "sum")
GENERATOR = torch.Generator().manual_seed(0)
SHAPES = (N, D), (K, D), (K,), (K,)
INPUT, WEIGHT, BIAS, RAW = (torch.randn(s, dtype=torch.float64, generator=GENERATOR) for s in SHAPES)
PRIOR = RAW.softmax(0)
TARGET = torch.tensor([0, 1, 2, 3, 4, 0, 2])
IGNORING = TARGET.masked_fill(TARGET == 2, -100)

# torch's own forward-mode differentiation does that when first used.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is:DeprecationWarning")


def reduced(term: Tensor, target: Tensor, reduction: str, ignore_index: int = -100) -> Tensor:
    match reduction:
        case "none":
            return term
        case "sum":
            return term.sum()
        case _:
            return term.sum() / (target != ignore_index).sum()


def leaves(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [x.clone().to(dtype).requires_grad_() for x in (INPUT, WEIGHT, BIAS)]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("prior", [None, PRIOR], ids=["uniform", "prior"])
def test_smooths_torchs_fused_cross_entropy(
    prior: Tensor | None, bias: bool, ignore_index: int, reduction: Any
) -> None:
    target = IGNORING if ignore_index == -100 else TARGET
    x, w, b = leaves()
    given = [x, w, b] if bias else [x, w]
    linear_bias = b if bias else None
    plain = F.linear_cross_entropy(
        x,
        w,
        target,
        linear_bias=linear_bias,
        reduction=reduction,
        ignore_index=ignore_index,
        options=torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2),
    )
    term = smoothing_term(x, w, target, linear_bias=linear_bias, prior=prior, ignore_index=ignore_index)
    assert term.shape == target.shape
    assert not term[target == ignore_index].any()
    ours = plain + EPS * reduced(term, target, reduction, ignore_index)
    options: dict[str, Any] = {"prior": prior, "reduction": reduction, "ignore_index": ignore_index}
    theirs = cross_entropy(F.linear(x, w, linear_bias), target, label_smoothing=EPS, **options)
    assert_close(ours, theirs)
    assert_close(torch.autograd.grad(ours.sum(), given), torch.autograd.grad(theirs.sum(), given))


@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0)], ids=str)
def test_any_leading_dimensions(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, D, dtype=torch.float64, generator=generator)
    y = torch.randint(K, shape, generator=generator)
    z = F.linear(x, WEIGHT, BIAS)
    expected = z.gather(-1, y.unsqueeze(-1)).squeeze(-1) - z.mean(-1)
    assert_close(smoothing_term(x, WEIGHT, y, linear_bias=BIAS), expected)


def test_differentiates_and_maps() -> None:
    def term(x: Tensor, w: Tensor, b: Tensor, raw: Tensor) -> Tensor:
        return smoothing_term(x, w, IGNORING, linear_bias=b, prior=raw.softmax(0))

    given = (*leaves(), RAW.clone().requires_grad_())
    assert gradcheck(term, given, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(term, given)
    many = torch.stack([INPUT, 2 * INPUT])
    mapped = torch.vmap(lambda x: smoothing_term(x, WEIGHT, IGNORING, prior=PRIOR))(many)
    assert_close(mapped, torch.stack([smoothing_term(x, WEIGHT, IGNORING, prior=PRIOR) for x in many]))


def test_compiles() -> None:
    torch.compiler.reset()
    compiled = torch.compile(smoothing_term, fullgraph=True, backend="aot_eager")
    results = []
    for function in (smoothing_term, compiled):
        x, w, b = leaves()
        term = function(x, w, IGNORING, linear_bias=b, prior=PRIOR)
        results.append((term, *torch.autograd.grad(term.sum(), [x, w, b])))
    assert_close(results[1], results[0])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_ignored_rows_hold_reaches_nothing(bad: float) -> None:
    x = INPUT.masked_fill((IGNORING == -100).unsqueeze(-1), bad).requires_grad_()
    w = WEIGHT.clone().requires_grad_()
    term = smoothing_term(x, w, IGNORING)
    assert_close(term, smoothing_term(INPUT, WEIGHT, IGNORING), check_dtype=True)
    x2, w2, _ = leaves()
    expected = torch.autograd.grad(smoothing_term(x2, w2, IGNORING).sum(), [x2, w2])
    assert_close(torch.autograd.grad(term.sum(), [x, w]), expected)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_short_types(dtype: torch.dtype, autocast: bool) -> None:
    """The logits are never rounded, so the error is float32's; that of each gradient its own type's."""
    given = leaves(dtype)
    exact = [x.detach().double().requires_grad_() for x in given]

    def found(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return smoothing_term(x, w, IGNORING, linear_bias=b, prior=PRIOR)

    with torch.autocast("cpu", enabled=autocast):
        term = found(*given)
    truth = found(*exact)
    assert term.dtype == torch.float32
    assert_close(term.double(), truth, rtol=1e-5, atol=1e-5)
    eps = torch.finfo(dtype).eps
    grads, true = torch.autograd.grad(term.sum(), given), torch.autograd.grad(truth.sum(), exact)
    for grad, other in zip(grads, true, strict=True):
        assert grad.dtype == dtype
        assert_close(grad.double(), other, rtol=2 * eps, atol=4 * eps)


def test_smooths_torchs_fused_cross_entropy_in_bfloat16() -> None:
    given = leaves(torch.bfloat16)
    exact = [x.detach().double().requires_grad_() for x in given]
    x, w, b = given
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=2, acc_dtype=torch.float32)
    plain = F.linear_cross_entropy(x, w, IGNORING, linear_bias=b, options=options)
    term = smoothing_term(x, w, IGNORING, linear_bias=b)
    ours = plain + EPS * reduced(term, IGNORING, "mean")
    naive = F.cross_entropy(F.linear(*given), IGNORING, label_smoothing=EPS)
    truth = F.cross_entropy(F.linear(*exact), IGNORING, label_smoothing=EPS)
    free = torch.finfo(torch.bfloat16).eps
    assert (ours - truth).abs() <= 2 * (naive - truth).abs() + free * truth.abs()
    grads, others = torch.autograd.grad(ours, given), torch.autograd.grad(naive, given)
    for grad, other, true in zip(grads, others, torch.autograd.grad(truth, exact), strict=True):
        assert (grad - true).norm() <= 2 * (other - true).norm() + free * true.norm()


def test_makes_no_logits() -> None:
    n = k = 400
    x, w, y = torch.zeros(n, 2, requires_grad=True), torch.zeros(k, 2, requires_grad=True), torch.arange(n)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        torch.autograd.grad(smoothing_term(x, w, y, linear_bias=torch.zeros(k)).sum(), [x, w])
    results: Any = profiled.profiler
    sizes = [e.nbytes() for e in results.kineto_results.events() if e.name() == "[memory]"]
    assert 0 < max(sizes) <= 4 * n * 2 * 4


X, W, Y = torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input": [[0.0]]}, "input must be a tensor, got list"),
        ({"input": X.double()}, "linear_weight must have input's type torch.float64, got torch.float32"),
        ({"input": X[:, :2]}, "input must have shape (..., D) with D=3 as linear_weight, got (2, 2)"),
        ({"linear_weight": torch.zeros(4, 2, 3)}, "linear_weight must have shape (K, D), got (4, 2, 3)"),
        ({"linear_weight": W[0]}, "linear_weight must have shape (K, D), got (3,)"),
        ({"linear_bias": torch.zeros(2)}, "linear_bias must have shape (4,), got (2,)"),
        ({"target": [0, 1]}, "target must be a tensor, got list"),
        (
            {"target": torch.ones(2, 4) / 4},
            "target must hold class indices of shape (2,); of one-hot labels take target.argmax(1); got "
            "torch.float32 of shape (2, 4)",
        ),
        ({"target": Y + 3}, "target must hold class indices in [0, 4) or ignore_index=-100, got 4"),
        ({"target": Y - 1}, "target must hold class indices in [0, 4) or ignore_index=-100, got -1"),
        ({"prior": torch.ones(3) / 3}, "prior must have shape (K,) or (K, K) with K=4 classes, got (3,)"),
        ({"prior": torch.ones(4, 4) / 4}, "prior must have shape (K,) here, got (4, 4)"),
        ({"prior": torch.ones(4)}, "prior must sum to 1, got 4.0"),
        ({"prior": torch.tensor([1, 0, 0, 0])}, "prior must be floating point, got torch.int64"),
        ({"prior": 0.25}, "prior must be a tensor, got float"),
    ],
    ids=lambda value: re.sub(r"\W+", "_", value)[:60] if isinstance(value, str) else "",
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"input": X, "linear_weight": W, "target": Y, **arguments}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        smoothing_term(given.pop("input"), given.pop("linear_weight"), given.pop("target"), **given)
