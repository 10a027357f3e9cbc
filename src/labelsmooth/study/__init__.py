"""A study of label smoothing on your data: the same model with hard and smoothed targets, paired by seed."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labelsmooth.study.analysis.results import Results as Results
    from labelsmooth.study.arms.recipes import Bootstrap as Bootstrap
    from labelsmooth.study.arms.recipes import Graduated as Graduated
    from labelsmooth.study.comparison import compare as compare
    from labelsmooth.study.conclusion import reopen as reopen
    from labelsmooth.study.data.saved.predictions import Predictions as Predictions
    from labelsmooth.study.data.saved.predictions import read_predictions as read_predictions
    from labelsmooth.study.evaluation.evaluate import evaluate as evaluate
    from labelsmooth.study.evaluation.figures import Evaluation as Evaluation
    from labelsmooth.study.fits.command import CommandFit as CommandFit
    from labelsmooth.study.fits.criterion import Criterion as Criterion
    from labelsmooth.study.fits.digits import DigitsFit as DigitsFit
    from labelsmooth.study.fits.imported import load_fit as load_fit
    from labelsmooth.study.fits.own import DataFit as DataFit
    from labelsmooth.study.fits.own import fit_of as fit_of
    from labelsmooth.study.fits.result import Fit as Fit
    from labelsmooth.study.fits.result import FitResult as FitResult
    from labelsmooth.study.planning import Plan as Plan
    from labelsmooth.study.planning import plan as plan
    from labelsmooth.study.running import run as run

__all__ = [
    "Bootstrap",
    "CommandFit",
    "Criterion",
    "DataFit",
    "DigitsFit",
    "Evaluation",
    "Fit",
    "FitResult",
    "Graduated",
    "Plan",
    "Predictions",
    "Results",
    "compare",
    "evaluate",
    "fit_of",
    "load_fit",
    "plan",
    "read_predictions",
    "reopen",
    "run",
]

# Imported on demand, so that a criterion's file can be read without the extra "study". No name may equal that
# of a module in this package, whose import would overwrite it.
_PLACES = {
    "Bootstrap": "arms.recipes",
    "CommandFit": "fits.command",
    "Criterion": "fits.criterion",
    "DataFit": "fits.own",
    "DigitsFit": "fits.digits",
    "Evaluation": "evaluation.figures",
    "Fit": "fits.result",
    "FitResult": "fits.result",
    "Graduated": "arms.recipes",
    "Plan": "planning",
    "Predictions": "data.saved.predictions",
    "Results": "analysis.results",
    "compare": "comparison",
    "evaluate": "evaluation.evaluate",
    "fit_of": "fits.own",
    "load_fit": "fits.imported",
    "plan": "planning",
    "read_predictions": "data.saved.predictions",
    "reopen": "conclusion",
    "run": "running",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
