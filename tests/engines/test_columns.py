"""Rows that the kernel computes beside one another: of maps, and of few classes."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import functional, mixed, priors
from labelsmooth.formulas import ConfidencePenalty, Focal, MaxSup
from tests.cases import INF, NAN, kernel
from tests.engines.private import DTYPES, SIDE_BY_SIDE, Measures, dense, in_columns

pytestmark = kernel

cross_entropy: Any = functional.cross_entropy  # which takes options from dictionaries here
TILE, FEW = 128, 24  # of native/columns.h
# Some smaller than a tile, with a tile's end in them, more than one; one too small for maps.
MAPS = [(2, 4, 4), (3, 17), (1, SIDE_BY_SIDE), (2, TILE), (2, 131, 3), (2, 5)]
ROWS = [(1,), (TILE - 1,), (TILE,), (2 * TILE + 1,)]


def problem(K: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Logits with masked classes, and targets some of which are ignored."""
    generator = torch.Generator().manual_seed(K)
    N, *d = shape
    z = (4 * torch.randn(N, K, *d, generator=generator)).to(dtype)
    target = torch.randint(K, (N, *d), generator=generator)
    masked = torch.rand(z.shape, generator=generator) < 0.2
    z = z.masked_fill(masked & (torch.arange(K).view(-1, *[1] * len(d)) != target.unsqueeze(1)), -INF)
    return z, target.masked_fill(torch.rand(target.shape, generator=generator) < 0.2, -100)


