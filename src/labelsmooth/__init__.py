"""Exact label smoothing for PyTorch, and a study that tells you whether it helps on your data."""

from typing import TYPE_CHECKING

from labelsmooth import engines as engines
from labelsmooth import formulas as formulas
from labelsmooth import functional as functional
from labelsmooth import priors as priors
from labelsmooth import schedules as schedules
from labelsmooth._modules.binary import BCEWithLogitsLoss as BCEWithLogitsLoss
from labelsmooth._modules.head import LinearCrossEntropyLoss as LinearCrossEntropyLoss
from labelsmooth._modules.losses import CrossEntropyLoss as CrossEntropyLoss
from labelsmooth._modules.losses import LabelSmoothingLoss as LabelSmoothingLoss
from labelsmooth._modules.online import OnlineLabelSmoothing as OnlineLabelSmoothing
from labelsmooth._targets.mixed import mixed as mixed
from labelsmooth.schedules import by_class as by_class

if TYPE_CHECKING:
    from labelsmooth.study.fits.criterion_file import load_criterion as load_criterion

__version__ = "0.1.0"
__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "LabelSmoothingLoss",
    "LinearCrossEntropyLoss",
    "OnlineLabelSmoothing",
    "by_class",
    "formulas",
    "functional",
    "mixed",
    "priors",
    "schedules",
]


def __getattr__(name: str) -> object:
    if name == "load_criterion":  # imported on demand, since it imports the study's arms
        from labelsmooth.study.fits.criterion_file import load_criterion

        return load_criterion
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
