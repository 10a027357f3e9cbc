"""The linear engine makes nothing as wide as all logits, and nothing that is not asked for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from labelsmooth import by_class
from labelsmooth._core.statistics import DIFFERENTIABLE, STATISTICS, Measures
from labelsmooth._engines import dense, linear, reference
from labelsmooth.functional import linear_cross_entropy

N, D, K, ROWS = 256, 8, 2000, 16
REDUCTIONS = ("none", "mean", "sum")

# The reference, which serves chunks where there is no kernel, makes copies of a chunk, and needs autograd.
kernel = pytest.mark.skipif(dense.ABSENCE is not None, reason=f"no kernel: {dense.ABSENCE}")


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """For 16 rows of float32 logits."""
    monkeypatch.setattr(linear, "BUDGET", ROWS * K * 4)
    monkeypatch.setattr(linear, "LEAST", 1)


def head(
    dtype: torch.dtype = torch.float32, n: int = N, d: int = D, k: int = K
) -> tuple[list[Tensor], Tensor]:
    """Input, weight and bias; and a target."""
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in ((n, d), (k, d), (k,))]
    return leaves, torch.randint(k, (n,), generator=generator)


def loss(leaves: list[Tensor], target: Tensor, **options: Any) -> Tensor:
    hidden, weight, bias = leaves
    found: Any = linear_cross_entropy(hidden, weight, target, linear_bias=bias, **options)
    return found.sum()


def allocations(call: Callable[[], object]) -> tuple[int, int]:
    """The largest of a call, and the most it held at once beyond what was there before, in bytes."""
    call()  # what is made once and kept
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        kept = call()
    results: Any = profiled.profiler
    events = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    del kept
    return max((e.nbytes() for e in events), default=0), peak


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "float": {"label_smoothing": 0.1},
    "rows": {"label_smoothing": torch.full((N,), 0.1)},
    "learnable": {"label_smoothing": torch.tensor(0.1, requires_grad=True)},
    "by_class": {"label_smoothing": by_class(torch.full((K,), 0.1))},
    "prior": {"label_smoothing": 0.1, "prior": torch.full((K,), 1 / K)},
    "others": {"label_smoothing": 0.1, "off_target": "others"},
    "weight": {"label_smoothing": 0.1, "weight": torch.ones(K)},
    "sample": {"label_smoothing": 0.1, "weight": torch.ones(K), "weighting": "sample"},
    "sample_weight": {"sample_weight": torch.arange(N) % 2},
    "ignore_index": {"ignore_index": 3},
    "softcap": {"label_smoothing": 0.1, "softcap": 5.0},
    "z_loss": {"label_smoothing": 0.1, "z_loss": 0.1},
}


# A chunk of logits, and what is as long as the rows; float32 gradients are made in place.
@kernel
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", OPTIONS)
def test_needs_a_chunk_beyond_the_gradients(name: str, reduction: str) -> None:
    leaves, target = head()

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss(leaves, target, reduction=reduction, **OPTIONS[name]), leaves)

    largest, peak = allocations(step)
    assert largest <= max(linear.BUDGET, leaves[1].nbytes)
    chunks = 2 if "softcap" in OPTIONS[name] else 1  # a cap's slope is as large as the logits
    assert peak <= sum(x.nbytes for x in leaves) + chunks * linear.BUDGET + 200 * N


@kernel
def test_class_probabilities_are_not_copied() -> None:
    leaves, _ = head()
    target = torch.full((N, K), 1 / K)
    weight = torch.ones(K)
    for options in (
        {},
        {"weight": weight},
        {"weight": weight, "weighting": "sample"},
        {"sample_weight": torch.ones(N)},
    ):
        _, peak = allocations(
            lambda options=options: torch.autograd.grad(
                loss(leaves, target, label_smoothing=0.1, **options), leaves
            )
        )
        assert peak <= sum(x.nbytes for x in leaves) + 1.1 * linear.BUDGET + 200 * N


# The gradient of the weight is first summed in float32, and products are made and widened in pieces.
@kernel
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_short_types(dtype: torch.dtype, reduction: str) -> None:
    leaves, target = head(dtype)
    largest, peak = allocations(
        lambda: torch.autograd.grad(loss(leaves, target, reduction=reduction, label_smoothing=0.1), leaves)
    )
    assert largest <= 1.1 * linear.BUDGET  # a library may lay a short type out anew, with some padding
    assert peak <= sum(4 * x.numel() + x.nbytes for x in leaves) + 4 * linear.BUDGET + 200 * N


@kernel
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_under_autocast(reduction: str) -> None:
    leaves, target = head()

    def step() -> tuple[Tensor, ...]:
        with torch.autocast("cpu"):
            value = loss(leaves, target, reduction=reduction)
        return torch.autograd.grad(value, leaves)

    largest, _ = allocations(step)
    assert largest <= 1.1 * linear.BUDGET  # a library may lay a short type out anew, with some padding


# More features than rows or classes, so that what is as large as the input, or the weight, shows.
@kernel
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("wanted", ["nothing", "input", "linear_weight", "linear_bias"])
def test_builds_only_what_is_asked_for(wanted: str, reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n, d, k = 64, 512, 80
    monkeypatch.setattr(linear, "BUDGET", 4 * k * 4)
    leaves, target = head(n=n, d=d, k=k)
    asked = [
        x.requires_grad_(name == wanted)
        for x, name in zip(leaves, ("input", "linear_weight", "linear_bias"), strict=True)
        if name == wanted
    ]
    for x in leaves:
        x.requires_grad_(any(x is y for y in asked))

    def step() -> object:
        value = loss(leaves, target, reduction=reduction, label_smoothing=0.1)
        return torch.autograd.grad(value, asked) if asked else value

    largest, peak = allocations(step)
    rows = 4 * d * 4  # a chunk of the input
    assert largest <= max([linear.BUDGET, rows, *(x.nbytes for x in asked)])
    assert peak <= sum(x.nbytes for x in asked) + linear.BUDGET + rows + 200 * n


@kernel
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_builds_no_gradient_where_there_is_none(mode: Any, reduction: str) -> None:
    leaves, target = head(n=64, d=512, k=80)

    def step() -> Tensor:
        with mode():
            return loss(leaves, target, reduction=reduction, label_smoothing=0.1)

    _, peak = allocations(step)
    assert peak < leaves[0].nbytes + 64 * 80 * 4 + 200 * 64


# One that counts products: an accidental fourth costs a third of the time.
class Products(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            self.rows += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_reduced_loss_takes_three_products_a_chunk(reduction: str) -> None:
    leaves, target = head()
    with Products() as products:
        torch.autograd.grad(loss(leaves, target, reduction=reduction, label_smoothing=0.1), leaves)
    assert products.rows == 3 * N // ROWS


@pytest.mark.parametrize(
    ("rows", "row_bytes", "least", "budget", "expected"),
    [
        (10, 1, 3, 0, [3, 3, 3, 1]),
        (9, 1, 4, 0, [3, 3, 3]),
        (10, 4, 1, 12, [3, 3, 3, 1]),
        (10, 4, 1, 40, [10]),
        (10, 4, 1, 39, [5, 5]),
        (10, 4, 5, 12, [5, 5]),
        (0, 4, 1, 12, []),
        (3, 0, 1, 2, [2, 1]),
        (1, 100, 1, 0, [1]),
    ],
)
def test_chunks_are_even_and_keep_to_the_budget(
    rows: int, row_bytes: int, least: int, budget: int, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "LEAST", least)
    monkeypatch.setattr(linear, "BUDGET", budget)
    chunks = list(linear._chunks(rows, row_bytes))
    assert [chunk.stop - chunk.start for chunk in chunks] == expected
    assert [i for chunk in chunks for i in range(rows)[chunk]] == list(range(rows))


def arguments(**options: Any) -> tuple[Any, ...]:
    leaves, target = head(torch.float64, n=5, d=3, k=4)
    given: dict[str, Any] = {
        "softcap": None,
        "prior": None,
        "weight": None,
        "exclude_target": False,
        **options,
    }
    counted = torch.tensor([True, False, True, True, True])
    return (
        *leaves,
        given["softcap"],
        torch.float64,
        None,
        given.get("target", target),
        counted,
        given["prior"],
        given["weight"],
        given["exclude_target"],
    )


OPERATORS: dict[str, dict[str, Any]] = {
    "plain": {},
    "softcap": {"softcap": 2.0},
    "prior": {"prior": torch.full((4,), 0.25, dtype=torch.float64), "exclude_target": True},
    "weight": {"weight": torch.ones(4, dtype=torch.float64)},
    "soft": {"target": torch.full((5, 4), 0.25, dtype=torch.float64)},
}


@kernel
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # torch 2.14's check
def test_operators_are_as_torch_wants_them(name: str) -> None:
    given = arguments(**OPERATORS[name])
    torch.library.opcheck(torch.ops.labelsmooth.linear.default, given)
    grad = torch.randn(DIFFERENTIABLE, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    given = tuple(x.detach() if isinstance(x, Tensor) else x for x in given)
    for needs in ([True, True, True], [True, False, False], [False, True, False], [False, False, True]):
        torch.library.opcheck(torch.ops.labelsmooth.linear_backward.default, (grad, needs, *given))
        found = torch.ops.labelsmooth.linear_backward(grad, needs, *given)
        assert [x.shape for x in found] == [x.shape for x, need in zip(given, needs, strict=False) if need]


def test_operator_is_that_of_the_reference() -> None:
    given = arguments()
    leaves, measures = given[:3], Measures(*given[6:])
    found = torch.ops.labelsmooth.linear(*given)
    expected = reference.row_statistics(torch.nn.functional.linear(*leaves), measures)
    expected = torch.stack(expected[:STATISTICS])
    counted = measures.counted
    assert found.shape == (STATISTICS, 5)
    assert_close(found[:, counted], expected[:, counted])
    assert_close(
        torch.autograd.grad(found[:3, counted].square().sum(), leaves),
        torch.autograd.grad(expected[:3, counted].square().sum(), leaves),
    )
