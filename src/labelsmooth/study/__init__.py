"""Does smoothing help on your data? The same model, hard and smoothed targets, paired by seed."""

from labelsmooth.study.fit import Criterion as Criterion
from labelsmooth.study.fit import DigitsFit as DigitsFit
from labelsmooth.study.fit import Fit as Fit
from labelsmooth.study.fit import FitResult as FitResult
from labelsmooth.study.results import Results as Results
from labelsmooth.study.run import run as run

__all__ = ["Criterion", "DigitsFit", "Fit", "FitResult", "Results", "run"]
