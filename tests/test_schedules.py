"""Strengths by the class, by the sample and over time, against their definitions in plain Python."""

import copy
import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss
from labelsmooth.schedules import (
    ByClass,
    Schedule,
    by_class,
    by_counts,
    constant,
    cosine,
    delayed,
    drop_late,
    graduated,
    linear,
    warm_up,
)

# Each schedule, and the strength at time t. Up and down, below 0 and above 1, one step and none.
SCHEDULES: list[tuple[Schedule, Callable[[int], float]]] = [
    (constant(0.1), lambda t: 0.1),
    (constant(0), lambda t: 0.0),
    (linear(0.0, 0.3, 4), lambda t: 0.3 * min(t, 4) / 4),
    (linear(1.0, 0.0, 3), lambda t: 1 - min(t, 3) / 3),
    (linear(-2.0, 3.0, 1), lambda t: -2.0 if t == 0 else 3.0),
    (linear(0.5, 0.1, 0), lambda t: 0.1),
    (cosine(0.0, 0.3, 4), lambda t: 0.15 * (1 - math.cos(math.pi * min(t, 4) / 4))),
    (cosine(0.4, 0.2, 3), lambda t: 0.3 + 0.1 * math.cos(math.pi * min(t, 3) / 3)),
    (cosine(0.4, 0.2, 0), lambda t: 0.2),
    (warm_up(0.1, 5), lambda t: 0.1 * min(t, 5) / 5),
    (warm_up(-1.0, 2), lambda t: [0.0, -0.5, -1.0][min(t, 2)]),
    (delayed(-0.4, 3), lambda t: -0.4 if t >= 3 else 0.0),
    (delayed(0.1, 0), lambda t: 0.1),
    (drop_late(0.1, 2), lambda t: 0.1 if t < 2 else 0.0),
]
IDS = [schedule.description for schedule, _ in SCHEDULES]


@pytest.mark.parametrize(("schedule", "at"), SCHEDULES, ids=IDS)
def test_strength_at_each_time(schedule: Schedule, at: Callable[[int], float]) -> None:
    schedule = copy.deepcopy(schedule)
    place = schedule.eps.data_ptr()
    for t in range(8):
        assert_close(schedule.eps, torch.tensor(at(t)))
        assert schedule.time.item() == t
        assert schedule.eps.data_ptr() == place
        schedule.step()
    assert not schedule.eps.requires_grad


# The ends are exact, not only close: a strength of 1e-9 after smoothing is dropped would not be none.
@pytest.mark.parametrize("kind", [linear, cosine])
@pytest.mark.parametrize(("start", "end"), [(0.1, 0.0), (0.0, 1.0), (0.1, 1.0), (1.0, 0.3), (0.7, 1.0)])
def test_strength_stays_between_its_exact_ends(
    kind: Callable[[float, float, int], Schedule], start: float, end: float
) -> None:
    schedule = kind(start, end, 97)
    seen = []
    for _ in range(100):
        seen.append(schedule.eps.item())
        schedule.step()
    low, high = schedule.extremes
    assert (low, high) == (min(start, end), max(start, end))
    assert min(seen) == torch.tensor(low).item()
    assert max(seen) == torch.tensor(high).item()
    assert seen[0] == torch.tensor(start).item()
    assert set(seen[97:]) == {torch.tensor(end).item()}
    assert sorted(seen, reverse=start > end) == seen


@pytest.mark.parametrize(("schedule", "at"), SCHEDULES, ids=IDS)
def test_training_goes_on_where_it_was_saved(schedule: Schedule, at: Callable[[int], float]) -> None:
    saved, fresh = copy.deepcopy(schedule), copy.deepcopy(schedule)
    for _ in range(2):
        saved.step()
    assert list(saved.state_dict()) == ["time"]
    place = fresh.eps.data_ptr()
    fresh.load_state_dict(saved.state_dict())
    assert fresh.eps.data_ptr() == place
    for t in range(2, 7):
        assert_close(fresh.eps, torch.tensor(at(t)))
        fresh.step()


def test_state_is_loaded_through_an_outer_module() -> None:
    outer = nn.ModuleDict({"schedule": linear(0.0, 0.4, 4)})
    outer.load_state_dict({"schedule.time": torch.tensor(3)})
    schedule = outer["schedule"]
    assert isinstance(schedule, Schedule)
    assert_close(schedule.eps, torch.tensor(0.3))
    with pytest.raises(RuntimeError, match="Missing key"):
        outer.load_state_dict({})


