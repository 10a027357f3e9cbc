"""Rows that are odd: no distribution, not counted, none at all; and labels that are out of range."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from labelsmooth.priors import PerSample
from tests.cases import INF, NAN, kernel, random
from tests.engines.private import (
    BLOCK,
    DIFFERENTIABLE,
    KINDS,
    Kind,
    Measures,
    answers,
    cross_entropy,
    dense,
    losses,
    total,
)

pytestmark = kernel

BAD_ROWS: dict[str, list[tuple[float, slice]]] = {
    **{f"NaN at {k}": [(NAN, slice(k, k + 1))] for k in (0, 1023, 1024, 1030, 2047, 2048, 2056)},
    "NaN block": [(NAN, slice(BLOCK, 2 * BLOCK))],
    "NaN block first": [(NAN, slice(0, BLOCK))],
    "NaN block last": [(NAN, slice(2 * BLOCK, None))],
    "NaN block before -inf": [(NAN, slice(0, BLOCK)), (-INF, slice(BLOCK, None))],
    "NaN block after -inf": [(-INF, slice(0, BLOCK)), (NAN, slice(BLOCK, 2 * BLOCK))],
    "NaN in a block of -inf": [(-INF, slice(0, BLOCK)), (NAN, slice(5, 6))],
    "NaN and -inf only": [(-INF, slice(None)), (NAN, slice(2000, 2001))],
    "all NaN": [(NAN, slice(None))],
    "all -inf": [(-INF, slice(None))],
    "inf first": [(INF, slice(0, 1))],
    "inf last": [(INF, slice(2056, 2057))],
    "inf at the target": [(INF, slice(3, 4))],
    "NaN at the target": [(NAN, slice(3, 4))],
    "inf and -inf": [(INF, slice(5, 6)), (-INF, slice(6, 7))],
    "two inf": [(INF, slice(5, 7))],
}


@pytest.mark.parametrize("what", BAD_ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_rows_without_a_distribution_are_nan(dtype: torch.dtype, what: str) -> None:
    K = 2 * BLOCK + 9
    z = random(3, K).to(dtype)
    clean = z.clone()
    for value, where in BAD_ROWS[what]:
        z[1, where] = value
    target = torch.tensor([1, 3, 5])
    soft = F.one_hot(target, K).float()
    lse = dense.forward(z, Measures(target, torch.ones(3, dtype=torch.bool)))[0]
    assert lse.isnan().tolist() == [False, True, False]
    options: list[tuple[Tensor, dict[str, Any]]] = [
        (target, {"engine": "dense"}),
        (target, {"engine": "dense", "weight": torch.ones(K), "off_target": "others"}),
        (soft, {"engine": "dense"}),
    ]
    for eps in (0.0, 0.1, 1.0):
        for y, chosen in options:
            loss, grad = losses(z, y, label_smoothing=eps, **chosen)
            expected, of_reference = losses(z, y, label_smoothing=eps, **{**chosen, "engine": "reference"})
            assert loss.isnan().tolist() == expected.isnan().tolist() == [False, True, False]
            assert grad[1].isnan().any()
            assert grad[1].isnan().equal(of_reference[1].isnan()) or grad[1].isnan().all()
            assert grad[::2].equal(losses(clean, y, label_smoothing=eps, **chosen)[1][::2])
        summed, grad = total(z, target, label_smoothing=eps)
        assert summed.isnan()
        assert grad[1].isnan().any()
        assert grad[::2].equal(total(clean, target, label_smoothing=eps)[1][::2])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rows_that_do_not_count_reach_nothing(kind: Kind, bad: float) -> None:
    z = random(4, 7).float()
    measures = kind.measures(z)
    counted = torch.tensor([True, False, True, False])
    grad = random(DIFFERENTIABLE, 4).float()
    expected = answers(dense, z, measures._replace(counted=counted), grad)
    z[1::2] = bad
    target = measures.target.clone()
    if kind.soft:
        target[1::2] = bad
    else:
        target[1], target[3] = -5, 2**40
    statistics, by_z = answers(dense, z, measures._replace(target=target, counted=counted), grad)
    assert statistics.equal(expected[0])
    assert by_z.equal(expected[1])
    assert not statistics[:, 1::2].any()
    assert not by_z[1::2].any()


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_ignored_rows_reach_no_mean(bad: float) -> None:
    z = random(4, 7)
    keep = [0, 2]
    target = torch.tensor([1, 6, 3, 6])
    expected = total(z[keep], target[keep], label_smoothing=0.1)
    z[1::2] = bad
    loss, grad = total(z, target, label_smoothing=0.1, ignore_index=6)
    assert loss.equal(expected[0])
    assert grad[keep].equal(expected[1])
    assert not grad[1::2].any()


@pytest.mark.parametrize("shape", [(0, 4), (0, 3, 4), (3, 0, 4)])
def test_no_rows(shape: tuple[int, ...]) -> None:
    for kind in (Kind(False, None, False, False), Kind(True, "vector", True, False)):
        z = torch.zeros(shape)
        rows = shape[:-1]
        measures = kind.measures(torch.zeros(1, 4))
        target = torch.zeros(shape) if kind.soft else torch.zeros(rows, dtype=torch.long)
        measures = measures._replace(target=target, counted=torch.ones(rows, dtype=torch.bool))
        statistics = dense.forward(z, measures)
        assert statistics.shape == (10, *rows)
        assert dense.backward(statistics[:3], z, measures, statistics).shape == shape


@pytest.mark.parametrize("target", [-1, 7, -100, 2**40, -(2**63) + 1])
@pytest.mark.parametrize("engine", [None, "dense"])
def test_target_out_of_range(engine: Any, target: int) -> None:
    z, targets = random(3, 7), torch.tensor([1, target, 2])
    words = rf"target must hold class indices in \[0, 7\).*, got {target}$"
    with pytest.raises(ValueError, match=words):
        dense.forward(z, Measures(targets, torch.ones(3, dtype=torch.bool)))
    for options in ({}, {"weight": torch.ones(7)}, {"reduction": "none"}):
        with pytest.raises(ValueError, match=words):
            cross_entropy(z, targets, label_smoothing=0.1, ignore_index=-99, engine=engine, **options)


def test_ignored_index_of_another_kind() -> None:
    z, target = random(3, 5), torch.tensor([0, 1, 2])
    expected = cross_entropy(z, target, label_smoothing=0.1, ignore_index=1)
    for one in (1.0, True, torch.tensor(1), np.int64(1), np.uint8(1)):
        assert cross_entropy(z, target, label_smoothing=0.1, ignore_index=one).equal(expected)
    with pytest.raises(OverflowError, match="too big"):
        cross_entropy(z, target, label_smoothing=0.1, ignore_index=2**64 + 1)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["reference", "dense"])
def test_a_prior_of_nan_is_seen(engine: Any) -> None:
    """Where nobody reads its values, it is not taken for one without mass."""
    z, target = random(2, 3).requires_grad_(), torch.tensor([0, 1])
    rows = torch.tensor([[0.5, NAN, 0.5], [0.2, 0.3, 0.5]], dtype=torch.float64)
    prior = PerSample(rows)
    compiled = torch.compile(cross_entropy, backend="eager")
    loss = compiled(z, target, label_smoothing=0.1, prior=prior, reduction="none", engine=engine)
    assert loss.isnan().tolist() == [True, False]
    (grad,) = torch.autograd.grad(loss.sum(), z)
    assert grad.isnan().any(-1).tolist() == [True, False]


def test_zeros_without_memory() -> None:
    z: Tensor = torch._efficientzerotensor((3, 4))  # pyright: ignore[reportPrivateImportUsage]
    target = torch.tensor([0, 1, 2])
    expected = cross_entropy(torch.zeros(3, 4), target, label_smoothing=0.1)
    assert cross_entropy(z, target, label_smoothing=0.1).equal(expected)
    assert cross_entropy(z, target, torch.ones(4), label_smoothing=0.1).equal(expected)