def found(z: Tensor, target: Any, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, that without smoothing, and the gradient."""
    leaf = z.detach().requires_grad_()
    loss, nll = cross_entropy(leaf, target, return_nll=True, **options)
    return loss.detach(), nll, torch.autograd.grad(loss.sum(), leaf)[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [*MAPS, *ROWS], ids=str)
@pytest.mark.parametrize("K", [1, 2, 5, FEW, FEW + 1, 200])
def test_equals_reference(K: int, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    z, target = problem(K, shape, dtype)
    prior, weight = torch.linspace(1, 3, K).double().softmax(-1), torch.linspace(0, 2, K).double()
    for eps in (0.0, 0.1, 1.0):
        for options in (
            {},
            {"reduction": "none"},
            {"prior": prior, "reduction": "sum"},
            {"weight": weight, "reduction": "sum"},
        ):
            options = {"label_smoothing": eps, **options}
            ours = found(z, target, engine="dense", **options)
            truth = found(z.double(), target, engine="reference", **options)
            naive = found(z, target, engine="reference", **options)
            for a, b, c in zip(ours, truth, naive, strict=True):
                assert a.dtype == c.dtype
                if dtype == torch.float64:  # in which the truth is naive too
                    assert_close(a, b, rtol=1e-12, atol=1e-13, equal_nan=True)
                    continue
                assert a.isnan().equal(b.isnan())
                room = (
                    4
                    * torch.finfo(a.dtype).eps
                    * (1 + float(b.masked_fill(b.isinf(), 0).nan_to_num().abs().max()))
                )
                assert error(a, b) <= 2 * error(c, b) + room


def error(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b).masked_fill(a == b, 0).nan_to_num().abs().max())


def test_a_gradient_lies_as_its_map() -> None:
    z, target = problem(5, (2, 6, 7))
    whole = torch.rand(2, 5, 6, 7).double().softmax(1)
    cases: list[dict[str, Any]] = [
        {},
        {"weight": torch.ones(5)},
        {"formula": MaxSup()},
        {"formula": ConfidencePenalty()},
        {"off_target": "others"},
        {"prior": torch.eye(5)},
        {"prior": priors.per_sample(whole)},
        {"prior": priors.neighbourhood(target)},
    ]
    for target_given in (target, mixed(target, target.flip(0), 0.3)):
        for options in cases:
            if target_given is not target and not {"off_target", "prior"}.isdisjoint(options):
                continue
            options = {"label_smoothing": 0.1, "reduction": "none", **options}
            ours = found(z, target_given, engine="dense", **options)
            assert ours[2].is_contiguous()
            assert_close(ours, found(z, target_given, engine="reference", **options))
    short = z.bfloat16()
    neighbours = {"label_smoothing": 0.1, "prior": priors.neighbourhood(target)}
    assert found(short, target, engine="dense", **neighbours)[2].is_contiguous()


@pytest.mark.parametrize(
    "change",
    [
        lambda z: z.contiguous(memory_format=torch.channels_last),
        lambda z: z.transpose(2, 3),
        lambda z: z[:, :, ::2],
        lambda z: z[:, ::2],
        lambda z: z[:1].expand(3, -1, -1, -1),
        lambda z: z[:, :, :1, :1].expand(-1, -1, 6, 8),
        lambda z: z[:, :, :0],
        lambda z: z[:0],
    ],
)
def test_other_layouts(change: Any) -> None:
    z = change(torch.randn(2, 6, 8, 10, generator=torch.Generator().manual_seed(0)))
    target = torch.zeros(z.size(0), *z.shape[2:], dtype=torch.long)
    for options in ({"reduction": "sum"}, {"weight": torch.ones(z.size(1)), "reduction": "none"}):
        ours = found(z, target, label_smoothing=0.1, engine="dense", **options)
        assert_close(ours, found(z, target, label_smoothing=0.1, engine="reference", **options))


LEAST = torch.finfo(torch.float32).min
ODD = {
    "NaN": [NAN, 0, 0, 0, 0],
    "all NaN": [NAN] * 5,
    "all -inf": [-INF] * 5,
    "inf": [0, INF, 0, 0, 0],
    "two inf": [INF, INF, 0, 0, 0],
    "masked target": [-INF, 1, 2, 3, 4],
    "masked others": [1, -INF, -INF, -INF, -INF],
    "very far apart": [0, LEAST, LEAST, LEAST, LEAST],
    "far below": [LEAST, 0, LEAST, -INF, LEAST],
    "equal": [3, 3, 3, 3, 3],
}


@pytest.mark.parametrize("shape", [(20, 20), (2 * TILE,)], ids=["map", "rows"])
@pytest.mark.parametrize("row", ODD.values(), ids=list(ODD))
def test_odd_rows(row: list[float], shape: tuple[int, ...]) -> None:
    """Alone among others, which know nothing of it; and ignored."""
    z, target = torch.zeros(5, *shape), torch.ones(shape, dtype=torch.long)
    z[1] = 1
    at = (3, 7)[: len(shape)]
    z[(slice(None), *at)] = torch.tensor(row, dtype=torch.float32)
    target[at] = 0
    z = z.movedim(0, 1).contiguous() if len(shape) == 2 else z.T.contiguous()
    around = torch.ones(shape, dtype=torch.bool)
    around[at] = False
    for eps in (0.0, 0.1, 1.0):
        for options in ({"reduction": "sum"}, {"weight": torch.ones(5), "reduction": "none"}):
            options = {"label_smoothing": eps, **options}
            ours, expected = (found(z, target, engine=e, **options) for e in ("dense", "reference"))
            assert_close(ours[:2], expected[:2], equal_nan=True)
            by_z, of_reference = (g.movedim(1, -1) for g in (ours[2], expected[2]))
            assert_close(by_z[around], of_reference[around])
            assert by_z[at].isnan().any() == of_reference[at].isnan().any()
            if not of_reference[at].isnan().any():
                assert_close(by_z[at], of_reference[at])
            ignored = found(z, target.masked_fill(~around, -100), engine="dense", **options)
            assert all(x.isfinite().all() for x in ignored)
            assert not ignored[2].movedim(1, -1)[at].any()


def test_targets_out_of_range() -> None:
    for shape in ((2, 20, 20), (2 * TILE,)):
        z, target = torch.zeros(shape[0], 5, *shape[1:]), torch.zeros(shape, dtype=torch.long)
        for bad in (5, -1):
            target[-1] = bad
            for weight in (None, torch.ones(5)):
                with pytest.raises(
                    ValueError, match=rf"target must hold class indices in \[0, 5\).*, got {bad}"
                ):
                    cross_entropy(z, target, weight)


def test_logarithms() -> None:
    """Of the sums from 1 to K, of which lse is one."""
    below = torch.cat([torch.linspace(-20, 0, 20_001), torch.full((100,), -INF)])
    for K in (2, 3, 7, FEW):
        z = torch.zeros(len(below), K).index_fill(1, torch.arange(1, K), 0.0)
        z[:, 1:] = below.unsqueeze(1)
        measures = Measures(
            torch.zeros(len(below), dtype=torch.long), torch.ones(len(below), dtype=torch.bool)
        )
        truth = torch.log1p((K - 1) * below.double().exp())
        error = (dense.forward(z, measures)[0].double() - truth).abs()
        # The sum is rounded K times, to numbers of at most K; its logarithm once more.
        assert (error <= 2**-24 * (K + truth)).all()


def test_a_map_is_read_where_it_lies() -> None:
    z = torch.zeros(2, 5, 6, 7)
    assert in_columns(z.movedim(1, -1)) == (42, 210, 1)
    assert in_columns(z) is None
    assert in_columns(z.movedim(1, -1).contiguous()) is None
    assert in_columns(torch.zeros(2, 5).T) is None


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # torch 2.14's check
def test_operator() -> None:
    z = torch.randn(2, 5, 4, 5).movedim(1, -1).requires_grad_()
    measures = Measures(
        torch.randint(5, (2, 4, 5)), torch.ones(2, 4, 5, dtype=torch.bool), torch.ones(5) / 5, torch.rand(5)
    )
    torch.library.opcheck(torch.ops.labelsmooth.dense.default, (z, *measures))


@pytest.mark.slow
def test_compiled() -> None:
    z, target = torch.randn(2, 5, 4, 5, requires_grad=True), torch.randint(5, (2, 4, 5))
    for options in ({"weight": torch.ones(5)}, {"formula": Focal()}, {"formula": MaxSup()}):
        options = {"label_smoothing": 0.1, **options}
        compiled: Any = torch.compile(cross_entropy, fullgraph=True, backend="aot_eager")
        loss = compiled(z, target, **options)
        expected = cross_entropy(z, target, **options)
        assert_close(loss, expected)
        assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))
