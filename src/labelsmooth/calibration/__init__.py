"""Calibration: metrics, temperature scaling and reliability diagrams."""

from labelsmooth.calibration._displays import ReliabilityDisplay as ReliabilityDisplay
from labelsmooth.calibration._metrics import Reliability as Reliability
from labelsmooth.calibration._metrics import accuracy as accuracy
from labelsmooth.calibration._metrics import expected_calibration_error as expected_calibration_error
from labelsmooth.calibration._metrics import noise_floor as noise_floor
from labelsmooth.calibration._metrics import reliability as reliability
from labelsmooth.calibration._temperature import fit_temperature as fit_temperature

__all__ = [
    "Reliability",
    "ReliabilityDisplay",
    "accuracy",
    "expected_calibration_error",
    "fit_temperature",
    "noise_floor",
    "reliability",
]
