"""Every metric against scikit-learn or torchmetrics where they are right, else against a loop over rows."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from labelsmooth.study.analysis.evidence import Evidence
from labelsmooth.study.analysis.metrics import CARES, METRICS, TOPICS
from labelsmooth.study.trials.files import Outcome

from .made_up import outcomes
from .test_statistics import MEANINGS

T = 1.7
BINS = 15


def evidence(K: int = 4, rows: int = 240, *, seed: int = 0, ties: bool = False) -> Evidence:
    """Logits that are right for most rows, of classes that are not equally frequent; one is always missing
    of five or more. Some rows are alike where ``ties``."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.arange(1.0, K + 1)
    shares[0] *= K < 5
    labels = torch.multinomial(shares, rows, replacement=True, generator=generator)
    logits = torch.randn(rows, K, generator=generator).double()
    logits += 1.5 * torch.nn.functional.one_hot(labels, K)
    if ties:
        logits = logits.round()
    features = torch.randn(rows, 6, generator=generator) + torch.eye(K, 6)[labels]
    probe = torch.randn(60, 3, generator=generator) + 2 * torch.eye(2, 3)[torch.arange(60) % 2]
    run = Outcome(
        val=(logits, labels),
        test=(logits, labels),
        train=None,
        clean=None,
        features=features,
        head=None,
        ood=torch.randn(90, K, generator=generator),
        transfer=(probe, torch.arange(60) % 2),
        state={},
        history={},
    )
    return Evidence(logits, labels, T, run, ordinal=True, wide=True)


def value(name: str, run: Evidence) -> float:
    found = METRICS[name].of(run)
    assert found is not None
    return float(found.mean())


def probabilities(run: Evidence, temperature: float = 1.0) -> np.ndarray:
    z = run.logits.numpy() / temperature
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def bin_of(p: float) -> int:
    """(b / 15, (b + 1) / 15]"""
    return max(math.ceil(p * BINS - 1e-12), 1) - 1


def ece(sure: np.ndarray, right: np.ndarray, bins: Sequence[int]) -> float:
    gaps: dict[int, float] = {}
    for s, r, b in zip(sure, right, bins, strict=True):
        gaps[b] = gaps.get(b, 0.0) + s - r
    return sum(map(abs, gaps.values())) / len(sure)


def classwise(p: np.ndarray, y: np.ndarray) -> float:
    every = [ece(p[:, k], y == k, [bin_of(x) for x in p[:, k]]) for k in range(p.shape[1])]
    return sum(every) / len(every)


