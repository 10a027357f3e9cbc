"""Priors: the distributions that smoothing mixes into the targets, for the argument ``prior=`` of every loss.

A :class:`Prior` is one distribution for all samples, (K,), or a row for each class, (K, K). A
:class:`PerSample` has a distribution for each sample. Priors are constants: no gradient flows to the tensors
that they are made from. Most rows give some probability to their own class, which ``off_target="others"``
removes.
"""

from labelsmooth.priors._distributions import PerSample as PerSample
from labelsmooth.priors._distributions import Prior as Prior
from labelsmooth.priors._matrices import Tree as Tree
from labelsmooth.priors._matrices import confusion as confusion
from labelsmooth.priors._matrices import embedding as embedding
from labelsmooth.priors._matrices import hierarchy as hierarchy
from labelsmooth.priors._matrices import similarity as similarity
from labelsmooth.priors._ordinal import Distance as Distance
from labelsmooth.priors._ordinal import beta as beta
from labelsmooth.priors._ordinal import binomial as binomial
from labelsmooth.priors._ordinal import exponential as exponential
from labelsmooth.priors._ordinal import sord as sord
from labelsmooth.priors._ordinal import triangular as triangular
from labelsmooth.priors._samples import neighbourhood as neighbourhood
from labelsmooth.priors._samples import per_sample as per_sample
from labelsmooth.priors._samples import teacher as teacher
from labelsmooth.priors._vectors import masked as masked
from labelsmooth.priors._vectors import uniform as uniform
from labelsmooth.priors._vectors import unigram as unigram

__all__ = [
    "Distance",
    "PerSample",
    "Prior",
    "Tree",
    "beta",
    "binomial",
    "confusion",
    "embedding",
    "exponential",
    "hierarchy",
    "masked",
    "neighbourhood",
    "per_sample",
    "similarity",
    "sord",
    "teacher",
    "triangular",
    "uniform",
    "unigram",
]
