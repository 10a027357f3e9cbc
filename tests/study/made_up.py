"""Studies from numbers instead of training: settings to judge, runs to summarise, and a fit of no time."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from labelsmooth import CrossEntropyLoss
from labelsmooth.study import run
from labelsmooth.study.analysis.figures import Arm, Difference, Estimate, Setting
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import Fit, FitResult
from labelsmooth.study.trials.files import Job, Outcome
from labelsmooth.study.trials.ledger import Ledger

Interval = tuple[float, float, float]  # mean, low, high
TIMES = ("trials.db", "study.log")
NOTHING: Interval = (0.0, -0.01, 0.01)
# What a page, a terminal, a formula or a file's name could take for its own.
HOSTILE_NAMES = ("a <b>&amp;</b> \"c\" 'd'", r"from $5 to $\foo {{ 7 }}", "[red]x[/red] %s ../y")
HARD: dict[str, float] = {
    "accuracy": 0.9,
    "nll": 0.5,
    "nll_scaled": 0.4,
    "ece": 0.1,
    "ece_scaled": 0.02,
    "confidence_gap": 0.05,
}


def setting(
    name: str = "made up",
    *,
    changes: Mapping[str, Interval] | None = None,
    hard: Mapping[str, float | Interval] | None = None,
    chosen: float | str = 0.1,
    tried: Sequence[float | str] = (0.05, 0.1, 0.2),
    flipped: float | None = None,
) -> Setting:
    """Hard targets at T = 2 and arms at T = 0.5, one of which validation chooses; only its differences from
    hard targets are not nothing."""
    values: dict[str, float | Interval] = {**HARD, **(hard or {})}
    before: dict[str, Estimate] = {metric: _estimate(value) for metric, value in values.items()}
    arms = [
        Arm(
            name="hard",
            chosen_by=0.45,
            validation_nll=0.45,
            temperature=2.0,
            floors={"ece": 0.015, "ece_scaled": 0.013},
            best_seed=0,
            validation_accuracy=before["accuracy"].mean,
            code="CrossEntropyLoss(label_smoothing=0)",
            by_epoch=False,
            values=before,
            recall=[0.9] * 4,
        )
    ]
    for arm in tried:
        differences: dict[str, Difference] = {
            metric: difference(*(changes or {}).get(metric, NOTHING) if arm == chosen else NOTHING)
            for metric in before
        }
        arms.append(
            Arm(
                name=spelled(arm),
                chosen_by=0.35 if arm == chosen else 0.4,
                validation_nll=0.35 if arm == chosen else 0.4,
                temperature=0.5,
                floors={"ece": 0.015, "ece_scaled": 0.012},
                best_seed=1,
                validation_accuracy=0.9,
                code=str(parse(spelled(arm)).loss),
                by_epoch=False,
                recall=[0.9] * 4,
                values={metric: _moved(before[metric], by) for metric, by in differences.items()},
                differences=differences,
            )
        )
    return Setting(
        name,
        "made up",
        seeds=5,
        test_rows=700,
        validation_rows=300,
        num_classes=4,
        flipped=flipped,
        arms=arms,
    )


def results(*settings: Setting, folder: Path = Path("made-up")) -> Results:
    return Results(list(settings), "digest", folder)


def spelled(arm: float | str) -> str:
    """A number is a plain smoothing, and 0 is hard targets."""
    return str(parse(str(arm))) if arm else "hard"


def difference(mean: float, low: float, high: float) -> Difference:
    """One whose p is as sure as its interval: past any correction, or not at all."""
    p = 0.5 if low <= 0 <= high else 1e-6
    return Difference(mean, low, high, p, adjusted=p)


def _estimate(value: float | Interval) -> Estimate:
    return Estimate(*value) if isinstance(value, tuple) else Estimate(value, value - 0.005, value + 0.005)


def _moved(value: Estimate, by: Estimate) -> Estimate:
    return Estimate(value.mean + by.mean, value.low + by.mean, value.high + by.mean)


def outcomes(
    arms: Sequence[float | str], seeds: Sequence[int], *, rows: int = 80, K: int = 4, extras: bool = True
) -> dict[Job, Outcome]:
    """Runs that vary as much with the seed as with the row, and with eps, or the place of another arm."""
    generator = torch.Generator().manual_seed(0)
    val_labels, labels = torch.arange(60) % K, torch.arange(rows) % K
    difficulty = torch.randn(rows, 1, generator=generator, dtype=torch.float64)
    runs = {}
    for seed in seeds:
        luck = torch.randn(1, generator=generator).item()
        clean = torch.arange(30) % K
        trained = torch.where(torch.rand(30, generator=generator) < 0.3, (clean + 1) % K, clean)
        for place, arm in enumerate(arms):
            strength = 2 + luck + (place / 4 if isinstance(arm, str) else 3 * arm)

            def logits(truth: Tensor, by: Tensor | float, strength: float = strength) -> Tensor:
                noise = torch.randn(len(truth), K, generator=generator, dtype=torch.float64)
                return 1.5 * noise + (strength + by) * torch.nn.functional.one_hot(truth, K)

            runs[Job(spelled(arm), seed)] = Outcome(
                val=(logits(val_labels, 0.0), val_labels),
                test=(logits(labels, difficulty), labels),
                train=(logits(trained, 1.0), trained) if extras else None,
                clean=clean if extras else None,
                features=None,
                head=None,
                ood=None,
                transfer=None,
                state={},
                history={},
            )
    return runs


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """A few steps of a linear model on rows of its own: no time, and every key that a fit may return."""

    steps: int = 3
    description: str = "made-up rows"

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(120) % 4
        x = torch.nn.functional.one_hot(labels, 5).float() + 0.7 * torch.randn(120, 5, generator=generator)
        noisy = torch.where(torch.arange(40) % 5 == 0, (labels[:40] + 1) % 4, labels[:40])
        weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(seed))
        history: dict[str, list[float]] = {"training loss": []}
        for _ in range(self.steps):
            weight.requires_grad_()
            loss = criterion(x[:40] @ weight.T, noisy)
            (gradient,) = torch.autograd.grad(loss, weight)
            weight = weight.detach() - 3 * gradient
            criterion.end_epoch()
            history["training loss"].append(loss.item())
        logits = x @ weight.T
        return {
            "val": (logits[40:70], labels[40:70]),
            "test": (logits[70:], labels[70:]),
            "train": (logits[:40], noisy),
            "clean": labels[:40],
            "history": history,
            "features": x[70:],
            "head": weight,
            "state": {"weight": weight},
        }


def bare(criterion: Criterion, seed: int) -> FitResult:
    """A fit that returns what it must and no more."""
    result = LinearFit()(criterion, seed)
    return {"val": result["val"], "test": result["test"]}


class Log(list[Any]):
    """What a fit writes down, which is no part of what it is: ``pickle`` would keep nothing of it."""

    def __reduce_ex__(self, protocol: Any) -> tuple[type, tuple[()]]:
        return Log, ()


def counted() -> tuple[Callable[[Criterion, int], FitResult], list[tuple[float, int]]]:
    """The bare fit, and the (eps, seed) it was called with; for the study, each is the same fit."""
    calls: list[tuple[float, int]] = Log()

    def fit(criterion: Criterion, seed: int) -> FitResult:
        assert isinstance(criterion.loss, CrossEntropyLoss)
        assert isinstance(criterion.loss.label_smoothing, float)
        calls.append((criterion.loss.label_smoothing, seed))
        return bare(criterion, seed)

    return fit, calls


def hard() -> Criterion:
    return Criterion(torch.nn.CrossEntropyLoss())


def altered(**changes: Any) -> Fit:
    """A whole result, but for this; a function is given the seed and the whole result's entry."""

    def fit(criterion: Criterion, seed: int) -> Any:
        result: dict[str, Any] = {**LinearFit()(criterion, seed)}
        for key, value in changes.items():
            result[key] = value(seed, result[key]) if callable(value) else value
        return result

    return fit


