"""What cross entropy of a linear head refuses."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from labelsmooth import functional, mixed

X, W, Y = torch.zeros(2, 3), torch.zeros(4, 3), torch.tensor([0, 1])

ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"input": [[0.0]]}, "input must be a tensor, got list"),
    ({"linear_weight": None}, "linear_weight must be a tensor, got NoneType"),
    ({"linear_bias": 0.5}, "linear_bias must be a tensor, got float"),
    ({"target": [0, 1]}, "target must be a tensor, got list"),
    ({"input": X.long()}, "input must be floating point, got torch.int64"),
    ({"linear_weight": W.long()}, "linear_weight must be floating point, got torch.int64"),
    ({"linear_weight": W.to(torch.complex64)}, "linear_weight must be floating point, got torch.complex64"),
    ({"linear_bias": torch.zeros(4).long()}, "linear_bias must be floating point, got torch.int64"),
    ({"linear_weight": W.double()}, "linear_weight must have input's type torch.float32, got torch.float64"),
    (
        {"linear_bias": torch.zeros(4).half()},
        "linear_bias must have input's type torch.float32, got torch.float16",
    ),
    ({"linear_weight": W[0]}, "linear_weight must have shape (K, D), got (3,)"),
    ({"linear_weight": W[:0]}, "linear_weight must have shape (K, D), got (0, 3)"),
    ({"linear_weight": W.T}, "input must have shape (..., D) with D=4 as linear_weight, got (2, 3)"),
    ({"input": torch.tensor(0.0)}, "input must have shape (..., D) with D=3 as linear_weight, got ()"),
    (
        {"input": X[0], "linear_weight": torch.zeros(4, 2, 3)},
        "input must have shape (N, D) for linear_weight of shape (4, 2, 3), got (3,)",
    ),
    (
        {"input": X[None], "linear_weight": torch.zeros(4, 2, 3)},
        "input must have shape (N, D) for linear_weight of shape (4, 2, 3), got (1, 2, 3)",
    ),
    ({"linear_bias": torch.zeros(3)}, "linear_bias must have shape (4,), got (3,)"),
    ({"linear_bias": torch.zeros(1)}, "linear_bias must have shape (4,), got (1,)"),
    (
        {"linear_weight": torch.zeros(4, 2, 3), "linear_bias": torch.zeros(4), "target": Y},
        "linear_bias must have shape (4, 2), got (4,)",
    ),
    ({"scale": 0.0}, "scale must be finite and above 0, got 0.0"),
    ({"scale": -1.0}, "scale must be finite and above 0, got -1.0"),
    ({"scale": torch.ones(1)}, "scale must be a number, got Tensor"),
    (
        {"return_nll": True, "return_predictions": True},
        "return_nll must not be given together with return_predictions, got both",
    ),
    (
        {"target": torch.full((2, 4), 0.25), "return_predictions": True},
        "target must hold class indices with return_predictions=True, got torch.float32",
    ),
    (
        {"target": mixed(Y, Y, 0.5), "return_predictions": True},
        "target must hold class indices with return_predictions=True, got mixed labels",
    ),
    ({"softcap": 0.0}, "softcap must be finite and above 0, got 0.0"),
    ({"softcap": -1.0}, "softcap must be finite and above 0, got -1.0"),
    ({"softcap": torch.inf}, "softcap must be finite and above 0, got inf"),
    ({"softcap": torch.nan}, "softcap must be finite and above 0, got nan"),
    ({"softcap": "30"}, "softcap must be a number, got str"),
    ({"engine": "fast"}, "engine must be one of 'reference', 'linear', 'dense', 'triton', got 'fast'"),
    (
        {"engine": "linear", "linear_weight": torch.zeros(4, 2, 3), "target": torch.zeros(2, 2).long()},
        "engine='linear' cannot serve: linear_weight has more than 2 dimensions; engine='reference' can",
    ),
    (
        {"target": Y[:1]},
        "target must have shape (2,) (class indices) or (2, 4) (class probabilities) for input of shape "
        "(2, 4), got (1,)",
    ),
    ({"target": Y + 3}, "target must hold class indices in [0, 4) or ignore_index=-100, got 4"),
    ({"label_smoothing": 1.5}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": torch.zeros(3)}, "label_smoothing must broadcast against the rows' (2,), got (3,)"),
    ({"weight": torch.ones(3)}, "weight must have shape (K,) with K=4 classes, got (3,)"),
    (
        {"prior": torch.ones(3) / 3},
        "prior must have shape (K,) or (K, K) with K=4 classes, got (3,)",
    ),
    ({"z_loss": -1.0}, "z_loss must be finite and at least 0, got -1.0"),
    ({"reduction": "batchmean"}, "reduction must be one of 'none', 'mean', 'sum', got 'batchmean'"),
    (
        {"denominator": 1.0, "reduction": "sum"},
        "denominator goes with reduction=\"mean\" only, got reduction='sum'",
    ),
    ({"linear_weight": W.to("meta")}, "linear_weight must be on input's device cpu, got meta"),
    ({"linear_bias": torch.zeros(4, device="meta")}, "linear_bias must be on input's device cpu, got meta"),
    ({"options": {"batch_chunk_size": 2}}, "options must be a torch.nn.LinearCrossEntropyOptions, got dict"),
    ({"options": 2}, "options must be a torch.nn.LinearCrossEntropyOptions, got int"),
    ({"options": "auto"}, "options must be a torch.nn.LinearCrossEntropyOptions, got str"),
]


def loss(input: Any = X, linear_weight: Any = W, target: Any = Y, **options: Any) -> Tensor:
    linear_cross_entropy: Any = functional.linear_cross_entropy
    return linear_cross_entropy(input, linear_weight, target, **options)


CASES = [(partial(loss, **arguments), message) for arguments, message in ARGUMENTS]
