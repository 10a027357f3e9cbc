"""The figures of a study, from which its answer, table and report are made."""

from dataclasses import dataclass, field

from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.arms.specs import Spec, spelled_in_full

FEW = 6  # the maximum number of arms that are shown individually


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and test rows, and the 95 % interval around it."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Estimate):
    """A paired difference from hard targets."""

    p: float  # the p-value; 0.05 if the 95 % interval touches 0
    adjusted: float = 1.0  # p among all judged comparisons (Holm)
    parts: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of its variance: seeds, rows, interaction


@dataclass(frozen=True)
class Arm:
    """One arm, over all seeds. Figures that need validation rows are None without them."""

    name: str  # the full name, or a name given by the user
    chosen_by: float  # the metric that chooses the arm, on the validation rows
    validation_nll: float | None  # after temperature
    temperature: float | None  # geometric mean over seeds
    best_seed: int  # the seed of the lowest validation NLL
    validation_accuracy: float | None
    code: str  # the code that constructs its loss; empty if unknown
    by_epoch: bool  # whether training must call the loss's end_epoch()
    values: dict[str, Estimate]  # by metric
    differences: dict[str, Difference] = field(default_factory=dict)  # from hard targets
    floors: dict[str, float] = field(default_factory=dict)  # noise floors by metric
    copy_of: str | None = None  # an earlier arm with the same results
    recall: list[float | None] = field(default_factory=list)  # accuracy of each class; None without rows
    gained: float = 0.0  # rows per seed that are correct here and wrong with hard targets
    lost: float = 0.0  # rows per seed that are wrong here and correct with hard targets

    @property
    def spec(self) -> Spec | None:
        """The specification of the arm, if its name is one."""
        return spelled_in_full(self.name)

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.name if self.spec is None else self.spec.label

    @property
    def eps(self) -> float | None:
        """The strength of a plain smoothing, 0 for hard targets, None for any other arm."""
        return None if self.spec is None else self.spec.eps


@dataclass(frozen=True)
class Setting:
    """One fit with every arm. The first arm is the baseline, usually hard targets."""

    name: str
    description: str
    seeds: int
    test_rows: int
    validation_rows: int  # 0 without validation rows
    num_classes: int
    flipped: float | None  # the share of wrong training labels, if known
    arms: list[Arm]
    class_names: list[str] | None = None
    left_out: dict[str, str] = field(default_factory=dict)  # seeds with a failure, and the reasons
    care: str = "overall"
    judged: tuple[str, ...] = ("accuracy", "nll_scaled")  # the judged metrics
    by: str = "nll_scaled"  # the metric that chooses the arm

    @property
    def hard(self) -> Arm:
        return self.arms[0]

    @property
    def baseline(self) -> str:
        """The name of the baseline within a sentence."""
        return "hard targets" if self.hard.eps == 0 else self.hard.label

    @property
    def chosen(self) -> Arm:
        """The judged arm, chosen on the validation rows. Without them the test rows choose, which the
        correction for all arms covers."""

        def place(arm: Arm) -> tuple[float, float]:
            return -arm.chosen_by * METRICS[self.by].better, arm.validation_nll or 0.0

        return min(self.arms[1:], key=place)

    @property
    def ranking(self) -> list[Arm]:
        """All arms, the best on the test rows first."""
        return sorted(self.arms, key=lambda arm: -arm.values[self.by].mean * METRICS[self.by].better)

    @property
    def ranked(self) -> bool:
        """Whether the arms are ranked, since they are more than strengths of one method."""
        return any(arm.eps is None for arm in self.arms)

    def at_best(self, metric: str) -> str:
        """The metric after temperature, or before if there is none."""
        return f"{metric}_scaled" if self.validation_rows else metric
