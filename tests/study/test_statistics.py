"""The numbers of a study against plain loops, and its intervals against the textbook and simulated truth."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from statistics import fmean, geometric_mean
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import t
from torch import Tensor

from labelsmooth.calibration import noise_floor
from labelsmooth.study.analysis.comparisons import adjust, holm
from labelsmooth.study.analysis.figures import Setting
from labelsmooth.study.analysis.intervals import crossed
from labelsmooth.study.analysis.summary import analyse
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.arms.table import ARMS as ARMS_BY_NAME
from labelsmooth.study.trials.files import Job, Outcome

from . import made_up
from .made_up import spelled

EPS, SEEDS = [0.0, 0.1, 0.3], [0, 1, 2, 3]
ARMS = list(map(spelled, EPS))
Outcomes = Mapping[Job, Outcome]


def summarise(*arguments: Any) -> Setting:
    return analyse(*arguments).setting


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


MEANINGS: dict[str, Callable[[Outcome], float]] = {
    "accuracy": lambda run: mean_accuracy(run.test),
    "nll": lambda run: fmean(nll for _, _, nll in rows_of(run.test)),
    "nll_scaled": lambda run: fmean(nll for _, _, nll in rows_of(run.test, run.temperature or 0)),
    "ece": lambda run: ece(rows_of(run.test)),
    "ece_scaled": lambda run: ece(rows_of(run.test, run.temperature or 0)),
    "confidence_gap": lambda run: fmean(sure - right for sure, right, _ in rows_of(run.test)),
    "train_gap": train_gap,
    "memorised": memorised,
}


@pytest.mark.parametrize("metric", MEANINGS)
def test_values_and_paired_differences_equal_a_loop(metric: str, outcomes: Outcomes, setting: Setting):
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
        temperatures = [run.temperature or 0 for run in runs]
        assert arm.temperature == pytest.approx(geometric_mean(temperatures))
        validation = [
            fmean(nll for _, _, nll in rows_of(run.validation, T))
            for run, T in zip(runs, temperatures, strict=True)
        ]
        assert arm.validation_nll == pytest.approx(fmean(validation))
        assert arm.best_seed == validation.index(min(validation))
        # Of the ECE that is reported with it: the mean of one floor for each seed. By chance, 5 % apart.
        floors = [noise_floor(run.test[0], seed=7) for run in runs]
        assert arm.floors["ece"] == pytest.approx(fmean(floors), rel=0.1)
        scaled = [noise_floor(run.test[0] / T, seed=7) for run, T in zip(runs, temperatures, strict=True)]
        assert arm.floors["ece_scaled"] == pytest.approx(fmean(scaled), rel=0.1)


@pytest.mark.slow
def test_eps_is_chosen_by_hard_label_nll_after_temperature(outcomes: Outcomes):
    # As trained, logits nine times too large have the worst NLL by far; a temperature repairs that. Hard
    # targets are the best throughout, and no choice.
    def with_validation(strengths: Mapping[str, tuple[float, float]]) -> Setting:
        runs = {}
        for job, run in outcomes.items():
            sharpness, scale = strengths[job.arm]
            labels = run.validation[1]
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
    assert (setting.validation_rows, setting.num_classes) == (60, 4)
    first = outcomes[Job("hard", 0)]
    assert first.train is not None
    assert first.clean is not None
    assert setting.flipped == pytest.approx(
        fmean(float(a != b) for a, b in zip(first.train[1].tolist(), first.clean.tolist(), strict=True))
    )


def without(outcomes: Outcomes, *fields: str) -> dict[Job, Outcome]:
    return {job: replace(run, **dict.fromkeys(fields)) for job, run in outcomes.items()}


@pytest.mark.slow
def test_what_a_fit_does_not_return_is_not_made_up(outcomes: Outcomes, setting: Setting):
    bare = summarise("", "", without(outcomes, "train", "clean"), ARMS, SEEDS)
    assert bare.flipped is None
    for arm in bare.arms:
        assert setting.hard.values.keys() - arm.values.keys() == {"train_gap", "memorised"}

    unknown = summarise("", "", without(outcomes, "clean"), ARMS, SEEDS)
    assert unknown.flipped is None
    for arm in unknown.arms:
        assert setting.hard.values.keys() - arm.values.keys() == {"memorised"}


def test_nothing_is_memorised_where_nothing_is_flipped(outcomes: Outcomes):
    clean = {job: replace(run, clean=run.train[1]) for job, run in outcomes.items() if run.train}
    setting = summarise("", "", clean, ARMS, SEEDS)
    assert setting.flipped == 0
    assert "memorised" not in setting.hard.values
    assert "train_gap" in setting.hard.values


# Intervals: an analysis of variance, written out.


def textbook(x: np.ndarray) -> tuple[float, float, float]:
    """(low, high, p) of the mean of (seeds, rows), from sums of squares by hand."""
    S, N = x.shape
    mean = x.mean()
    seeds = sum(N * (x[s].mean() - mean) ** 2 for s in range(S)) / (S - 1)
    rows = sum(S * (x[:, r].mean() - mean) ** 2 for r in range(N)) / (N - 1)
    total = ((x - mean) ** 2).sum()
    both = (total - seeds * (S - 1) - rows * (N - 1)) / ((S - 1) * (N - 1))
    square = max(seeds + rows - both, seeds, rows)
    spread = seeds**2 / (S - 1) + rows**2 / (N - 1) + both**2 / ((S - 1) * (N - 1))
    degrees = max(square**2 / spread, S - 1)
    error = math.sqrt(square / (S * N))
    half = t.ppf(0.975, degrees) * error
    return float(mean - half), float(mean + half), float(2 * t.sf(abs(mean) / error, degrees))


def table(outcomes: Outcomes, eps: float, metric: str) -> np.ndarray:
    """(seeds, rows)"""
    field = {"accuracy": 1, "nll": 2}[metric]
    return np.array([[row[field] for row in rows_of(outcomes[Job(spelled(eps), s)].test)] for s in SEEDS])


@pytest.mark.parametrize("metric", ["accuracy", "nll"])
def test_intervals_are_the_textbooks(metric: str, outcomes: Outcomes, setting: Setting):
    hard, smoothed = (table(outcomes, eps, metric) for eps in (0.0, 0.3))
    value, difference = setting.arms[2].values[metric], setting.arms[2].differences[metric]
    low, high, _ = textbook(smoothed)
    assert (value.low, value.high) == pytest.approx((low, high))
    # Paired: of the differences seed by seed and row by row.
    low, high, p = textbook(smoothed - hard)
    assert (difference.low, difference.high, difference.p) == pytest.approx((low, high, p))
    assert low < difference.mean < high


@pytest.mark.parametrize(
    ("luck", "taste"), [(0.0, 0.0), (0.3, 0.0), (0.0, 0.5), (0.3, 0.5)], ids=["alike", "runs", "rows", "both"]
)
def test_intervals_hold_the_truth_as_often_as_they_say(luck: float, taste: float):
    rng, S, N, studies = np.random.default_rng(0), 5, 200, 400
    held = 0
    for _ in range(studies):
        x = (
            luck * rng.standard_normal((S, 1))
            + taste * rng.standard_normal((1, N))
            + rng.standard_normal((S, N))
        )
        interval = crossed(torch.from_numpy(0.3 + x)).estimate()
        held += interval.low <= 0.3 <= interval.high
    # Of 400 at 95 %, four standard errors are 4.4 %; the variance is never below either part alone, so
    # that where nothing but noise differs they hold more.
    assert 0.95 - 0.044 < held / studies <= (1.0 if not luck + taste else 0.994)


def test_the_ece_is_the_mean_of_what_its_rows_add(outcomes: Outcomes, setting: Setting):
    x = []
    for seed in SEEDS:
        rows = rows_of(outcomes[Job("ls:eps=0.1", seed)].test)
        gaps: dict[int, float] = {}
        for sure, right, _ in rows:
            b = math.ceil(sure * 15)
            gaps[b] = gaps.get(b, 0.0) + sure - right
        x.append(
            [
                math.copysign(sure - right, (sure - right) * gaps[math.ceil(sure * 15)])
                for sure, right, _ in rows
            ]
        )
    value = setting.arms[1].values["ece"]
    low, high, _ = textbook(np.array(x))
    assert (value.low, value.high) == pytest.approx((low, high))


def test_what_no_row_decides_is_students_interval_over_seeds(outcomes: Outcomes, setting: Setting):
    x = [memorised(outcomes[Job("hard", seed)]) for seed in SEEDS]
    half = t.ppf(0.975, 3) * np.std(x, ddof=1) / 2
    value = setting.hard.values["memorised"]
    # A share is at most 1.
    assert (value.low, value.high) == pytest.approx((fmean(x) - half, min(fmean(x) + half, 1.0)))


# How sure a difference is.


def test_p_is_one_of_no_difference_and_nothing_of_one_that_never_varies():
    assert crossed(torch.zeros(3, 4, dtype=torch.float64)).p == 1
    assert crossed(torch.ones(3, 4, dtype=torch.float64)).p == 0
    assert crossed(torch.ones(3, 4, dtype=torch.float64)).half_width == 0


def test_p_is_the_level_at_which_the_interval_touches_0(setting: Setting):
    arm = setting.arms[2]
    for metric in ("accuracy", "nll", "nll_scaled", "ece"):
        d = arm.differences[metric]
        assert (d.p < 0.05) == (not d.low <= 0 <= d.high)


def test_holm_equals_its_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.slow
def test_every_arm_and_judged_metric_is_one_comparison_and_a_copy_is_none(outcomes: Outcomes):
    arms = ["hard", "ls:eps=0.1", "ls:eps=0.3"]
    alone = summarise("", "", outcomes, arms, SEEDS)
    copied = {**outcomes, **{Job("kl:eps=0.1", s): outcomes[Job("ls:eps=0.1", s)] for s in SEEDS}}
    both = summarise("", "", copied, [*arms, "kl:eps=0.1"], SEEDS)
    assert [arm.copy_of for arm in both.arms] == [None, None, None, "ls:eps=0.1"]
    assert both.arms[:3] == alone.arms
    expected = holm([arm.differences[m].p for arm in alone.arms[1:] for m in ("accuracy", "nll_scaled")])
    found = [arm.differences[m].adjusted for arm in alone.arms[1:] for m in ("accuracy", "nll_scaled")]
    assert found == pytest.approx(expected)
    assert adjust(alone) == alone
    # What is not judged has its own level.
    assert alone.arms[1].differences["ece"].adjusted == alone.arms[1].differences["ece"].p


def width(setting: Setting) -> float:
    estimate = setting.arms[1].differences["nll"]
    return estimate.high - estimate.low


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_numbers_are_the_same_each_time_and_leave_the_generator_alone(outcomes: Outcomes):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert summarise("", "", outcomes, ARMS, SEEDS) == summarise("", "", outcomes, ARMS, SEEDS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_an_order_of_seeds_of_ones_own(outcomes: Outcomes):
    # best_seed is a seed, not a place in the list.
    moved = {Job(job.arm, job.seed + 10): run for job, run in outcomes.items()}
    plain = summarise("", "", outcomes, ARMS, SEEDS)
    shifted = summarise("", "", moved, ARMS, [seed + 10 for seed in SEEDS])
    assert [arm.best_seed for arm in shifted.arms] == [arm.best_seed + 10 for arm in plain.arms]


def test_classes_and_changed_rows_equal_a_loop(outcomes: Outcomes, setting: Setting):
    arm = setting.arms[2]
    per_class: dict[int, list[float]] = {}
    gained = lost = 0
    for seed in SEEDS:
        (logits, labels), hard = outcomes[Job(arm.name, seed)].test, outcomes[Job("hard", seed)].test[0]
        for z, before, y in zip(logits.tolist(), hard.tolist(), labels.tolist(), strict=True):
            right, was = z.index(max(z)) == y, before.index(max(before)) == y
            per_class.setdefault(y, []).append(right)
            gained, lost = gained + (right and not was), lost + (was and not right)
    assert arm.recall == pytest.approx([fmean(per_class[k]) for k in range(4)])
    assert (arm.gained, arm.lost) == (gained / 4, lost / 4)
    assert arm.gained - arm.lost == pytest.approx(arm.differences["accuracy"].mean * 80)


def test_the_code_to_paste_holds_what_is_known(outcomes: Outcomes):
    arms = ["hard", "ols:eps=0.5", "unigram:eps=0.1,temperature=1", "warmup:eps=0.1,share=0.25"]
    runs = {
        Job(arm, s): outcomes[Job(spelled(0.1 if i else 0), s)] for i, arm in enumerate(arms) for s in SEEDS
    }
    known = {"epochs": 40, "counts": torch.tensor([3, 2, 1, 1])}
    made = {arm.name: arm for arm in analyse("", "", runs, arms, SEEDS, known).setting.arms}
    assert made["ols:eps=0.5"].code == "OnlineLabelSmoothing(4, label_smoothing=0.5)"
    assert [arm.by_epoch for arm in made.values()] == [False, True, False, True]


@pytest.mark.parametrize("name", ARMS_BY_NAME)
def test_the_code_to_paste_runs_and_builds_the_same_loss(name: str):
    spec = parse(name)
    facts = {
        "num_classes": 4,
        "epochs": 40,
        "counts": torch.tensor([3, 2, 1, 1]),
        "embeddings": torch.eye(4),
    }
    namespace: dict[str, Any] = {"embeddings": facts["embeddings"]}
    imports = "import torch\nimport labelsmooth.study\nfrom labelsmooth import *\n"
    exec(f"{imports}criterion = {spec.loss.written(facts)}", namespace)
    logits, labels = torch.arange(8.0).sin().reshape(2, 4), torch.tensor([0, 3])
    assert torch.equal(namespace["criterion"](logits, labels), spec.loss(facts)(logits, labels))
