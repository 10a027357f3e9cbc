"""Coverage, power and false positives of the study's intervals and verdict, by simulation.

``python -m benchmarks.coverage`` prints the tables of the study's page, in about five minutes. Each simulated
study draws new runs and rows. The margin of a row in a run is

    margin = level + gain of the arm + difficulty of the row + luck of the run + taste of the arm for the row
             + noise of the run and the row together

A row is classified correctly if its margin is positive, and its NLL is log(1 + exp(-2 margin)). The luck of a
run applies to validation and test rows. The arm is chosen by validation NLL.
"""

import argparse
import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from scipy.stats import norm, t

from labelsmooth.study.analysis.comparisons import adjust
from labelsmooth.study.analysis.figures import Arm, Difference, Setting
from labelsmooth.study.analysis.intervals import crossed
from labelsmooth.study.analysis.metrics import CARES
from labelsmooth.study.analysis.verdict import verdict

ROWS, VALIDATION = 500, 300
REPLICATES = 300


@dataclass(frozen=True)
class World:
    """Standard deviations of the random effects, relative to the noise."""

    name: str
    luck: float  # of a run
    taste: float  # of an arm for a row
    level: float = 2.2
    difficulty: float = 1.0

    @property
    def spread(self) -> float:
        return math.sqrt(1 + self.difficulty**2 + self.luck**2 + self.taste**2)

    def accuracy(self, gain: float) -> float:
        return float(ndtr((self.level + gain) / self.spread))

    def gain(self, points: float) -> float:
        """The gain in margin that raises the accuracy by ``points``."""
        return float(norm.ppf(self.accuracy(0) + points / 100)) * self.spread - self.level

    def margins(self, rng: np.random.Generator, gains: list[float], seeds: int) -> np.ndarray:
        """``(arms, seeds, rows)``, the validation rows last."""
        arms, rows = len(gains), ROWS + VALIDATION
        return (
            self.level
            + np.array(gains)[:, None, None]
            + self.difficulty * rng.standard_normal(rows)
            + self.luck * rng.standard_normal((arms, seeds, 1))
            + self.taste * rng.standard_normal((arms, 1, rows))
            + rng.standard_normal((arms, seeds, rows))
        )


WORLDS = [
    World("alike", luck=0, taste=0),
    World("runs vary", luck=0.15, taste=0),
    World("rows differ by arm", luck=0, taste=0.5),
    World("both", luck=0.15, taste=0.5),
]


def nll(margins: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -2 * margins)


def anova(values: np.ndarray) -> Difference:
    return crossed(torch.from_numpy(values)).difference()


def bootstrap(values: np.ndarray, rng: np.random.Generator) -> Difference:
    """The bootstrap of seeds and rows together, with the seeds widened for Student's t."""
    s, n = values.shape
    rows = rng.multinomial(n, np.full(n, 1 / n), REPLICATES) / n
    seeds = rng.multinomial(s, np.full(s, 1 / s), REPLICATES) / s
    factor = t.ppf(0.975, s - 1) / norm.ppf(0.975) * math.sqrt(s / (s - 1))
    means = ((rows @ values.T) * (1 / s + factor * (seeds - 1 / s))).sum(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(values.mean(), float(low), float(high), p=0.05)


def covered(world: World, seeds: int, points: float, studies: int) -> list[float]:
    """Shares of studies whose interval covers the true value and lies above 0: bootstrap, then ANOVA."""
    rng = np.random.default_rng(seeds)
    gain = world.gain(points)
    truth = world.accuracy(gain) - world.accuracy(0)
    counts = np.zeros((2, 2))
    for _ in range(studies):
        right = world.margins(rng, [0.0, gain], seeds)[:, :, :ROWS] > 0
        paired = right[1].astype(float) - right[0]
        for i, interval in enumerate((bootstrap(paired, rng), anova(paired))):
            counts[i] += interval.low <= truth <= interval.high, interval.low > 0
    return (counts / studies).ravel().tolist()


def judged(world: World, arms: int, seeds: int, studies: int) -> list[float]:
    """Shares of studies of equal arms in which the chosen arm "helps": by its intervals, by the verdict."""
    rng = np.random.default_rng(arms)
    alone = protected = 0
    for _ in range(studies):
        margins = world.margins(rng, [0.0] * (arms + 1), seeds)
        losses, right = nll(margins), (margins > 0).astype(float)
        measured: dict[str, np.ndarray] = {
            "accuracy": right[:, :, :ROWS],
            "nll_scaled": losses[:, :, :ROWS],
        }
        compared = [
            Arm(
                name="hard" if i == 0 else f"ls:eps={i / 100}",
                chosen_by=(validation := float(losses[i, :, ROWS:].mean())),
                validation_nll=validation,
                temperature=1.0,
                best_seed=0,
                validation_accuracy=0.0,
                code="",
                by_epoch=False,
                values={},
                differences={m: anova(x[i] - x[0]) for m, x in measured.items()} if i else {},
            )
            for i in range(arms + 1)
        ]
        setting = adjust(Setting("", "", seeds, ROWS, VALIDATION, num_classes=2, flipped=None, arms=compared))
        chosen = setting.chosen.differences
        alone += chosen["accuracy"].low > 0 or chosen["nll_scaled"].high < 0
        protected += verdict(setting) == "helps"
    return [alone / studies, protected / studies]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="number of simulated studies for each line")
    studies = parser.parse_args().studies
    print(f"{ROWS} test rows, {studies} studies a line; 95 % intervals of the accuracy's difference")
    print("| world | seeds | covered, bootstrap | ANOVA | gain, points | detected, bootstrap | ANOVA |")
    print("|---|---|---|---|---|---|---|")
    for world in WORLDS:
        for seeds in (2, 3, 5, 10):
            for points in (0.0, 1.0, 1.6, 2.9):
                held, found, ours_held, ours_found = covered(world, seeds, points, studies)
                print(
                    f"| {world.name} | {seeds} | {held:.1%} | {ours_held:.1%} | {points} "
                    f"| {found:.1%} | {ours_found:.1%} |",
                    flush=True,
                )
    goes_by = "/".join(CARES["overall"].judged)
    print(f"\nstudies of equal arms, 5 seeds: how often the chosen arm is said to help, by {goes_by}")
    print("| world | arms | by its intervals alone | by the verdict |")
    print("|---|---|---|---|")
    for world in WORLDS:
        for arms in (1, 3, 25):
            alone, protected = judged(world, arms, 5, studies)
            print(f"| {world.name} | {arms} | {alone:.1%} | {protected:.1%} |", flush=True)


if __name__ == "__main__":
    main()