def equal_mass(p: np.ndarray, y: np.ndarray) -> float:
    sure, right = p.max(1), (p.argmax(1) == y).astype(float)
    order = np.argsort(sure, kind="stable")
    pieces = [order[[i * BINS // len(y) == b for i in range(len(y))]] for b in range(BINS)]
    return sum(abs(sum(sure[piece] - right[piece])) for piece in pieces) / len(y)


def brier_part(p: np.ndarray, y: np.ndarray, part: str) -> float:
    total = 0.0
    for k in range(p.shape[1]):
        bins = np.array([bin_of(x) for x in p[:, k]])
        for b in set(bins.tolist()):
            rows = bins == b
            share = (y[rows] == k).mean()
            gap = p[rows, k].mean() - share if part == "reliability" else share - (y == k).mean()
            total += rows.mean() * gap**2
    return total


def aurc(p: np.ndarray, y: np.ndarray) -> float:
    """Of each row, the risk among those at least as sure."""
    sure, wrong = p.max(1).round(12), p.argmax(1) != y
    return float(np.mean([wrong[sure >= s].mean() for s in sure]))


def coverage(p: np.ndarray, y: np.ndarray) -> float:
    sure, wrong = p.max(1).round(12), p.argmax(1) != y
    return float(max([(sure >= s).mean() for s in sure if wrong[sure >= s].mean() <= 0.05], default=0.0))


def auroc(p: np.ndarray, y: np.ndarray) -> float:
    there = [k for k in range(p.shape[1]) if 0 < (y == k).sum() < len(y)]
    return float(np.mean([sk.roc_auc_score(y == k, p[:, k]) for k in there]))


def known_from_unknown(run: Evidence) -> tuple[np.ndarray, np.ndarray]:
    assert run.outcome.ood is not None
    unknown = (run.outcome.ood.double() / T).softmax(-1).amax(-1).numpy()
    return probabilities(run, T).max(1), unknown


def fpr95(run: Evidence) -> float:
    known, unknown = known_from_unknown(run)
    level = sorted(known)[math.floor(0.05 * (len(known) - 1))]
    return float((unknown >= level).mean())


def separation(run: Evidence) -> float:
    """Kornblith et al., with every pair of rows."""
    assert run.outcome.features is not None
    x = torch.nn.functional.normalize(run.outcome.features.double(), dim=-1)
    y = run.labels
    there = sorted(set(y.tolist()))

    def distance(k: int, j: int) -> Tensor:
        return (1 - x[y == k] @ x[y == j].T).mean()

    within = sum(distance(k, k) for k in there) / len(there)
    total = sum(distance(k, j) for k in there for j in there) / len(there) ** 2
    return float(1 - within / total)


def scaled(of: Callable[..., float], *more: Any) -> dict[float, Callable[[Evidence], float]]:
    return {
        t: lambda run, t=t: of(probabilities(run, t), run.labels.numpy(), *more)  # type: ignore[misc]
        for t in (1.0, T)
    }


def both(name: str, of: Callable[..., float], *more: Any) -> dict[str, Callable[[Evidence], float]]:
    one, other = scaled(of, *more).values()
    return {name: one, f"{name}_scaled": other}


def top_label(p: np.ndarray, y: np.ndarray) -> float:
    found = multiclass_calibration_error(
        torch.tensor(p), torch.tensor(y), num_classes=p.shape[1], n_bins=BINS, norm="l1"
    )
    return float(found)


def y_and_guess(run: Evidence) -> tuple[np.ndarray, np.ndarray]:
    return run.labels.numpy(), run.logits.argmax(-1).numpy()


def mean_recall(y: np.ndarray, guess: np.ndarray) -> float:
    return float(np.mean([(guess[y == k] == k).mean() for k in set(y.tolist())]))


EXPECTED: dict[str, Callable[[Evidence], float]] = {
    "accuracy": lambda run: sk.accuracy_score(*y_and_guess(run)),
    "balanced_accuracy": lambda run: mean_recall(*y_and_guess(run)),
    "macro_f1": lambda run: sk.f1_score(*y_and_guess(run), average="macro"),
    "mae": lambda run: sk.mean_absolute_error(*y_and_guess(run)),
    "kappa": lambda run: sk.cohen_kappa_score(*y_and_guess(run), weights="quadratic"),
    **both("nll", lambda p, y: sk.log_loss(y, p, labels=range(p.shape[1]))),
    **both("brier", lambda p, y: np.square(p - np.eye(p.shape[1])[y]).sum(1).mean()),
    **both("reliability", brier_part, "reliability"),
    **both("resolution", brier_part, "resolution"),
    **both("ece", top_label),
    **both("ece_mass", equal_mass),
    **both("ece_class", classwise),
    "confidence_gap": lambda run: probabilities(run).max(1).mean() - sk.accuracy_score(*y_and_guess(run)),
    "auroc": lambda run: auroc(probabilities(run, T), run.labels.numpy()),
    **both("aurc", aurc),
    **both("coverage", coverage),
    "ood_auroc": lambda run: sk.roc_auc_score(
        [*[1] * len(run.labels), *[0] * 90], np.concatenate(known_from_unknown(run))
    ),
    "ood_fpr95": fpr95,
    "separation": separation,
}  # fmt: skip
ELSEWHERE = {"train_gap", "memorised", "transfer"}


def test_every_metric_is_compared():
    assert EXPECTED.keys() | ELSEWHERE == METRICS.keys()
    assert MEANINGS.keys() <= METRICS.keys()


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize(("K", "ties"), [(2, False), (4, False), (4, True), (7, False)])
def test_its_value_is_the_textbooks(name: str, K: int, ties: bool):
    run = evidence(K, ties=ties)
    # Of torchmetrics' bins some are closed on the other side, and in float32.
    exact = not name.startswith("ece") or name in ("ece_class", "ece_mass")
    if ties and name.startswith("ece_mass"):
        pytest.skip("rows as sure as one another may lie in either bin")
    assert value(name, run) == pytest.approx(EXPECTED[name](run), abs=1e-9 if exact else 1e-6)


def test_a_class_without_rows_changes_nothing_but_its_own():
    run = evidence(7)
    assert int((run.labels == 0).sum()) == 0
    for name in EXPECTED:
        assert math.isfinite(value(name, run))


@pytest.mark.slow
def test_accuracy_of_a_linear_probe_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    run = evidence()
    assert run.outcome.transfer is not None
    x, y = (part.numpy() for part in run.outcome.transfer)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    assert value("transfer", run) == pytest.approx(cross_val_score(probe, x, y, cv=folds).mean(), abs=1e-9)
    assert 0.6 < value("transfer", run) < 1


# How a metric varies between samples of rows is what its numbers of each row say it does.
# Of an ECE the sign of a bin's gap is part of its noise; the coverage at a risk moves in steps.
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [n for n in EXPECTED if n.removesuffix("_scaled") not in ("ece", "ece_mass", "coverage")]
)
def test_its_standard_error_is_that_of_other_rows(name: str):
    rows, samples = 400, 60
    found, errors = [], []
    for seed in range(samples):
        run = evidence(rows=rows, seed=seed)
        numbers = METRICS[name].of(run)
        assert numbers is not None
        found.append(float(numbers.mean()))
        errors.append(float(numbers.std()) / math.sqrt(len(numbers)))
    spread = float(np.std(found, ddof=1))
    # 60 samples tell a standard deviation to 9 %; the jackknife and the influence are approximations.
    assert np.mean(errors) == pytest.approx(spread, rel=0.35)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.floor is not None])
