"""How far a model's confidence can be trusted: metrics, temperature scaling, displays."""

from labelsmooth.calibration.displays import ReliabilityDisplay as ReliabilityDisplay
from labelsmooth.calibration.metrics import Reliability as Reliability
from labelsmooth.calibration.metrics import accuracy as accuracy
from labelsmooth.calibration.metrics import expected_calibration_error as expected_calibration_error
from labelsmooth.calibration.metrics import noise_floor as noise_floor
from labelsmooth.calibration.metrics import reliability as reliability
from labelsmooth.calibration.temperature import fit_temperature as fit_temperature

__all__ = [
    "Reliability",
    "ReliabilityDisplay",
    "accuracy",
    "expected_calibration_error",
    "fit_temperature",
    "noise_floor",
    "reliability",
]
