"""Ratios, verdicts and rows from measured times and bytes, without torch."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cases import Allocator, Case, Entrant, Goal, Load


@dataclass(frozen=True, slots=True)
class Measurement:
    """An entrant's time in ms for each round, its bytes and page faults; empty if it failed."""

    entrant: Entrant
    times: tuple[float, ...] = ()
    peak: int = 0
    gradients: int = 0
    faults: int = 0
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A goal and its figure: None if an entrant is missing or the sizes are not the goal's."""

    case: str
    goal: Goal
    figure: float | None
    met: bool | None


def quantiles(times: Sequence[float]) -> tuple[float, float, float]:
    """The 20 %, 50 % and 80 % quantiles."""
    if len(times) == 1:
        return times[0], times[0], times[0]
    fifths = statistics.quantiles(times, n=5, method="inclusive")
    return fifths[0], statistics.median(times), fifths[3]


def time_ratio(times: Sequence[float], against: Sequence[float]) -> float:
    """The median of the ratios within each round, since a slow round slows both."""
    return statistics.median(a / b for a, b in zip(times, against, strict=True))


def peak_ratio(bytes_: int, against: int) -> float | None:
    """The ratio of the peaks; None if the other peak is 0."""
    return bytes_ / against if against > 0 else None


def by_label(measurements: Sequence[Measurement]) -> dict[str, Measurement]:
    """The measurements without a failure, by label."""
    return {m.entrant.label: m for m in measurements if m.failure is None}


def figure(goal: Goal, measurements: Sequence[Measurement]) -> float | None:
    found = by_label(measurements)
    ours = found.get(goal.entrant)
    if ours is None:
        return None
    if goal.against is None:
        return peak_ratio(ours.peak, ours.gradients)
    other = found.get(goal.against)
    if other is None:
        return None
    match goal.quantity:
        case "time":
            return time_ratio(ours.times, other.times)
        case "peak":
            return peak_ratio(ours.peak, other.peak)
        case "peak beyond the gradients":
            return peak_ratio(ours.peak - ours.gradients, other.peak - other.gradients)


def judge(
    case: Case,
    measurements: Sequence[Measurement],
    *,
    device: str,
    load: Load,
    allocator: Allocator,
    quick: bool,
) -> list[Judged]:
    """The goals for this device, load and allocator. A quick run judges none, as its sizes are smaller."""
    judged = []
    for goal in case.goals:
        if (goal.device, goal.load, goal.allocator) == (device, load, allocator):
            value = figure(goal, measurements)
            met = None if quick or value is None else value <= goal.most
            judged.append(Judged(case.name, goal, value, met))
    return judged


def rows(
    case: Case, measurements: Sequence[Measurement], judged: Sequence[Judged], facts: dict[str, object]
) -> list[dict[str, object]]:
    """A row of JSON for each measurement and each goal, with the facts about the run."""
    measured = [_measurement_row(case, m, by_label(measurements)) | facts for m in measurements]
    return measured + [_goal_row(j) | facts for j in judged]


def _measurement_row(case: Case, m: Measurement, found: dict[str, Measurement]) -> dict[str, object]:
    size, base = m.entrant.size, found.get(m.entrant.baseline)
    row: dict[str, object] = {
        "kind": "measurement",
        "case": case.name,
        "provider": m.entrant.label,
        "mode": "forward+backward" if m.entrant.provider.is_loss else "floor",
        "N": size.rows,
        "K": size.classes,
        "D": size.features,
        "side": size.side,
        "dtype": str(case.dtype).removeprefix("torch."),
        "eps": m.entrant.provider.eps,
        "baseline": m.entrant.baseline,
    }
    if m.failure is not None:
        return row | {"failure": m.failure}
    low, middle, high = quantiles(m.times)
    return row | {
        "ms": middle,
        "ms_p20": low,
        "ms_p80": high,
        "ratio": base and time_ratio(m.times, base.times),
        "peak_bytes": m.peak,
        "gradient_bytes": m.gradients,
        "page_faults": m.faults,
        "peak_ratio": base and peak_ratio(m.peak, base.peak),
        "ms_rounds": m.times,
    }


def _goal_row(judged: Judged) -> dict[str, object]:
    goal = judged.goal
    return {
        "kind": "goal",
        "case": judged.case,
        "provider": goal.entrant,
        "quantity": goal.quantity,
        "against": goal.against or "its gradients",
        "figure": judged.figure,
        "goal": goal.most,
        "met": judged.met,
    }
