"""Nothing is as wide as the classes but the gradient, of a head nothing but a chunk; and nothing unasked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from labelsmooth import by_class, functional, mixed, priors
from labelsmooth.formulas import ConfidencePenalty, ForwardCorrection, MaxSup
from tests import oracle
from tests.cases import REDUCTIONS, chunks, gradients, kernel, needs_chunks

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

# The reference, which serves where there is no kernel, makes copies, and needs autograd.
pytestmark = kernel


def allocations(call: Callable[[], object]) -> tuple[list[int], int]:
    """The sizes of the blocks that a call asks for, from the largest, and the most it held at once beyond
    what was there before, in bytes."""
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
    return sorted((e.nbytes() for e in events if e.nbytes() > 0), reverse=True), peak


WIDE = 5000
LOGITS: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight": {"weight": torch.ones(WIDE)},
    "sample": {"weight": torch.ones(WIDE), "weighting": "sample"},
    "prior": {"prior": torch.full((WIDE,), 1 / WIDE)},
    "MaxSup": {"formula": MaxSup()},
    "ConfidencePenalty": {"formula": ConfidencePenalty()},
    "ForwardCorrection": {"formula": ForwardCorrection()},
    "z_loss": {"z_loss": 0.1},
}
TARGETS = {
    "hard": torch.arange(8),
    "mixed": mixed(torch.arange(8), torch.arange(8) // 2, torch.linspace(0, 1, 8)),
}


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", LOGITS)
def test_nothing_as_wide_as_the_classes_but_the_gradient(name: str, target: str, reduction: str) -> None:
    z = torch.zeros(8, WIDE, requires_grad=True)
    options = {"label_smoothing": 0.1, "reduction": reduction, **LOGITS[name]}
    (first, second, *_), _ = allocations(
        lambda: torch.autograd.grad(cross_entropy(z, TARGETS[target], **options).sum(), z)
    )
    assert first == z.nbytes
    assert second < z.nbytes / 2  # the check of a prior makes a row of its own


@pytest.mark.parametrize(
    "options", [{}, LOGITS["weight"] | {"reduction": "none"}], ids=["at once", "operator"]
)
def test_rows_that_are_strided_are_not_copied(options: dict[str, Any]) -> None:
    whole = torch.randn(2, 5, WIDE + 1, generator=torch.Generator().manual_seed(0))
    z = whole[:, :-1, :-1].requires_grad_()
    target = torch.zeros(2, 4, dtype=torch.long)

    def forward() -> Tensor:
        return cross_entropy(z.transpose(1, 2), target, label_smoothing=0.1, engine="dense", **options)

    with torch.no_grad():
        assert allocations(forward)[0][0] < 4 * WIDE
    grad = torch.ones_like(forward())
    sizes, _ = allocations(lambda: torch.autograd.grad(forward(), z, grad))
    assert [size for size in sizes if size >= 4 * WIDE] == [4 * WIDE * 8]


@pytest.mark.parametrize("weight", [None, torch.ones(64)], ids=["at once", "operator"])
def test_maps_are_not_copied(weight: Tensor | None) -> None:
    z, target = torch.zeros(2, 64, 50, 50, requires_grad=True), torch.zeros(2, 50, 50, dtype=torch.long)
    (first, second, *_), _ = allocations(
        lambda: torch.autograd.grad(cross_entropy(z, target, weight, label_smoothing=0.1), z)
    )
    assert first == z.nbytes
    assert second < z.nbytes / 2


MANY = 100_000


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "options",
    [{}, {"off_target": "others"}, {"weight": torch.ones(MANY)}, {"z_loss": 0.1}],
    ids=["plain", "others", "weight", "z_loss"],
)
def test_few_of_many_classes(options: dict[str, Any], reduction: str) -> None:
    """The prior of a row costs what it names, and means what it would over all classes."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, MANY, generator=generator).requires_grad_()
    classes = torch.randint(MANY, (4, 8), generator=generator)
    prior = priors.per_sample(torch.rand(4, 8, generator=generator), classes)
    target = torch.tensor([0, 5, MANY - 1, 7])
    options = {"label_smoothing": 0.3, "prior": prior, "reduction": reduction, **options}

    def step() -> tuple[Tensor, list[Tensor]]:
        loss = cross_entropy(z, target, **options)
        return loss, gradients(loss, [z])

    (first, second, *_), _ = allocations(step)
    assert first == z.nbytes
    assert second < z.nbytes / 8
    exact = z.detach().double().requires_grad_()
    expected, _ = oracle.cross_entropy(exact, target, **options)
    loss, grads = step()
    assert_close(loss, expected.float())
    assert_close(grads, [x.float() for x in gradients(expected, [exact])])


