"""The numbers of a study against plain loops, and its intervals against a plain bootstrap."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean, geometric_mean

import numpy as np
import pytest
import torch
from scipy.stats import norm, t
from torch import Tensor

from labelsmooth.calibration import noise_floor
from labelsmooth.study.analysis.figures import METRICS, Metric, Setting
from labelsmooth.study.analysis.summary import p_value, summarise
from labelsmooth.study.trials.files import Job, Outcome

from . import made_up
from .made_up import spelled

EPS, SEEDS = [0.0, 0.1, 0.3], [0, 1, 2, 3]
ARMS = list(map(spelled, EPS))
Outcomes = Mapping[Job, Outcome]


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    return made_up.outcomes(EPS, SEEDS)


@pytest.fixture(scope="module")
def setting(outcomes: Outcomes) -> Setting:
    return summarise("name", "description", outcomes, ARMS, SEEDS)


# One row at a time: what each number means. z is a list of logits, y a class.


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(v - max(z)) for v in z]
    return [power / sum(powers) for power in powers]


def rows_of(pair: tuple[Tensor, Tensor], T: float = 1.0) -> list[tuple[float, float, float]]:
    """(confidence, right or wrong, NLL) of each row."""
    rows = []
    for z, y in zip((pair[0].double() / T).tolist(), pair[1].tolist(), strict=True):
        p = softmax(z)
        rows.append((max(p), float(z.index(max(z)) == y), -math.log(p[y])))
    return rows


def ece(rows: list[tuple[float, float, float]]) -> float:
    gaps: dict[int, float] = {}
    for sure, right, _ in rows:
        b = max(math.ceil(sure * 15), 1)
        gaps[b] = gaps.get(b, 0.0) + sure - right
    return sum(map(abs, gaps.values())) / len(rows)


def mean_accuracy(pair: tuple[Tensor, Tensor]) -> float:
    return fmean(right for _, right, _ in rows_of(pair))


def memorised(run: Outcome) -> float:
    assert run.train is not None
    assert run.clean is not None
    (logits, labels), clean = run.train, run.clean
    fitted = [
        z.index(max(z)) == y
        for z, y, c in zip(logits.tolist(), labels.tolist(), clean.tolist(), strict=True)
        if y != c
    ]
    return sum(fitted) / len(fitted)


def train_gap(run: Outcome) -> float:
    assert run.train is not None
    return mean_accuracy(run.train) - mean_accuracy(run.test)


MEANINGS: dict[Metric, Callable[[Outcome], float]] = {
    "accuracy": lambda run: mean_accuracy(run.test),
    "nll": lambda run: fmean(nll for _, _, nll in rows_of(run.test)),
    "nll_scaled": lambda run: fmean(nll for _, _, nll in rows_of(run.test, run.temperature)),
    "ece": lambda run: ece(rows_of(run.test)),
    "ece_scaled": lambda run: ece(rows_of(run.test, run.temperature)),
    "confidence_gap": lambda run: fmean(sure - right for sure, right, _ in rows_of(run.test)),
    "train_gap": train_gap,
    "memorised": memorised,
}


def test_every_metric_has_a_meaning():
    assert MEANINGS.keys() == METRICS.keys()


@pytest.mark.parametrize("metric", METRICS)
def test_values_and_paired_differences_equal_a_loop(metric: Metric, outcomes: Outcomes, setting: Setting):
    hard = fmean(MEANINGS[metric](outcomes[Job("hard", seed)]) for seed in SEEDS)
    assert setting.hard.differences == {}
    for arm, eps in zip(setting.arms, EPS, strict=True):
        assert arm.name == spelled(eps)
        expected = fmean(MEANINGS[metric](outcomes[Job(spelled(eps), seed)]) for seed in SEEDS)
        assert arm.values[metric].mean == pytest.approx(expected, abs=1e-12)
        if eps:
            assert arm.differences[metric].mean == pytest.approx(expected - hard, abs=1e-12)


def test_temperature_noise_floor_and_what_chooses_equal_a_loop(outcomes: Outcomes, setting: Setting):
    for arm in setting.arms:
        runs = [outcomes[Job(arm.name, seed)] for seed in SEEDS]
        temperatures = [run.temperature for run in runs]
        assert arm.temperature == pytest.approx(geometric_mean(temperatures))
        validation = [
            fmean(nll for _, _, nll in rows_of(run.val, T)) for run, T in zip(runs, temperatures, strict=True)
        ]
        assert arm.validation_nll == pytest.approx(fmean(validation))
        assert arm.best_seed == validation.index(min(validation))
        # Of the ECE that is reported with it: the mean of one floor for each seed. By chance, 5 % apart.
        floors = [noise_floor(run.test[0], seed=7) for run in runs]
        assert arm.noise_floor == pytest.approx(fmean(floors), rel=0.1)
        scaled = [noise_floor(run.test[0] / T, seed=7) for run, T in zip(runs, temperatures, strict=True)]
        assert arm.noise_floor_scaled == pytest.approx(fmean(scaled), rel=0.1)


def test_eps_is_chosen_by_hard_label_nll_after_temperature(outcomes: Outcomes):
    # As trained, logits nine times too large have the worst NLL by far; a temperature repairs that. Hard
    # targets are the best throughout, and no choice.
    def with_validation(strengths: Mapping[str, tuple[float, float]]) -> Setting:
        runs = {}
        for job, run in outcomes.items():
            sharpness, scale = strengths[job.arm]
            labels = run.val[1]
            noise = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(job.seed)).double()
            logits = noise + sharpness * torch.nn.functional.one_hot(labels, 4)
            runs[job] = replace(run, val=(scale * logits, labels))
        return summarise("", "", runs, ARMS, SEEDS)

    hard, first, second = ARMS
    assert with_validation({hard: (9, 1), first: (2, 9), second: (1, 1)}).chosen.name == first
    assert with_validation({hard: (9, 1), first: (1, 1), second: (2, 9)}).chosen.name == second


def test_the_setting_says_what_was_compared(setting: Setting, outcomes: Outcomes):
    assert (setting.name, setting.description) == ("name", "description")
    assert (setting.seeds, setting.test_rows) == (4, 80)
    first = outcomes[Job("hard", 0)]
    assert first.train is not None
    assert first.clean is not None
    assert setting.flipped == pytest.approx(
        fmean(float(a != b) for a, b in zip(first.train[1].tolist(), first.clean.tolist(), strict=True))
    )


def without(outcomes: Outcomes, *fields: str) -> dict[Job, Outcome]:
    return {job: replace(run, **dict.fromkeys(fields)) for job, run in outcomes.items()}


def test_what_a_fit_does_not_return_is_not_made_up(outcomes: Outcomes):
    bare = summarise("", "", without(outcomes, "train", "clean"), ARMS, SEEDS)
    assert bare.flipped is None
    for arm in bare.arms:
        assert METRICS.keys() - arm.values.keys() == {"train_gap", "memorised"}

    unknown = summarise("", "", without(outcomes, "clean"), ARMS, SEEDS)
    assert unknown.flipped is None
    for arm in unknown.arms:
        assert METRICS.keys() - arm.values.keys() == {"memorised"}


def test_nothing_is_memorised_where_nothing_is_flipped(outcomes: Outcomes):
    clean = {job: replace(run, clean=run.train[1]) for job, run in outcomes.items() if run.train}
    setting = summarise("", "", clean, ARMS, SEEDS)
    assert setting.flipped == 0
    assert "memorised" not in setting.hard.values
    assert "train_gap" in setting.hard.values


# An independent bootstrap: draw seeds, draw rows, look the numbers up.


def table(outcomes: Outcomes, eps: float, metric: Metric) -> np.ndarray:
    """(seeds, rows)"""
    field = {"accuracy": 1, "nll": 2}[metric]
    return np.array([[row[field] for row in rows_of(outcomes[Job(spelled(eps), s)].test)] for s in SEEDS])


def widened(resampled: float, mean: float) -> float:
    """Few seeds: a resampled mean moves too little, by Student's t and by sqrt((n - 1) / n)."""
    n = len(SEEDS)
    return mean + (resampled - mean) * t.ppf(0.975, n - 1) / norm.ppf(0.975) * np.sqrt(n / (n - 1))


