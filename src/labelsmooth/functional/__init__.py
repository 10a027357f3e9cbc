r"""Losses as pure functions.

Notation: z are the logits of a row, K is the number of classes, :math:`q_\theta = \mathrm{softmax}(z)` the
model, p the smoothed target, eps the smoothing, pi the prior, and
:math:`\mathrm{lse}(z) = \log \sum_k \exp z_k`. Losses are in nats.
"""

from labelsmooth._engines.linear import Predictions as Predictions
from labelsmooth.functional._binary import (
    binary_cross_entropy_with_logits as binary_cross_entropy_with_logits,
)
from labelsmooth.functional._causal import causal_cross_entropy as causal_cross_entropy
from labelsmooth.functional._causal import next_tokens as next_tokens
from labelsmooth.functional._cross_entropy import cross_entropy as cross_entropy
from labelsmooth.functional._divergence import label_smoothing_loss as label_smoothing_loss
from labelsmooth.functional._linear import linear_cross_entropy as linear_cross_entropy
from labelsmooth.functional._linear import smoothing_term as smoothing_term
from labelsmooth.functional._parallel import vocab_parallel_cross_entropy as vocab_parallel_cross_entropy
from labelsmooth.functional._parallel import (
    vocab_parallel_linear_cross_entropy as vocab_parallel_linear_cross_entropy,
)

__all__ = [
    "Predictions",
    "binary_cross_entropy_with_logits",
    "causal_cross_entropy",
    "cross_entropy",
    "label_smoothing_loss",
    "linear_cross_entropy",
    "next_tokens",
    "smoothing_term",
    "vocab_parallel_cross_entropy",
    "vocab_parallel_linear_cross_entropy",
]
