"""The numbers of a study: all that its sentence, table and report are made of."""

from dataclasses import dataclass, field

from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.arms.specs import Spec, spelled_in_full

FEW = 6  # arms that can be looked at one by one


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
    parts: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of its variance: seeds, rows, both together


@dataclass(frozen=True)
class Arm:
    """One arm, over all seeds. What needs validation rows is None without any."""

    name: str  # as it is spelled, or as somebody called it
    chosen_by: float  # the metric that the setting's arm is chosen by, on the validation rows
    validation_nll: float | None  # after temperature
    temperature: float | None  # geometric mean over seeds
    best_seed: int  # the least validation NLL
    validation_accuracy: float | None
    code: str  # what builds its loss, to be pasted; empty if nobody knows
    by_epoch: bool  # whether training calls the loss's end_epoch()
    values: dict[str, Estimate]  # by metric
    differences: dict[str, Difference] = field(default_factory=dict)  # from hard targets
    floors: dict[str, float] = field(default_factory=dict)  # what chance alone would show
    copy_of: str | None = None  # an arm before it that gave the same
    recall: list[float | None] = field(default_factory=list)  # accuracy of each class, where it has rows
    gained: float = 0.0  # rows a seed that are right here and wrong with hard targets
    lost: float = 0.0  # the other way round

    @property
    def spec(self) -> Spec | None:
        """What it was trained with, where its name says so."""
        return spelled_in_full(self.name)

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.name if self.spec is None else self.spec.label

    @property
    def eps(self) -> float | None:
        """The strength of a plain smoothing, 0 of hard targets; None of any other arm."""
        return None if self.spec is None else self.spec.eps


@dataclass(frozen=True)
class Setting:
    """One fit under every arm. The first is what the others are compared with, hard targets as a rule."""

    name: str
    description: str
    seeds: int
    test_rows: int
    validation_rows: int  # 0 without
    num_classes: int
    flipped: float | None  # share of the training labels that is wrong, where known
    arms: list[Arm]
    class_names: list[str] | None = None
    left_out: dict[str, str] = field(default_factory=dict)  # seeds with which an arm failed, and why
    care: str = "overall"
    judged: tuple[str, ...] = ("accuracy", "nll_scaled")  # metrics
    by: str = "nll_scaled"  # the metric that chooses

    @property
    def hard(self) -> Arm:
        return self.arms[0]

    @property
    def baseline(self) -> str:
        """What the others are compared with, within a sentence."""
        return "hard targets" if self.hard.eps == 0 else self.hard.label

    @property
    def chosen(self) -> Arm:
        """The arm that is judged, by the validation rows; the others only describe. Without such rows the
        test rows choose, which the correction for all arms covers."""

        def place(arm: Arm) -> tuple[float, float]:
            return -arm.chosen_by * METRICS[self.by].better, arm.validation_nll or 0.0

        return min(self.arms[1:], key=place)

    @property
    def ranking(self) -> list[Arm]:
        """All arms, the best on the test rows first."""
        return sorted(self.arms, key=lambda arm: -arm.values[self.by].mean * METRICS[self.by].better)

    @property
    def ranked(self) -> bool:
        """Whether its arms are for a ranking: more than strengths of one smoothing."""
        return any(arm.eps is None for arm in self.arms)

    def at_best(self, metric: str) -> str:
        """A metric after temperature, or as trained where there is none."""
        return f"{metric}_scaled" if self.validation_rows else metric