def test_state_is_loaded_in_the_place_of_meta_tensors() -> None:
    with torch.device("meta"):
        schedule = linear(0.0, 0.4, 4)
    schedule.load_state_dict({"time": torch.tensor(3)}, assign=True)
    assert_close(schedule.eps, torch.tensor(0.3))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize(("schedule", "at"), SCHEDULES, ids=IDS)
def test_copies_are_equal_and_independent(
    schedule: Schedule, at: Callable[[int], float], clone: Callable[[Schedule], Schedule]
) -> None:
    schedule = copy.deepcopy(schedule)
    schedule.step()
    twin = clone(schedule)
    twin.step()
    assert_close([schedule.eps, twin.eps], [torch.tensor(at(1)), torch.tensor(at(2))])
    twin.load_state_dict({"time": torch.tensor(3)})
    assert_close([schedule.eps, twin.eps], [torch.tensor(at(1)), torch.tensor(at(3))])


def test_time_is_counted_in_whole_numbers_whatever_the_type() -> None:
    # bfloat16 cannot count beyond 256.
    schedule = linear(0.0, 1.0, 1000).to(torch.bfloat16)
    for _ in range(500):
        schedule.step()
    assert (schedule.time.item(), schedule.time.dtype, schedule.eps.dtype) == (
        500,
        torch.int64,
        torch.float32,
    )
    assert schedule.eps.item() == 0.5


def test_steps_compile_nothing_again() -> None:
    counter = CompileCounter()
    schedule = cosine(0.4, 0.0, 5)

    @torch.compile(backend=counter, fullgraph=True)
    def scaled(x: Tensor) -> Tensor:
        return x * schedule.eps

    x = torch.ones(2)
    for t in range(8):
        assert_close(scaled(x), x * 0.2 * (1 + math.cos(math.pi * min(t, 5) / 5)))
        schedule.step()
    assert counter.frame_count == 1


def test_a_step_compiles() -> None:
    schedule = linear(0.0, 0.4, 4)
    place = schedule.eps.data_ptr()
    torch.compile(schedule.step, backend="eager", fullgraph=True)()
    assert_close(schedule.eps, torch.tensor(0.1))
    assert schedule.eps.data_ptr() == place


def test_repr() -> None:
    assert_expected_inline(
        repr(nn.ModuleList([constant(0.1), linear(0, 0.1, 5), cosine(0.2, 0.1, 5)])),
        """\
ModuleList(
  (0): Schedule(constant(eps=0.1), now 0.1)
  (1): Schedule(linear(start=0, end=0.1, steps=5), now 0)
  (2): Schedule(cosine(start=0.2, end=0.1, steps=5), now 0.2)
)""",
    )
    assert_expected_inline(
        repr(nn.ModuleList([warm_up(0.1, 5), delayed(-0.4, 5), drop_late(0.1, 5)])),
        """\
ModuleList(
  (0): Schedule(warm_up(eps=0.1, steps=5), now 0)
  (1): Schedule(delayed(eps=-0.4, steps=5), now 0)
  (2): Schedule(drop_late(eps=0.1, steps=5), now 0.1)
)""",
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: constant(math.nan), "eps must be a finite number, got nan"),
        (lambda: constant(torch.tensor(0.1)), "eps must be a finite number, got tensor"),  # pyright: ignore[reportArgumentType]
        (lambda: linear(math.inf, 0.0, 1), "start must be a finite number, got inf"),
        (lambda: linear(0.0, -math.inf, 1), "end must be a finite number, got -inf"),
        (lambda: cosine(0.0, math.nan, 1), "end must be a finite number, got nan"),
        (lambda: warm_up(math.nan, 1), "eps must be a finite number, got nan"),
        (lambda: delayed(math.nan, 1), "eps must be a finite number, got nan"),
        (lambda: drop_late(math.inf, 1), "eps must be a finite number, got inf"),
    ],
)
def test_bad_schedules(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("steps", [-1, 2.0, True, torch.tensor(3)])
@pytest.mark.parametrize("make", [warm_up, delayed, drop_late, partial(linear, 0.0), partial(cosine, 0.0)])
def test_bad_steps(make: Callable[[float, Any], Schedule], steps: Any) -> None:
    message = f"steps must be an integer of at least 0, got {steps!r}"
    with pytest.raises(ValueError, match=re.escape(message)):
        make(0.1, steps)


COUNTS = [100, 7, 0, 40, 7]
SHAPES: list[tuple[str, Callable[[float], float]]] = [
    ("concave", lambda r: math.sin(math.pi / 2 * r)),
    ("linear", lambda r: r),
    ("convex", lambda r: 1 + math.sin(1.5 * math.pi + math.pi / 2 * r)),
    ("exponential", lambda r: r * r),
]


# Heads that are smoothed more than tails, as published, and less; from 0 to 1, where rounding may not lead
# out of the range; all the types that counts come in.
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("head", "tail"), [(0.4, 0.1), (0.0, 0.3), (1.0, 0.0), (0.0, 1.0), (0.2, 0.2)])
@pytest.mark.parametrize(("shape", "f"), SHAPES, ids=[shape for shape, _ in SHAPES])
def test_by_counts(
    shape: Any, f: Callable[[float], float], head: float, tail: float, dtype: torch.dtype
) -> None:
    strengths = by_counts(torch.tensor(COUNTS, dtype=dtype), head, tail, shape)
    assert isinstance(strengths, ByClass)
    expected = [tail + (head - tail) * f(n / 100) for n in COUNTS]
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert_close(strengths.eps, torch.tensor(expected, dtype=wide))


