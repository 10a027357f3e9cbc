"""Losses of a row as functions of its statistics, in nats: one formula each, for every engine."""

import torch
from torch import Tensor

from labelsmooth.engines.statistics import RowStatistics, times


def nll(s: RowStatistics) -> Tensor:
    """H(target, q): the loss without smoothing."""
    return s.target_mass * s.lse - s.target_z


def smoothed_nll(s: RowStatistics, eps: Tensor) -> Tensor:
    """(1 - eps) H(target, q) + eps H(prior, q)."""
    return times(1 - eps, nll(s)) + times(eps, s.prior_mass * s.lse - s.prior_z)


def squared_lse(s: RowStatistics) -> Tensor:
    """lse(z)^2, which keeps the logits near normalised (Chowdhery et al., PaLM, 2022)."""
    return (s.lse + s.z_max).square()


def smoothed_entropy(eps: Tensor, num_classes: Tensor) -> Tensor:
    """H(p) of a target smoothed toward the uniform distribution over ``num_classes`` classes."""
    off = eps / num_classes
    entr = torch.special.entr
    return entr(1 - eps + off) + (num_classes - 1) * entr(off)
