"""From trained models to numbers with intervals.

Every arm was trained with the same seeds, so arms are compared pair by pair. Intervals are 95 %, by
resampling the seeds and the test rows together: what both could have been otherwise.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from labelsmooth.calibration import accuracy, noise_floor
from labelsmooth.calibration.metrics import bin_of, confidence, correct
from labelsmooth.study.analysis.figures import Arm, Difference, Estimate, Metric, Setting
from labelsmooth.study.trials.files import Job, Outcome

NUM_BINS = 15
REPLICATES = 2000
LEAST = -100.0  # the logarithm of a level that is as good as 0


def summarise(
    name: str, description: str, outcomes: Mapping[Job, Outcome], arms: Sequence[str], seeds: Sequence[int]
) -> Setting:
    """Compare each arm with the first, which has hard targets."""
    first = outcomes[Job(arms[0], seeds[0])]
    rows = len(first.test[1])
    generator = torch.Generator().manual_seed(0)
    seed_weight = _resample(len(seeds), generator)
    # By resampled rows with the seeds as they are, and by both.
    seed_weight = torch.stack([torch.full_like(seed_weight, 1 / len(seeds)), _widened(seed_weight)])
    row_weight = _resample(rows, generator)

    compared: list[Arm] = []
    hard: dict[Metric, tuple[float, Tensor]] = {}
    for arm in arms:
        runs = [outcomes[Job(arm, seed)] for seed in seeds]
        temperatures = [run.temperature for run in runs]
        measured = _measure(runs, temperatures, seed_weight, row_weight)
        hard = hard or measured
        validation = [
            _nll(run.val[0] / T, run.val[1]).mean().item() for run, T in zip(runs, temperatures, strict=True)
        ]
        scaled = [run.test[0] / T for run, T in zip(runs, temperatures, strict=True)]
        compared.append(
            Arm(
                name=arm,
                validation_nll=_mean(validation),
                temperature=math.exp(_mean([math.log(T) for T in temperatures])),
                noise_floor=_mean([noise_floor(run.test[0], NUM_BINS, draws=200) for run in runs]),
                noise_floor_scaled=_mean([noise_floor(logits, NUM_BINS, draws=200) for logits in scaled]),
                best_seed=seeds[min(range(len(seeds)), key=validation.__getitem__)],
                values={m: _estimate(mean, replicates) for m, (mean, replicates) in measured.items()},
                differences={
                    m: _difference(mean - hard[m][0], replicates - hard[m][1], len(seeds))
                    for m, (mean, replicates) in measured.items()
                }
                if compared
                else {},
            )
        )
    flipped = None
    if first.train is not None and first.clean is not None:
        flipped = (first.train[1] != first.clean).double().mean().item()
    return Setting(name, description, len(seeds), rows, flipped, compared)


def _measure(
    runs: Sequence[Outcome], temperatures: Sequence[float], seed_weight: Tensor, row_weight: Tensor
) -> dict[Metric, tuple[float, Tensor]]:
    """Each metric's mean, and its replicates under resampling: of the rows, and of rows and seeds."""
    labels = runs[0].test[1]
    test_accuracy = torch.stack([correct(run.test[0], labels) for run in runs])
    sure = torch.stack([confidence(run.test[0]) for run in runs])
    sure_scaled = torch.stack(
        [confidence(run.test[0] / T) for run, T in zip(runs, temperatures, strict=True)]
    )
    nll = torch.stack([_nll(run.test[0], labels) for run in runs])
    nll_scaled = torch.stack(
        [_nll(run.test[0] / T, labels) for run, T in zip(runs, temperatures, strict=True)]
    )

    def mean_of(x: Tensor) -> tuple[float, Tensor]:
        """Of one number per seed and row."""
        return x.mean().item(), ((row_weight @ x.T) * seed_weight).sum(-1)

    def ece_of(confidence: Tensor) -> tuple[float, Tensor]:
        gaps = torch.nn.functional.one_hot(bin_of(confidence, NUM_BINS), NUM_BINS)
        gaps = gaps * (confidence - test_accuracy).unsqueeze(-1)  # (seeds, rows, bins)
        replicates = torch.stack([(row_weight @ g).abs().sum(-1) for g in gaps], -1)
        return gaps.mean(1).abs().sum(-1).mean().item(), (replicates * seed_weight).sum(-1)

    measured: dict[Metric, tuple[float, Tensor]] = {
        "accuracy": mean_of(test_accuracy),
        "nll": mean_of(nll),
        "nll_scaled": mean_of(nll_scaled),
        "ece": ece_of(sure),
        "ece_scaled": ece_of(sure_scaled),
        "confidence_gap": mean_of(sure - test_accuracy),
    }
    trained = [(*run.train, run.clean) for run in runs if run.train is not None]
    if len(trained) == len(runs):
        fitted = nll.new_tensor([accuracy(logits, labels) for logits, labels, _ in trained])
        measured["train_gap"] = mean_of(fitted.unsqueeze(-1) - test_accuracy)
        memorised = [_memorised(*t) for t in trained]
        if None not in memorised:
            measured["memorised"] = mean_of(nll.new_tensor(memorised).unsqueeze(-1).expand_as(nll))
    return measured


def _memorised(logits: Tensor, labels: Tensor, clean: Tensor | None) -> float | None:
    """The share of flipped training labels that the model gives back."""
    if clean is None or not bool((labels != clean).any()):
        return None
    flipped = labels != clean
    return accuracy(logits[flipped], labels[flipped])


def _resample(n: int, generator: torch.Generator) -> Tensor:
    """``REPLICATES`` rows of weights that sum to 1: how often each of n was drawn with replacement."""
    drawn = torch.randint(n, (REPLICATES, n), generator=generator)
    return (
        torch.zeros(REPLICATES, n, dtype=torch.float64).scatter_add_(
            1, drawn, torch.full_like(drawn, 1, dtype=torch.float64)
        )
        / n
    )


def _widened(weight: Tensor) -> Tensor:
    """Resampled means of few seeds spread too little: widen them to Student's interval."""
    n = weight.size(1)
    factor = _students(n) * math.sqrt(n / (n - 1))
    return 1 / n + factor * (weight - 1 / n)


def _students(seeds: int) -> float:
    """How much wider a 95 % interval of so few is than a normal one."""
    from scipy.stats import norm, t  # slow to import, and not needed to read results back

    return float(t.ppf(0.975, seeds - 1) / norm.ppf(0.975))


def _estimate(mean: float, replicates: Tensor) -> Estimate:
    low, high = replicates[1].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(mean, low, high)


def _difference(mean: float, replicates: Tensor, seeds: int) -> Difference:
    rows, both = replicates.var(-1).tolist()
    between_seeds = max(both - rows, 0.0) / _students(seeds) ** 2
    return Difference(
        **vars(_estimate(mean, replicates)), p=p_value(mean, rows, between_seeds, degrees=seeds - 1)
    )


def p_value(mean: float, rows: float, seeds: float, degrees: int) -> float:
    """The level at which an interval around ``mean`` would touch 0.

    Its width comes from two variances: the rows', as a normal has it, and the seeds', as Student has it.
    """
    from scipy.special import ndtri, stdtrit

    low, high = LEAST, 0.0
    for _ in range(60):
        middle = (low + high) / 2
        tail = math.exp(middle) / 2
        touches = ndtri(tail) ** 2 * rows + stdtrit(degrees, tail) ** 2 * seeds >= mean**2
        low, high = (middle, high) if touches else (low, middle)
    return math.exp(high)


def _nll(logits: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(logits.double(), labels, reduction="none")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