def test_the_power_of_by_counts() -> None:
    strengths = by_counts(torch.tensor([12, 2, 7]), 0.4, 0.1, "exponential", power=3)
    assert_close(strengths.eps, torch.tensor([0.4, 0.1, 0.1 + 0.3 / 8]))


def test_large_counts_keep_their_differences() -> None:
    # As float32 these are one and the same.
    counts = torch.tensor([2**30 + 2, 2**30 + 1, 2**30])
    assert_close(by_counts(counts, 0.2, 0.0, "linear").eps, torch.tensor([0.2, 0.1, 0.0]))


@pytest.mark.parametrize("counts", [[3, 3, 3], [5]])
@pytest.mark.parametrize("shape", [shape for shape, _ in SHAPES])
def test_balanced_classes_are_all_heads(counts: list[int], shape: Any) -> None:
    assert_close(by_counts(torch.tensor(counts), 0.3, 0.0, shape).eps, torch.full((len(counts),), 0.3))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"counts": [1, 2]}, "counts must be a tensor, got list"),
        ({"counts": torch.ones(2, 2)}, r"counts must have shape \(K,\), got \(2, 2\)"),
        ({"counts": torch.tensor(3)}, r"counts must have shape \(K,\), got \(\)"),
        ({"counts": torch.ones(0)}, r"counts must have shape \(K,\), got \(0,\)"),
        (
            {"counts": torch.tensor([True, False])},
            "counts must be integers or floating point, got torch.bool",
        ),
        ({"counts": torch.ones(2) * 1j}, "counts must be integers or floating point, got torch.complex64"),
        ({"counts": torch.tensor([3, -1])}, "counts must be finite and at least 0, got -1"),
        ({"counts": torch.tensor([3, math.nan])}, "counts must be finite and at least 0, got nan"),
        ({"counts": torch.tensor([3, math.inf])}, "counts must be finite and at least 0, got inf"),
        ({"counts": torch.zeros(3)}, "counts must not all be 0"),
        ({"head": 1.1}, r"head must lie in \[0, 1\], got 1.1"),
        ({"tail": -0.1}, r"tail must lie in \[0, 1\], got -0.1"),
        ({"shape": "exp"}, "shape must be one of 'concave', 'linear', 'convex', 'exponential', got 'exp'"),
        ({"power": 2.0}, "power requires shape=\"exponential\", got shape='concave'"),
        ({"shape": "exponential", "power": 0.0}, "power must be finite and above 0, got 0.0"),
        ({"shape": "exponential", "power": "2"}, "power must be a number, got str"),
    ],
)
def test_bad_by_counts(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_counts(**{"counts": torch.tensor([3, 1]), "head": 0.2, "tail": 0.0, **options})


def test_by_class_refuses_the_state_of_another_number_of_classes() -> None:
    strengths = by_class(torch.tensor([0.1, 0.2]))
    with pytest.raises(RuntimeError, match="size mismatch"):
        strengths.load_state_dict(by_class(torch.tensor([0.1, 0.2, 0.3])).state_dict())
    strengths.load_state_dict(by_class(torch.tensor([0.3, 0.4])).state_dict())
    assert_close(strengths.eps, torch.tensor([0.3, 0.4]))
    assert repr(strengths) == "ByClass(0.3 to 0.4, K=2)"


@pytest.mark.parametrize(
    ("eps", "message"),
    [
        ([0.1], "by_class: eps must be a tensor, got list"),
        (torch.tensor(0.1), r"by_class: eps must have shape \(K,\), got \(\)"),
        (torch.tensor([0.1, -math.inf]), r"by_class: eps must lie in \(-inf, inf\), got -inf"),
        (torch.tensor([0.1, math.nan]), r"by_class: eps must lie in \(-inf, inf\), got nan"),
    ],
)
def test_bad_by_class(eps: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_class(eps)


def test_a_parameter_by_class_is_learnt() -> None:
    eps = torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3]))
    criterion = CrossEntropyLoss(label_smoothing=by_class(eps))
    assert [*criterion.parameters()] == [eps]
    criterion(torch.eye(3), torch.tensor([0, 1, 1])).backward()
    assert eps.grad is not None
    assert eps.grad.ne(0).tolist() == [True, True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, "0.1"])