def bootstrap(x: np.ndarray, *, seeds: bool = True, rows: bool = True) -> tuple[float, float]:
    """The 95 % interval of the mean; held fast is what is not resampled."""
    rng = np.random.default_rng(1)
    S, N = x.shape
    means = []
    for _ in range(4000):
        s = rng.integers(S, size=S) if seeds else np.arange(S)
        r = rng.integers(N, size=N) if rows else np.arange(N)
        means.append(widened(x[s][:, r].mean(), x[:, r].mean()))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_intervals_equal_a_bootstrap_of_seeds_and_rows(metric: Metric, outcomes: Outcomes, setting: Setting):
    hard, smoothed = (table(outcomes, eps, metric) for eps in (0.0, 0.3))
    pairs = {
        "value": (smoothed, setting.arms[2].values[metric]),
        # Paired: the same seeds and the same rows are drawn for both.
        "difference": (smoothed - hard, setting.arms[2].differences[metric]),
    }
    for x, estimate in pairs.values():
        low, high = bootstrap(x)
        # The ends of two bootstraps of 2000 and 4000 differ by a 40th of the width, or three times that.
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.075 * (high - low))
        assert estimate.low < estimate.mean < estimate.high
    # The test would see it if only seeds, or only rows, were drawn; few seeds, widened, count for most.
    for only in ({"rows": False}, {"seeds": False}):
        low, high = bootstrap(smoothed, **only)
        value = setting.arms[2].values[metric]
        assert high - low < 0.9 * (value.high - value.low)


