"""Smoothing strengths per class, per sample and over time. They are tensors, so a new value compiles no new
graph.
"""

from labelsmooth.schedules._classes import ByClass as ByClass
from labelsmooth.schedules._classes import Shape as Shape
from labelsmooth.schedules._classes import by_class as by_class
from labelsmooth.schedules._classes import by_counts as by_counts
from labelsmooth.schedules._samples import graduated as graduated
from labelsmooth.schedules._time import Schedule as Schedule
from labelsmooth.schedules._time import constant as constant
from labelsmooth.schedules._time import cosine as cosine
from labelsmooth.schedules._time import delayed as delayed
from labelsmooth.schedules._time import drop_late as drop_late
from labelsmooth.schedules._time import linear as linear
from labelsmooth.schedules._time import warm_up as warm_up

__all__ = [
    "ByClass",
    "Schedule",
    "Shape",
    "by_class",
    "by_counts",
    "constant",
    "cosine",
    "delayed",
    "drop_late",
    "graduated",
    "linear",
    "warm_up",
]