def test_strengths_over_time_are_finite(bad: Any) -> None:
    with pytest.raises(ValueError, match=f"start must be a finite number, got {bad!r}"):
        Schedule(bad, 0.1, 3, torch.square, "square")


# On each threshold, one number to both sides of it, and the ends.
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("thresholds", "strengths"),
    [
        ((0.3, 0.7), (0.0, 0.1, 0.3)),
        ((0.25, 0.5), (0.4, 0.0, 1.0)),
        ((0.5, 0.5), (0.0, 0.1, 0.2)),
        ((0, 1), (1, 0, 1)),
    ],
)
def test_graduated(
    thresholds: tuple[float, float], strengths: tuple[float, float, float], dtype: torch.dtype
) -> None:
    at = torch.tensor([0.0, *thresholds, 0.4, 1.0], dtype=torch.float64).to(dtype)
    up, down = torch.ones((), dtype=dtype), torch.zeros((), dtype=dtype)
    confidence = torch.stack([at, torch.nextafter(at, up), torch.nextafter(at, down)])
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    # A threshold is the number of that type that is nearest to it.
    low, high = torch.tensor(thresholds, dtype=torch.float64).to(wide).tolist()
    expected = [
        [strengths[0] if c < low else strengths[2] if c > high else strengths[1] for c in row]
        for row in confidence.double().tolist()
    ]
    assert_close(graduated(confidence, thresholds, strengths), torch.tensor(expected, dtype=wide))


def test_graduated_has_the_published_strengths_and_no_gradient() -> None:
    confidence = torch.tensor([0.29, 0.3, 0.5, 0.7, 0.71], requires_grad=True)
    eps = graduated(confidence)
    assert_close(eps, torch.tensor([0.0, 0.1, 0.1, 0.1, 0.3]))
    assert not eps.requires_grad
    assert graduated(torch.ones(0, 3)).shape == (0, 3)


def test_graduated_where_values_cannot_be_read() -> None:
    confidence = torch.tensor([-0.1, 0.2, math.nan, 0.8, 1.1])
    expected = torch.tensor([math.nan, 0.0, math.nan, 0.3, math.nan])
    compiled = torch.compile(graduated, backend="eager", fullgraph=True)
    assert_close(compiled(confidence), expected, equal_nan=True)
    assert_close(torch.vmap(graduated)(confidence), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 0.5}, "confidence must be a tensor, got float"),
        ({"confidence": torch.tensor([1])}, "confidence must be floating point, got torch.int64"),
        ({"confidence": torch.tensor([0.5, 1.5])}, r"confidence must lie in \[0, 1\], got 1.5"),
        ({"confidence": torch.tensor([math.nan])}, r"confidence must lie in \[0, 1\], got nan"),
        ({"thresholds": (0.7, 0.3)}, r"thresholds must not decrease, got \(0.7, 0.3\)"),
        ({"thresholds": (0.3,)}, r"thresholds must be 2 numbers, got \(0.3,\)"),
        ({"thresholds": 0.3}, "thresholds must be 2 numbers, got 0.3"),
        ({"thresholds": (-0.1, 0.5)}, r"thresholds must lie in \[0, 1\], got -0.1"),
        ({"strengths": (0.1, 0.2)}, r"strengths must be 3 numbers, got \(0.1, 0.2\)"),
        ({"strengths": (0.1, 0.2, 1.1)}, r"strengths must lie in \[0, 1\], got 1.1"),
        ({"strengths": (0.1, math.nan, 0.2)}, r"strengths must lie in \[0, 1\], got nan"),
        ({"strengths": (0.1, "0.2", 0.3)}, "strengths must be a number or a tensor, got str"),
    ],
)
def test_bad_graduated(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        graduated(**{"confidence": torch.tensor([0.5]), **options})