def test_its_floor_is_what_a_calibrated_model_shows(name: str):
    run = evidence(rows=600)
    temperature = T if name.endswith("_scaled") else 1.0
    p = torch.tensor(probabilities(run, temperature))
    generator = torch.Generator().manual_seed(0)
    metric, drawn = METRICS[name], []
    assert metric.floor is not None
    for _ in range(60):
        labels = torch.multinomial(p, 1, generator=generator).squeeze(1)
        drawn.append(value(name, replace(run, labels=labels)))
    assert metric.floor(run) == pytest.approx(np.mean(drawn), rel=0.1)


def test_each_entry_is_complete():
    for name, metric in METRICS.items():
        assert metric.label
        assert metric.short
        assert metric.topic in TOPICS
        assert metric.better or not metric.smallest, name
    for care in CARES.values():
        assert {*care.judged, care.by} <= METRICS.keys()
        assert all(METRICS[metric].smallest > 0 and METRICS[metric].better for metric in care.judged)


def test_made_up_runs_have_what_they_can_have():
    run = next(iter(outcomes([0.0], [0]).values()))
    found = {n for n, m in METRICS.items() if m.of(Evidence(*run.test, run.temperature, run)) is not None}
    assert METRICS.keys() - found == {"mae", "kappa", "ood_auroc", "ood_fpr95", "separation", "transfer"}
    bare = {n for n, m in METRICS.items() if m.of(Evidence(*run.test, None, run)) is not None}
    assert bare == {name for name in found if not name.endswith("_scaled")}
