"""The numbers of a study: all that its sentence, table and report are made of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from labelsmooth.study.arms.specs import Spec, parse

Metric = Literal[
    "accuracy", "nll", "nll_scaled", "ece", "ece_scaled", "confidence_gap", "train_gap", "memorised"
]


FEW = 6  # arms that can be looked at one by one


@dataclass(frozen=True)
class MetricInfo:
    label: str
    unit: str
    factor: float  # from the stored number to the unit
    better: Literal[-1, 0, 1]  # the direction that is better; 0 for nearer to 0


METRICS: Mapping[Metric, MetricInfo] = {
    "accuracy": MetricInfo("accuracy", "%", 100, 1),
    "nll": MetricInfo("NLL", "nats", 1, -1),
    "nll_scaled": MetricInfo("NLL after temperature", "nats", 1, -1),
    "ece": MetricInfo("ECE", "%", 100, -1),
    "ece_scaled": MetricInfo("ECE after temperature", "%", 100, -1),
    "confidence_gap": MetricInfo("mean confidence less accuracy", "points", 100, 0),
    "train_gap": MetricInfo("training less test accuracy", "points", 100, 0),
    "memorised": MetricInfo("flipped labels memorised", "%", 100, -1),
}
# What an arm is judged by, and the smallest difference that is worth a change of loss: a fifth of a point; a
# fifth of a percent in the probability of the right class.
JUDGED: Mapping[Metric, float] = {"accuracy": 0.002, "nll_scaled": 0.002}


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and test rows, and the 95 % interval around it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference from hard targets."""

    p: float  # how likely one so far from 0 is by chance; 0.05 where the interval touches 0
    adjusted: float = 1.0  # p among all comparisons that are judged (Holm)


@dataclass(frozen=True)
class Arm:
    """One arm, over all seeds."""

    name: str  # as it is spelled
    validation_nll: float  # after temperature: what the arm is chosen by
    temperature: float  # geometric mean over seeds
    noise_floor: float  # of the ECE
    noise_floor_scaled: float
    best_seed: int  # the least validation NLL
    validation_accuracy: float
    code: str  # what builds its loss, to be pasted
    by_epoch: bool  # whether training calls the loss's end_epoch()
    values: dict[Metric, Estimate]
    differences: dict[Metric, Difference] = field(default_factory=dict)  # from hard targets
    copy_of: str | None = None  # an arm before it that gave the same
    recall: list[float | None] = field(default_factory=list)  # accuracy of each class, where it has rows
    gained: float = 0.0  # rows a seed that are right here and wrong with hard targets
    lost: float = 0.0  # the other way round

    @property
    def spec(self) -> Spec:
        return parse(self.name)

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.spec.label

    @property
    def eps(self) -> float | None:
        """The strength of a plain smoothing, 0 of hard targets; None of any other arm."""
        return self.spec.eps


@dataclass(frozen=True)
class Setting:
    """One fit under every arm. The first has hard targets."""

    name: str
    description: str
    seeds: int
    test_rows: int
    validation_rows: int
    num_classes: int
    flipped: float | None  # share of the training labels that is wrong, where known
    arms: list[Arm]
    class_names: list[str] | None = None
    left_out: dict[str, str] = field(default_factory=dict)  # seeds with which an arm failed, and why

    @property
    def hard(self) -> Arm:
        return self.arms[0]

    @property
    def chosen(self) -> Arm:
        """The arm that is judged, by validation NLL after temperature; the others only describe."""
        return min(self.arms[1:], key=lambda arm: arm.validation_nll)

    @property
    def ranking(self) -> list[Arm]:
        """All arms, by test NLL after temperature."""
        return sorted(self.arms, key=lambda arm: arm.values["nll_scaled"].mean)

    @property
    def ranked(self) -> bool:
        """Whether its arms are for a ranking: more than a few, or more than strengths of one smoothing."""
        return len(self.arms) > FEW or any(arm.eps is None for arm in self.arms)