N, D, K, ROWS = 256, 8, 2000, 16
CHUNK = ROWS * K * 4
ROW = torch.arange(N)
HEAD: dict[str, dict[str, Any]] = {
    "plain": {},
    "float": {"label_smoothing": 0.1},
    "rows": {"label_smoothing": torch.full((N,), 0.1)},
    "learnable": {"label_smoothing": torch.tensor(0.1, requires_grad=True)},
    "by_class": {"label_smoothing": by_class(torch.full((K,), 0.1))},
    "prior": {"label_smoothing": 0.1, "prior": torch.full((K,), 1 / K)},
    "others": {"label_smoothing": 0.1, "off_target": "others"},
    "weight": {"label_smoothing": 0.1, "weight": torch.ones(K)},
    "sample": {"label_smoothing": 0.1, "weight": torch.ones(K), "weighting": "sample"},
    "sample_weight": {"sample_weight": ROW % 2},
    "ignore_index": {"ignore_index": 3},
    "softcap": {"label_smoothing": 0.1, "softcap": 5.0},
    "z_loss": {"label_smoothing": 0.1, "z_loss": 0.1},
    "mixed": {"label_smoothing": 0.1, "target": mixed(ROW, ROW // 2, torch.linspace(0, 1, N))},
    "few": {"label_smoothing": 0.1, "prior": priors.per_sample(torch.ones(N, 8), ROW[:, None] + ROW[:8])},
}


def head(
    dtype: torch.dtype = torch.float32, n: int = N, d: int = D, k: int = K
) -> tuple[list[Tensor], Tensor]:
    """Input, weight and bias; and a target."""
    generator = torch.Generator().manual_seed(0)
    leaves = [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in ((n, d), (k, d), (k,))]
    return leaves, torch.randint(k, (n,), generator=generator)


def loss(leaves: list[Tensor], target: Any, rows: int = ROWS, **options: Any) -> Tensor:
    hidden, weight, bias = leaves
    return linear_cross_entropy(hidden, weight, target, linear_bias=bias, **chunks(rows), **options).sum()


def size(leaves: list[Tensor]) -> int:
    return sum(x.nbytes for x in leaves)


# A chunk of logits, and what is as long as the rows; float32 gradients are made in place.
@needs_chunks
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("name", HEAD)
def test_a_head_needs_a_chunk_beyond_the_gradients(name: str, reduction: str) -> None:
    leaves, target = head()
    options = {"target": target, "reduction": reduction, **HEAD[name]}
    (largest, *_), peak = allocations(lambda: torch.autograd.grad(loss(leaves, **options), leaves))
    assert largest <= max(CHUNK, leaves[1].nbytes)
    many = 2 if "softcap" in HEAD[name] else 1  # a cap's slope is as large as the logits
    by_row = 64 * 16 if name == "few" else 200  # what the few classes of a row have
    assert peak <= size(leaves) + many * CHUNK + by_row * N


@needs_chunks
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": torch.ones(K)},
        {"weight": torch.ones(K), "weighting": "sample"},
        {"sample_weight": torch.ones(N)},
    ],
    ids=["plain", "weight", "sample", "sample_weight"],
)
def test_class_probabilities_are_not_copied(options: dict[str, Any]) -> None:
    leaves, _ = head()
    target = torch.full((N, K), 1 / K)
    _, peak = allocations(
        lambda: torch.autograd.grad(loss(leaves, target, label_smoothing=0.1, **options), leaves)
    )
    assert peak <= size(leaves) + 1.1 * CHUNK + 200 * N


def half_precision_block(dtype: torch.dtype) -> float:
    """The largest block of a half-precision chunk: the chunk, or its copy on a CPU without such products."""
    x, weight, out = (torch.zeros(*shape, dtype=dtype) for shape in ((ROWS, D), (K, D), (ROWS, K)))
    copies, _ = allocations(lambda: torch.mm(x, weight.T, out=out))
    return 1.1 * max(out.nbytes, *copies, 0)


# The gradient of the weight is first summed in float32, and products are made and widened in pieces.
@needs_chunks
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_short_types(dtype: torch.dtype, reduction: str) -> None:
    leaves, target = head(dtype)
    (largest, *_), peak = allocations(
        lambda: torch.autograd.grad(loss(leaves, target, reduction=reduction, label_smoothing=0.1), leaves)
    )
    assert largest <= max(half_precision_block(dtype), *(4 * x.numel() for x in leaves))
    assert peak <= sum(4 * x.numel() + x.nbytes for x in leaves) + 4 * CHUNK + 200 * N


@needs_chunks
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_under_autocast(reduction: str) -> None:
    leaves, target = head()

    def step() -> tuple[Tensor, ...]:
        with torch.autocast("cpu"):
            value = loss(leaves, target, reduction=reduction)
        return torch.autograd.grad(value, leaves)

    (largest, *_), _ = allocations(step)
    assert largest <= max(half_precision_block(torch.bfloat16), *(x.nbytes for x in leaves))


# More features than rows or classes, so that what is as large as the input, or the weight, shows.
@needs_chunks
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("wanted", [None, 0, 1, 2], ids=["nothing", "input", "linear_weight", "linear_bias"])
def test_builds_only_what_is_asked_for(wanted: int | None, reduction: str) -> None:
    n, d, k, rows = 64, 512, 80, 4
    leaves, target = head(n=n, d=d, k=k)
    for i, x in enumerate(leaves):
        x.requires_grad_(i == wanted)
    asked = [] if wanted is None else [leaves[wanted]]

    def step() -> object:
        value = loss(leaves, target, rows, reduction=reduction, label_smoothing=0.1)
        return torch.autograd.grad(value, asked) if asked else value

    (largest, *_), peak = allocations(step)
    chunk, of_input = rows * k * 4, rows * d * 4
    assert largest <= max([chunk, of_input, *(x.nbytes for x in asked)])
    assert peak <= size(asked) + chunk + of_input + 200 * n


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_builds_no_gradient_where_there_is_none(mode: Any, reduction: str) -> None:
    leaves, target = head(n=64, d=512, k=80)

    def step() -> Tensor:
        with mode():
            return loss(leaves, target, reduction=reduction, label_smoothing=0.1)

    _, peak = allocations(step)
    assert peak < leaves[0].nbytes + 64 * 80 * 4 + 200 * 64