def test_ece_intervals_equal_a_bootstrap(outcomes: Outcomes, setting: Setting):
    rng = np.random.default_rng(2)
    runs = [rows_of(outcomes[Job("ls:eps=0.1", seed)].test) for seed in SEEDS]
    hard = [rows_of(outcomes[Job("hard", seed)].test) for seed in SEEDS]
    values, differences = [], []
    for _ in range(400):
        chosen, drawn = rng.integers(len(SEEDS), size=len(SEEDS)), rng.integers(80, size=80)
        value, less = (np.array([ece([run[r] for r in drawn]) for run in x]) for x in (runs, hard))
        values.append(widened(value[chosen].mean(), value.mean()))
        differences.append(widened((value - less)[chosen].mean(), (value - less).mean()))
    arm = setting.arms[1]
    for replicates, estimate in ((values, arm.values["ece"]), (differences, arm.differences["ece"])):
        low, high = np.quantile(replicates, [0.025, 0.975])
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.12 * float(high - low))


# How sure a difference is.


@pytest.mark.parametrize("degrees", [1, 4, 30])
@pytest.mark.parametrize("mean", [0.5, 2.0, 8.0])
def test_p_of_one_variance_alone_is_the_textbooks(mean: float, degrees: int):
    assert p_value(mean, 1.0, 0.0, degrees) == pytest.approx(2 * norm.sf(mean))
    assert p_value(-mean, 0.0, 1.0, degrees) == pytest.approx(2 * t.sf(mean, degrees))
    between = sorted((2 * norm.sf(mean), 2 * t.sf(mean, degrees)))
    assert between[0] <= p_value(mean, 0.5, 0.5, degrees) <= between[1]


def test_p_is_one_of_no_difference_and_as_good_as_nothing_of_a_sure_one():
    assert p_value(0.0, 1.0, 1.0, 4) == pytest.approx(1.0)
    assert p_value(0.0, 0.0, 0.0, 4) == pytest.approx(1.0)
    assert p_value(0.1, 0.0, 0.0, 4) < 1e-40
    assert p_value(1e9, 1.0, 0.0, 4) < 1e-40


def test_p_is_the_level_at_which_the_interval_touches_0(outcomes: Outcomes, setting: Setting):
    arm = setting.arms[2]
    for metric in ("accuracy", "nll", "nll_scaled", "ece"):
        d = arm.differences[metric]
        assert (d.p < 0.05) == (not d.low <= 0 <= d.high)


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_p_comes_from_the_variances_of_a_bootstrap(metric: Metric, outcomes: Outcomes, setting: Setting):
    x = table(outcomes, 0.3, metric) - table(outcomes, 0.0, metric)
    rng = np.random.default_rng(3)
    S, N = x.shape
    rows, both = [], []
    for _ in range(4000):
        s, r = rng.integers(S, size=S), rng.integers(N, size=N)
        rows.append(x[:, r].mean())
        both.append(widened(x[s][:, r].mean(), rows[-1]))
    students = t.ppf(0.975, S - 1) / norm.ppf(0.975)
    seeds = (np.var(both) - np.var(rows)) / students**2
    expected = p_value(float(x.mean()), float(np.var(rows)), float(seeds), S - 1)
    assert setting.arms[2].differences[metric].p == pytest.approx(expected, rel=0.2)


def width(setting: Setting) -> float:
    estimate = setting.arms[1].differences["nll"]
    return estimate.high - estimate.low


def test_more_rows_and_more_seeds_narrow_the_interval():
    few = made_up.outcomes([0.0, 0.1], range(3), rows=40)
    more_rows = made_up.outcomes([0.0, 0.1], range(3), rows=640)
    more_seeds = made_up.outcomes([0.0, 0.1], range(24), rows=40)
    widths = [
        width(summarise("", "", runs, ARMS[:2], sorted({job.seed for job in runs})))
        for runs in (few, more_rows, more_seeds)
    ]
    assert widths[1] < widths[0] / 1.5
    assert widths[2] < widths[0] / 1.5


def test_equal_arms_differ_by_exactly_nothing(outcomes: Outcomes):
    same = {Job(arm, seed): outcomes[Job("hard", seed)] for arm in ARMS[:2] for seed in SEEDS}
    setting = summarise("", "", same, ARMS[:2], SEEDS)
    for metric, estimate in setting.arms[1].differences.items():
        assert (estimate.mean, estimate.low, estimate.high) == (0, 0, 0), metric
    assert setting.arms[1].values == setting.hard.values


def test_the_numbers_are_the_same_each_time_and_leave_the_generator_alone(outcomes: Outcomes):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert summarise("", "", outcomes, ARMS, SEEDS) == summarise("", "", outcomes, ARMS, SEEDS)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_order_of_seeds_of_ones_own(outcomes: Outcomes):
    # best_seed is a seed, not a place in the list.
    moved = {Job(job.arm, job.seed + 10): run for job, run in outcomes.items()}
    plain = summarise("", "", outcomes, ARMS, SEEDS)
    shifted = summarise("", "", moved, ARMS, [seed + 10 for seed in SEEDS])
    assert [arm.best_seed for arm in shifted.arms] == [arm.best_seed + 10 for arm in plain.arms]
