"""Does smoothing help on your data? The same model, hard and smoothed targets, paired by seed."""

from labelsmooth.study.analysis.results import Results as Results
from labelsmooth.study.arms.recipes import Bootstrap as Bootstrap
from labelsmooth.study.arms.recipes import Graduated as Graduated
from labelsmooth.study.comparison import compare as compare
from labelsmooth.study.conclusion import reopen as reopen
from labelsmooth.study.fits.criterion import Criterion as Criterion
from labelsmooth.study.fits.digits import DigitsFit as DigitsFit
from labelsmooth.study.fits.result import Fit as Fit
from labelsmooth.study.fits.result import FitResult as FitResult
from labelsmooth.study.planning import Plan as Plan
from labelsmooth.study.planning import plan as plan
from labelsmooth.study.run import run as run

__all__ = [
    "Bootstrap", "Criterion", "DigitsFit", "Fit", "FitResult", "Graduated", "Plan", "Results", "compare",
    "plan", "reopen", "run",
]  # fmt: skip