def study(fit: Any, folder: Path, **options: Any) -> Results:
    """A small one, and silent."""
    return run(fit, **{"eps": [0.1], "seeds": 2, "output": folder, "progress": False, **options})


def ledger(
    folder: Path,
    fit: Fit = bare,
    name: str = "a name",
    settings: Mapping[str, object] | None = None,
    storage: str | None = None,
) -> Ledger:
    return Ledger(folder, name, fit, settings or {}, storage)


def written(results: Results) -> dict[str, bytes]:
    """Every file of a study, but for what holds the times of the runs."""
    files = [path for path in results.folder.rglob("*") if path.is_file() and path.name not in TIMES]
    return {
        str(path.relative_to(results.folder)): re.sub(
            rb'Total time of the runs: .*\.|"seconds": .*,', b"", path.read_bytes()
        )
        for path in files
    }


@dataclass(frozen=True)
class Peaked:
    """A fit of no time whose model is the better, the nearer its strength is to ``best``."""

    best: float
    calls: list[tuple[str, int]]

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        self.calls.append((criterion.arm, seed))
        criterion(torch.zeros(2, 4), torch.tensor([0, 1]))
        eps = float(parse(criterion.arm).options.get("eps", 0.0))
        labels = torch.arange(120) % 4
        noise = torch.randn(120, 4, generator=torch.Generator().manual_seed(seed))
        logits = noise + (2 - abs(eps - self.best)) * torch.nn.functional.one_hot(labels, 4)
        return {"val": (logits[:60], labels[:60]), "test": (logits[60:], labels[60:])}


def peaked(best: float) -> tuple[Peaked, list[tuple[str, int]]]:
    """The fit, and the (arm, seed) it was called with."""
    calls: list[tuple[str, int]] = Log()
    return Peaked(best, calls), calls
