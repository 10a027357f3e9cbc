"""What every function of logits takes, and what it refuses by name."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from labelsmooth.calibration import (
    ReliabilityDisplay,
    accuracy,
    expected_calibration_error,
    fit_temperature,
    noise_floor,
    reliability,
)

inf, nan = math.inf, math.nan
Metric = Callable[..., Any]


def bins(logits: Any, labels: Any, **options: Any) -> list[list[float]]:
    r = reliability(logits, labels, **options)
    return torch.stack([r.count, r.confidence, r.accuracy]).nan_to_num(-1).tolist()


def drawn(logits: Any, labels: Any, **options: Any) -> list[list[float]]:
    r = ReliabilityDisplay.from_logits(logits, labels, temperature=2, **options).reliability
    return torch.stack([r.count, r.confidence, r.accuracy]).nan_to_num(-1).tolist()


def floor(logits: Any, labels: Any, **options: Any) -> float:
    return noise_floor(logits, draws=20, labels=labels, **options)


METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "reliability": bins,
    "ece": expected_calibration_error,
    "floor": floor,
    "temperature": fit_temperature,
    "display": drawn,
}
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def rows(N: int = 40, K: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, K, generator=generator)
    return logits, logits.softmax(-1).multinomial(1, generator=generator).squeeze(-1)


TYPES = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64"]


@every_metric
@pytest.mark.parametrize("dtype", TYPES)
def test_labels_of_any_integer_type(metric: Metric, dtype: str):
    logits, labels = rows()
    expected = metric(logits, labels)
    assert metric(logits, labels.to(getattr(torch, dtype))) == expected
    assert metric(logits.numpy(), labels.numpy().astype(dtype)) == expected


@every_metric
def test_arrays_and_lists(metric: Metric):
    logits, labels = rows()
    expected = metric(logits, labels)
    array = logits.numpy()
    read_only = array.copy()
    read_only.flags.writeable = False
    backward = np.ascontiguousarray(array[::-1])[::-1]
    for given in (
        array,
        read_only,
        backward,
        logits.tolist(),
        [row.numpy() for row in logits],
        logits.double(),
    ):
        assert metric(given, labels) == expected
        assert metric(given, labels.tolist()) == expected
    assert np.array_equal(array, logits.numpy())


@every_metric
def test_other_memory_and_gradients(metric: Metric):
    logits, labels = rows()
    expected = metric(logits, labels)
    before = logits.double()
    assert metric(logits.t().contiguous().t(), labels) == expected
    assert metric(logits.clone().requires_grad_(), labels) == expected
    assert metric(before, labels) == expected
    assert torch.equal(before, logits.double())  # read in its own type, and not written to
    for dtype in (torch.float16, torch.bfloat16):
        assert metric(logits.to(dtype), labels) == metric(logits.to(dtype).float(), labels)


@every_metric
def test_classes_come_last(metric: Metric):
    logits, labels = rows()
    assert metric(logits.view(5, 8, 4), labels.view(5, 8)) == metric(logits, labels)
    shifted = logits.view(5, 8, 4)[:, :-1], labels.view(5, 8)[:, 1:]
    assert metric(*shifted) == metric(shifted[0].reshape(-1, 4), shifted[1].reshape(-1))
    with pytest.raises(
        ValueError, match=r"labels .* shape \(5, 4\), .*; classes come last: .*movedim\(1, -1\)$"
    ):
        metric(logits.view(5, 8, 4).movedim(-1, 1), labels.view(5, 8))


@every_metric
def test_ignored_rows_are_left_out_of_everything(metric: Metric):
    logits, labels = rows()
    kept = torch.arange(40) % 3 != 0
    expected = metric(logits[kept], labels[kept])
    # What lies in a row that is left out is nobody's business.
    spoilt = torch.where(kept.unsqueeze(-1), logits, nan)
    assert metric(spoilt, labels.where(kept, -100)) == expected
    assert (
        metric(spoilt.view(5, 8, 4), labels.where(kept, 255).view(5, 8).byte(), ignore_index=255) == expected
    )
    assert metric(spoilt, labels.where(kept, 9), ignore_index=np.int64(9)) == expected
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\), got -100 to 3$"):
        metric(logits, labels.where(kept, -100), ignore_index=None)
    with pytest.raises(
        ValueError, match=r"labels must lie in \[0, 4\), got -1 to 3; .*ignore_index=-100 are left"
    ):
        metric(logits, labels.where(kept, -1))
    with pytest.raises(
        ValueError, match="labels must name a class in at least one row, got ignore_index=-100"
    ):
        metric(logits, torch.full((40,), -100))
    for bad in (1.0, "0", True):
        with pytest.raises(ValueError, match="ignore_index must be an integer or None, got"):
            metric(logits, labels, ignore_index=bad)


@every_metric
@pytest.mark.parametrize("bad", [[nan, 0, 0, 0], [0, inf, 0, 0], [0, -inf, nan, 0], [-inf] * 4], ids=str)
def test_rows_that_are_not_finite_are_named(metric: Metric, bad: list[float]):
    value = next(x for x in ("nan", "inf", "-inf") if any(str(float(z)) == x for z in bad))
    rule = r"^logits must be finite, or -inf for some of a row's classes, got"
    N, K = 100_000, 4  # in the last chunk
    logits, labels = rows(N, K)
    logits[N - 7] = torch.tensor(bad, dtype=torch.float32)
    with pytest.raises(ValueError, match=f"{rule} {value} in row {N - 7}$"):
        metric(logits, labels)
    with pytest.raises(ValueError, match=rf"{rule} {value} in row \({N // 10 - 1}, 3\)$"):
        metric(logits.view(-1, 10, K), labels.view(-1, 10))
    labels[0] = -100  # the row's number is the caller's
    with pytest.raises(ValueError, match=f"{rule} {value} in row {N - 7}$"):
        metric(logits, labels)


@every_metric
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_probabilities_are_named(metric: Metric, dtype: torch.dtype):
    logits, labels = rows()
    probabilities = logits.softmax(-1).to(dtype)
    with pytest.raises(
        ValueError, match=r"^logits must be .*, got probabilities: .*; pass probabilities.log\(\)$"
    ):
        metric(probabilities, labels)
    expected = metric(probabilities.double().log(), labels)
    assert metric(probabilities.double().log().tolist(), labels) == expected
    # Here and there a row may look like one.
    probabilities[3, 0] += 0.5
    metric(probabilities, labels)


def test_a_label_without_a_probability_is_wrong():
    logits, labels = torch.tensor([[0.0, -inf, 1.0]]), torch.tensor([1])
    assert accuracy(logits, labels) == 0
    assert expected_calibration_error(logits, labels) == pytest.approx(1 / (1 + math.exp(-1)))


@every_metric
def test_one_class_says_nothing(metric: Metric):
    metric(torch.ones(3, 1), torch.zeros(3).long())


LOGITS, LABELS = rows(6)
BAD: dict[str, tuple[Any, Any, str]] = {
    "no logits": (
        None,
        LABELS,
        r"logits must be a tensor, an array or a nested list of numbers, got NoneType",
    ),
    "words": ([["a"]], LABELS, r"logits must be a tensor, an array .*, got list"),
    "ragged": ([[1.0, 2.0], [1.0]], LABELS, r"logits must be a tensor, an array .*, got list"),
    "batches": (
        [LOGITS[:3], LOGITS[3:]],
        LABELS,
        r"logits must be .* got list .*; join batches with torch.cat$",
    ),
    "objects": (np.array([[None]]), LABELS, r"logits must be a tensor, an array .*, got ndarray"),
    "sparse": (LOGITS.to_sparse(), LABELS, r"logits must be dense"),
    "complex": (LOGITS.to(torch.complex64), LABELS, r"logits must hold real numbers"),
    "integer array": (
        np.zeros((6, 4), int),
        LABELS,
        r"logits must be floating point .*, got torch.int64 \(6, 4\)",
    ),
    "one dimension": (LOGITS[:, 0], LABELS, r"logits must be .* \(N, K\), got torch.float32 \(6,\)"),
    "float labels": (
        LOGITS,
        LABELS.float(),
        r"labels must be integers .*; pass labels.long\(\)$",
    ),
    "one-hot labels": (
        LOGITS,
        torch.eye(4)[LABELS],
        r"labels must be .*; for one-hot labels pass labels.argmax",
    ),
    "a column": (LOGITS, LABELS[:, None], r"labels must be .*, got .* \(6, 1\); pass labels.squeeze\(-1\)$"),
    "boolean array": (LOGITS, LABELS.numpy() > 1, r"labels must be integers .*, got torch.bool"),
    "devices": (LOGITS, LABELS.to("meta"), r"labels must be on the logits' device cpu, got meta$"),
}


@every_metric
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_read_is_named(metric: Metric, case: str):
    logits, labels, message = BAD[case]
    if metric is floor and labels is None:
        return
    with pytest.raises(ValueError, match=message):
        metric(logits, labels)


COUNTS: dict[str, Callable[[Any], object]] = {
    "num_bins": lambda n: reliability(LOGITS, LABELS, n),
    "num_bins of the error": lambda n: expected_calibration_error(LOGITS, LABELS, n),
    "num_bins of the floor": lambda n: noise_floor(LOGITS, n, draws=2),
    "num_bins of the display": lambda n: ReliabilityDisplay.from_logits(LOGITS, LABELS, num_bins=n),
    "draws": lambda n: noise_floor(LOGITS, draws=n),
    "seed": lambda n: noise_floor(LOGITS, draws=2, seed=n),
}


@pytest.mark.parametrize("name", COUNTS)
def test_whole_numbers(name: str):
    for bad in (2.0, True, "3", None, np.float32(2), [2]):
        with pytest.raises(ValueError, match=f"^{name.partition(' ')[0]} must be an integer, got "):
            COUNTS[name](bad)
    if name != "seed":
        with pytest.raises(ValueError, match="must be at least 1, got 0"):
            COUNTS[name](0)
    COUNTS[name](np.uint8(3))
    assert noise_floor(LOGITS, seed=-1) != noise_floor(LOGITS, seed=1)
    with pytest.raises(ValueError, match="seed must fit into 64 bits"):
        noise_floor(LOGITS, seed=2**64)


@pytest.mark.parametrize("temperature", [0, -1.0, nan, inf, "2", None, True, torch.ones(2)], ids=str)
def test_a_temperature_is_a_number_above_0(temperature: Any):
    with pytest.raises(ValueError, match=r"^temperature must be "):
        ReliabilityDisplay.from_logits(LOGITS, LABELS, temperature=temperature)


@pytest.mark.parametrize(
    "temperature", [2, 2.0, np.float32(2), torch.tensor([2.0], requires_grad=True)], ids=str
)
def test_a_temperature_of_any_numeric_type(temperature: Any):
    r = ReliabilityDisplay.from_logits(LOGITS, LABELS, temperature=temperature).reliability
    assert r.ece == expected_calibration_error(LOGITS / 2, LABELS)


def test_a_temperature_does_not_round_short_logits():
    short = LOGITS.bfloat16()
    r = ReliabilityDisplay.from_logits(short, LABELS, temperature=1.7).reliability
    assert r.ece == expected_calibration_error(short.float() / 1.7, LABELS)


@pytest.mark.slow
def test_the_import_brings_no_array_or_picture():
    code = "import sys, json; before = set(sys.modules); import torch; torch_own = set(sys.modules)\n"
    code += "import labelsmooth.calibration; print(json.dumps(sorted(set(sys.modules) - torch_own)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {name.partition(".")[0] for name in json.loads(run.stdout)} & {"numpy", "scipy", "matplotlib"}
