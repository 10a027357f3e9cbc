"""The Triton engine gives the reference's numbers: in Triton's interpreter and, where there is one, on a GPU.

Whether Triton interprets or compiles is settled when it is first imported, and torch.compile may import it in
any test. So the interpreter has a process to itself, in which this file runs once more.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.engines.private import ABSENT, DTYPES, STATISTICS, in_rows, reference
from tests.engines.triton_cases import (
    BENT,
    BLOCK,
    FEW,
    FULL,
    FULL_BENT,
    FULL_FEW,
    FULL_SOFT,
    HARD,
    INF,
    INTERPRETED,
    NAN,
    PLAIN,
    ROWS,
    SOFT,
    assert_equals_reference,
    cotangent,
    gpu,
    logits,
    measures_for,
    named,
    of_tensors,
    triton,
)  # fmt: skip

pytestmark = pytest.mark.slow

compiled = pytest.mark.skipif(
    find_spec("triton") is None or INTERPRETED, reason="triton is not installed, or interprets"
)


@compiled
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::TestEngine"]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    run = subprocess.run(
        command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.fixture
def device() -> str:
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "BLOCK", BLOCK)


# Each is a view of memory whose other elements are NaN, and whether it can be read where it lies.
LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "one row": (lambda x: x[0, 0, 0, :5], True),
    "every other row": (lambda x: x[0, 0, ::2, :5], True),
    "two strides": (lambda x: x[0, :, 1:, :5], True),
    "rows exchanged": (lambda x: x[0, :, :, :5].transpose(0, 1), True),
    "three rows in one": (lambda x: x[:, :, :, 2:7], True),
    "one class": (lambda x: x[0, 0, :, 3:4], True),
    "three strides": (lambda x: x[:, 1:, 1:, :5], False),
    "classes apart": (lambda x: x[0, 0, :, ::2], False),
    "classes first": (lambda x: x[0, 0].T, False),
}

OUTSIDE = [-1, -100, 20, 2**31 - 1, 2**32 + 1, 2**62, -(2**32) + 1, ABSENT + 1]


class TestEngine:
    """Where it can serve: in the interpreter, or on a GPU."""

    __test__ = triton.absence() is None

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize(
        ("options", "dtype"),
        list(product(HARD + SOFT + FEW + ROWS + BENT, DTYPES[:1]))
        + list(product((PLAIN, FULL, FULL_SOFT, FULL_FEW, FULL_BENT), DTYPES[1:])),
        ids=named,
    )
    def test_every_option(self, device: str, options: dict[str, Any], dtype: torch.dtype) -> None:
        K = BLOCK + 5
        z = logits(8, K, dtype=dtype, device=device)
        measures = measures_for(z, **options)
        if not measures.soft:
            first = measures.target if measures.shares is None else measures.target[:, 0]
            first[:3] = torch.tensor([2, BLOCK - 1, BLOCK])
            first[7] = ABSENT
        z[1, ::2] = -INF  # the target is one of those that are left
        z[2, :BLOCK] = -INF  # the whole first block; the target is the next class
        z[3, BLOCK:] = -INF
        z[4] = -INF  # all but a class without prior, which falls back to the target
        z[4, 6] = 1.0
        z[5] = NAN
        measures.counted[5] = False
        z[6] += 1e4 if dtype != torch.bfloat16 else 0
        assert_equals_reference(z, measures)

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("classes", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 31, 4 * BLOCK])
    @pytest.mark.parametrize(
        ("rows", "options"),
        [(1, FULL_SOFT), (2, FULL), (2, FULL_BENT), (7, PLAIN)],
        ids=["1 row", "2 rows", "2 rows, bent", "7 rows"],
    )
    def test_every_size(self, device: str, rows: int, classes: int, options: dict[str, Any]) -> None:
        z = logits(rows, classes, device=device)
        assert_equals_reference(z, measures_for(z, **options))

    @pytest.mark.parametrize(
        "classes", [triton.BLOCK - 1, triton.BLOCK, triton.BLOCK + 1, 5003, 4 * triton.BLOCK]
    )
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=named)
    def test_blocks_of_their_real_size(self, device: str, classes: int, dtype: torch.dtype) -> None:
        z = logits(2, classes, dtype=dtype, device=device)
        assert_equals_reference(z, measures_for(z))
        assert_equals_reference(z, measures_for(z, prior="vector", weight=True, exclude=True))
        assert_equals_reference(z, measures_for(z, **FULL_BENT))

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_every_layout(self, device: str, layout: str) -> None:
        view, in_place = LAYOUTS[layout]
        memory = torch.full((2, 3, 3, 8), NAN, device=device)
        z = view(memory)
        z.copy_(logits(*z.shape))
        assert_equals_reference(z, measures_for(z))
        # Class probabilities have strides of their own, and so do the priors of the rows.
        other = z.clone()
        soft = measures_for(other, soft=True, prior="rows")
        target = view(torch.full_like(memory, NAN)).copy_(soft.target)
        assert_equals_reference(other, soft._replace(target=target))
        assert soft.prior is not None
        prior = view(torch.full_like(memory, NAN)).copy_(soft.prior)
        assert_equals_reference(other, soft._replace(prior=prior))
        assert (in_rows(z)[0] is z) == in_place

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_gradient_in_place(self, device: str, layout: str) -> None:
        memory = torch.full((2, 3, 3, 8), NAN, device=device)
        z = LAYOUTS[layout][0](memory)
        z.copy_(logits(*z.shape))
        outside = memory.isnan()
        assert_equals_reference(z, measures_for(z, **FULL_FEW), out=z)
        assert memory.isnan().equal(outside)
        # And into other memory than that of the logits.
        out = LAYOUTS[layout][0](torch.full_like(memory, NAN))
        other = logits(*z.shape, device=device)
        assert_equals_reference(other, measures_for(other), out=out)

    def test_repeated_rows(self, device: str) -> None:
        z = logits(2, 1, 5, device=device).expand(-1, 3, -1)
        assert in_rows(z)[0] is z
        assert_equals_reference(z, measures_for(z))

    def test_gradient_comes_back_in_out(self, device: str) -> None:
        z = logits(2, 5, device=device)
        measures = measures_for(z)
        statistics = triton.forward(z, measures)
        assert triton.backward(cotangent(z), z, measures, statistics, z) is z

    def test_other_tensors_may_be_strided(self, device: str) -> None:
        z = logits(4, 5, device=device)
        plain = measures_for(z, prior="matrix", weight=True)
        assert plain.prior is not None
        assert plain.weight is not None

        def apart(x: Tensor) -> Tensor:
            return torch.stack([x, torch.zeros_like(x)], -1)[..., 0]

        strided = of_tensors(apart, plain)
        statistics, grad = triton.forward(z, plain), cotangent(z)
        assert triton.forward(z, strided).equal(statistics)
        gradient = triton.backward(apart(grad), z, strided, apart(statistics))
        assert gradient.equal(triton.backward(grad, z, plain, statistics))
        assert_equals_reference(z, strided._replace(prior=plain.prior.T))

    def test_one_prior_for_all_rows(self, device: str) -> None:
        z = logits(3, 2, 5, device=device)
        vector = measures_for(z, prior="vector")
        assert vector.prior is not None
        repeated = vector._replace(prior=vector.prior.expand_as(z), per_row=True)
        assert triton.forward(z, repeated).equal(triton.forward(z, vector))

    def test_a_row_without_batch(self, device: str) -> None:
        z = logits(5, device=device)
        for options in (FULL_SOFT, FULL_FEW, FULL_BENT):
            one, rows = measures_for(z, **options), measures_for(z[None], **options)
            statistics = triton.forward(z, one)
            assert statistics.equal(triton.forward(z[None], rows)[:, 0])
            gradient = triton.backward(cotangent(z), z, one, statistics)
            naive = reference.backward(cotangent(z), z, one, statistics)
            torch.testing.assert_close(gradient, naive)

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("squared", [False, True])
    @pytest.mark.parametrize("first", [1, BLOCK - 1, BLOCK + 2])
    def test_first_of_the_largest_logits(self, device: str, first: int, squared: bool) -> None:
        z = logits(3, 3 * BLOCK, device=device)
        z[:, [first, first + 1, 2 * BLOCK + 5]] = 19.0
        measures = measures_for(z, margin=1.5, squared=squared, exclude=True)
        measures.target[1] = first
        assert_equals_reference(z, measures)
        statistics = triton.forward(z, measures)
        by_hinge = torch.zeros_like(cotangent(z))
        by_hinge[3] = 1.0
        gradient = triton.backward(by_hinge, z, measures, statistics)
        assert gradient[:, first].equal(statistics[9])
        assert not gradient[:, [first + 1, 2 * BLOCK + 5]].any()

    @pytest.mark.usefixtures("small_blocks")
    def test_hinge_and_mean_by_definition(self, device: str) -> None:
        z = logits(4, 20, dtype=torch.float64, device=device)
        z[1, 3:] = -INF
        measures = measures_for(z, margin=2.3, squared=True, spread=True, prior="rows", weight=True)
        assert measures.prior is not None
        assert measures.weight is not None
        found = triton.forward(z, measures).cpu()
        pi, w = measures.prior.cpu(), measures.weight.cpu()
        for i, row in enumerate(z.cpu()):
            valid = [k for k in range(20) if row[k] > -INF]
            mass = sum(pi[i, k] for k in valid)
            below = [row.max() - row[k] for k in valid]
            hinge = sum(
                pi[i, k] / mass * w[k] * max(d - 2.3, 0) ** 2 for k, d in zip(valid, below, strict=True)
            )
            slope = sum(
                pi[i, k] / mass * w[k] * 2 * max(d - 2.3, 0) for k, d in zip(valid, below, strict=True)
            )
            mean = sum(q * -d for q, d in zip(row.softmax(0)[valid], below, strict=True))
            for j, expected in ((3, hinge), (4, mean), (9, slope)):
                torch.testing.assert_close(found[j, i], torch.as_tensor(expected), rtol=1e-13, atol=0)

    @pytest.mark.parametrize("options", [FULL, FULL_SOFT, FULL_FEW, FULL_BENT, BENT[2]], ids=named)
    def test_gradcheck(self, device: str, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
        monkeypatch.setattr(triton, "BLOCK", 4)
        z = logits(1, 7, dtype=torch.float64, device=device).requires_grad_()
        measures = measures_for(z, **options)

        def differentiable(z: Tensor) -> tuple[Tensor, ...]:
            s = gpu.row_statistics(z, measures)
            # The gradients are those of logits measured from 0, but for the hinge's.
            top = s.z_max
            target_z, prior_z = s.target_z + s.target_mass * top, s.prior_z + s.prior_mass * top
            return s.lse + top, target_z, prior_z, s.hinge, s.model_z + top * measures.spread

        assert torch.autograd.gradcheck(differentiable, (z,))

    @pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5)])
    @pytest.mark.parametrize("options", [PLAIN, FULL_FEW, FULL_BENT], ids=named)
    def test_no_rows(self, device: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
        z = torch.empty(shape, device=device)
        measures = measures_for(z, **options)
        statistics = triton.forward(z, measures)
        assert statistics.shape == (STATISTICS, *shape[:-1])
        assert triton.backward(cotangent(z), z, measures, statistics).shape == shape

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("offset", [1e4, -1e4])
    def test_offset_costs_no_precision(self, device: str, offset: float) -> None:
        # Halves stay exact beside the offset, so that the truth is that of the logits without it.
        z = (2 * logits(3, 40, device=device)).round() / 2
        for options in (PLAIN, FULL, FULL_SOFT, FULL_FEW, FULL_BENT):
            measures = measures_for(z, **options)
            expected, found = triton.forward(z, measures), triton.forward(z + offset, measures)
            expected[8] += offset
            assert found.equal(expected)

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("options", [PLAIN, {"weight": True}, FULL, FULL_SOFT, FULL_BENT], ids=named)
    def test_masked_target(self, device: str, options: dict[str, Any]) -> None:
        z = logits(4, 40, device=device)
        measures = measures_for(z, **options)
        if not measures.soft:
            measures.target[:] = torch.tensor([1, 20, 3, 39])  # class 3 has weight 0: it loses nothing
        z[0, 1] = z[1, 20] = z[2, 3] = -INF
        z[3, :39] = -INF
        assert_equals_reference(z, measures)
        target_z = triton.forward(z, measures)[1]
        assert target_z[1] == -INF
        assert not target_z.isnan().any()

    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("options", [{"weight": True}, FULL], ids=named)
    def test_target_out_of_range(self, device: str, options: dict[str, Any]) -> None:
        z = logits(len(OUTSIDE) + 1, 20, device=device)
        measures = measures_for(z, **options)
        measures.target[1:] = torch.tensor(OUTSIDE)
        z[2, 0] = -INF
        statistics = triton.forward(z, measures)
        gradient = triton.backward(cotangent(z), z, measures, statistics)
        assert statistics[:, 1:].isnan().all()
        assert gradient[1:].isnan().all()
        first = measures.rows(slice(1))
        assert statistics[:, :1].equal(triton.forward(z[:1], first))
        assert gradient[0].isfinite().all()
        # Where rows do not count, neither does what is in them.
        measures.counted[1:] = False
        assert_equals_reference(z, measures._replace(target=measures.target.clamp(0, 19)))
        again = triton.forward(z, measures)
        assert not again[:, 1:].any()
        assert not triton.backward(cotangent(z), z, measures, again)[1:].any()
        assert not triton.backward(torch.full_like(cotangent(z), NAN), z, measures, again)[1:].any()

    @pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
    @pytest.mark.usefixtures("small_blocks")
    @pytest.mark.parametrize("options", [PLAIN, FULL, FULL_SOFT, FULL_FEW, FULL_BENT], ids=named)
    @pytest.mark.parametrize("at", [0, 2, BLOCK, 19])
    def test_nan_is_seen(self, device: str, options: dict[str, Any], at: int) -> None:
        z = logits(4, 20, device=device)
        measures = measures_for(z, **options)
        if not measures.soft:
            measures.target[:] = 2  # NaN in the excluded class is NaN nonetheless
        z[0, at] = NAN
        z[1] = -INF
        z[1, at] = NAN
        z[2] = -INF
        asked = [0, 1, 2, *[3] * (measures.margin is not None), *[4] * measures.spread, 8]
        statistics = triton.forward(z, measures)
        assert statistics[asked, :3].isnan().all()
        gradient = triton.backward(cotangent(z), z, measures, statistics)
        assert gradient[:3].isnan().all()
        assert statistics[:, 3].isfinite().all()
        assert gradient[3].isfinite().all()

    @pytest.mark.filterwarnings("ignore:.*encountered:RuntimeWarning")
    def test_infinite_logit_has_no_loss(self, device: str) -> None:
        z = logits(1, 5, device=device)
        z[0, 3] = INF
        assert triton.forward(z, measures_for(z))[0].isnan().all()

    @pytest.mark.usefixtures("small_blocks")
    def test_offsets_have_64_bits(self, device: str) -> None:
        # Two rows of a virtual memory of 2^31 elements and more, of which only the pages in use are there.
        K, stride = 40, 2**30
        memory = torch.empty(2 * stride + K, dtype=torch.float16, device=device)
        z = memory.as_strided((3, K), (stride, 1))
        z.copy_(logits(3, K))
        assert_equals_reference(z, measures_for(z), out=z)

    def test_what_it_does_not_serve(self, device: str) -> None:
        z = logits(2, 5, device=device)
        with pytest.raises(ValueError, match="it does not mix priors by class"):
            triton.forward(z, measures_for(z, soft=True, exclude=True))
        with pytest.raises(ValueError, match=r"it has no torch.float8_e5m2"):
            triton.forward(z.to(torch.float8_e5m2), measures_for(z))
