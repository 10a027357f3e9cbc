"""Label smoothing for PyTorch, and a study that tells whether it helps on your data."""

from labelsmooth import functional as functional
from labelsmooth.losses import CrossEntropyLoss as CrossEntropyLoss
from labelsmooth.losses import LabelSmoothingLoss as LabelSmoothingLoss
from labelsmooth.losses import LinearCrossEntropyLoss as LinearCrossEntropyLoss
from labelsmooth.schedules import by_class as by_class

__version__ = "0.1.0"
__all__ = ["CrossEntropyLoss", "LabelSmoothingLoss", "LinearCrossEntropyLoss", "by_class", "functional"]
