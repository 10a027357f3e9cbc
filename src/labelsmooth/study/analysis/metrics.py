"""The table of metrics. A new one is a function and an entry."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from torch import Tensor

from labelsmooth.study.analysis.evidence import AtTemperature, Evidence
from labelsmooth.study.analysis.measures import calibration, labels, ranks, training

TOPICS = CLASSES, PROBABILITIES, CALIBRATION, ORDER, FEATURES = (
    "classes",
    "probabilities",
    "calibration",
    "order by confidence",
    "features",
)

Of = Callable[[Evidence], Tensor | None]
Floor = Callable[[Evidence], float | None]


@dataclass(frozen=True)
class Metric:
    """The computation, the label and the judgement of a metric."""

    of: Of  # the numbers whose mean it is, (N,), for the same rows in every run; None without the inputs
    label: str
    unit: Literal["%", "points", "nats", ""]
    better: Literal[-1, 0, 1]  # the direction that is better; 0 for closer to 0
    topic: str
    smallest: float = 0.0  # the smallest relevant difference
    _: KW_ONLY
    short: str = ""  # a short label for sentences
    floor: Floor | None = None  # the noise floor

    def __post_init__(self) -> None:
        object.__setattr__(self, "short", self.short or self.label)

    @property
    def factor(self) -> float:
        """The factor from the number to its unit."""
        return 100.0 if self.unit in ("%", "points") else 1.0


def _both(
    name: str,
    of: Callable[[Evidence, AtTemperature], Tensor],
    floor: Callable[[AtTemperature], float] | None,
    label: str,
    *judged: Any,
) -> dict[str, Metric]:
    """A metric of probabilities, before and after temperature."""

    def scaled(run: Evidence) -> Tensor | None:
        return None if run.scaled is None else of(run, run.scaled)

    def scaled_floor(run: Evidence) -> float | None:
        return None if run.scaled is None or floor is None else floor(run.scaled)

    raw_floor = None if floor is None else lambda run: floor(run.raw)
    return {
        name: Metric(lambda run: of(run, run.raw), label, *judged, floor=raw_floor),
        f"{name}_scaled": Metric(
            scaled, f"{label} after temperature", *judged, short=label, floor=scaled_floor if floor else None
        ),
    }


# The smallest relevant NLL difference is 0.2 % in the probability of the correct class.
METRICS: Mapping[str, Metric] = {
    "accuracy": Metric(labels.accuracy, "accuracy", "%", 1, CLASSES, 0.002),
    "balanced_accuracy": Metric(labels.balanced_accuracy, "balanced accuracy", "%", 1, CLASSES, 0.002),
    "macro_f1": Metric(labels.macro_f1, "macro-F1", "%", 1, CLASSES, 0.002),
    "mae": Metric(
        labels.absolute_error, "mean absolute error in classes", "", -1, CLASSES, 0.005, short="MAE"
    ),
    "kappa": Metric(labels.weighted_kappa, "quadratic weighted kappa", "", 1, CLASSES, 0.005, short="kappa"),
    "train_gap": Metric(training.generalisation_gap, "training minus test accuracy", "points", 0, CLASSES),
    "memorised": Metric(training.memorised, "memorised wrong labels", "%", -1, CLASSES),
    **_both("nll", lambda _, at: at.nll, None, "NLL", "nats", -1, PROBABILITIES, 0.002),
    **_both("brier", lambda _, at: at.brier, None, "Brier score", "", -1, PROBABILITIES, 0.001),
    **_both("reliability", calibration.reliability, None, "Brier reliability", "", -1, PROBABILITIES, 0.001),
    **_both("resolution", calibration.resolution, None, "Brier resolution", "", 1, PROBABILITIES, 0.001),
    **_both("ece", calibration.top_label, calibration.top_label_floor, "ECE", "%", -1, CALIBRATION, 0.005),
    **_both(
        "ece_mass",
        calibration.equal_mass,
        calibration.equal_mass_floor,
        "equal-mass ECE",
        "%",
        -1,
        CALIBRATION,
        0.005,
    ),
    **_both(
        "ece_class",
        calibration.class_wise,
        calibration.class_wise_floor,
        "class-wise ECE",
        "%",
        -1,
        CALIBRATION,
        0.001,
    ),
    "confidence_gap": Metric(
        calibration.over_confidence, "mean confidence minus accuracy", "points", 0, CALIBRATION
    ),
    "auroc": Metric(ranks.class_auroc, "AUROC, mean over classes", "%", 1, ORDER, 0.002, short="AUROC"),
    **_both("aurc", ranks.risk_coverage, None, "AURC", "%", -1, ORDER, 0.001),
    **_both("coverage", ranks.coverage_at_risk, None, "coverage at 5 % risk", "%", 1, ORDER, 0.01),
    "ood_auroc": Metric(
        ranks.unknown_auroc, "out-of-distribution AUROC", "%", 1, ORDER, 0.005, short="OOD AUROC"
    ),
    "ood_fpr95": Metric(ranks.unknown_accepted, "out-of-distribution FPR95", "%", -1, ORDER, 0.01),
    "separation": Metric(training.class_separation, "class separation of the features", "", 0, FEATURES),
    "transfer": Metric(training.linear_probe, "linear probe on another task", "%", 1, FEATURES, 0.005),
}


@dataclass(frozen=True)
class Care:
    """The metrics that judge an arm on the test rows, and the metric that chooses it on the validation
    rows."""

    judged: tuple[str, ...]
    by: str


# Probabilities are judged after temperature, since an improvement that a temperature also gives is no gain.
# NLL chooses for calibration, whose error on few rows is mostly noise, and for out-of-distribution detection.
CARES: Mapping[str, Care] = {
    "overall": Care(("accuracy", "nll_scaled"), "nll_scaled"),
    "accuracy": Care(("accuracy",), "accuracy"),
    "calibration": Care(("ece_scaled", "nll_scaled"), "nll_scaled"),
    "ranking": Care(("auroc",), "auroc"),
    "selective": Care(("aurc_scaled",), "aurc_scaled"),
    "ordinal": Care(("mae", "kappa"), "mae"),
    "ood": Care(("ood_auroc",), "nll_scaled"),
}


def as_trained(metric: str) -> str:
    """The same metric before temperature."""
    return metric.removesuffix("_scaled")
