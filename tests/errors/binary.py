"""What binary cross entropy refuses: the function, and the module when it is made."""

import math
from functools import partial
from typing import Any

import torch

import labelsmooth
from labelsmooth import by_class, functional
from labelsmooth.schedules import constant, delayed, linear

N, C = 4, 3
INPUT, TARGET = torch.zeros(N, C), torch.ones(N, C)
FUNCTION: list[tuple[dict[str, Any], str]] = [
    ({"input": [1.0]}, "input must be a tensor, got list"),
    ({"input": torch.ones(N, C).long()}, "input must hold floating-point logits, got torch.int64"),
    ({"target": [1.0]}, "target must be a tensor, got list"),
    ({"target": torch.ones(N)}, "target must have input's shape (4, 3), got (4,)"),
    ({"target": torch.ones(N, 1)}, "target must have input's shape (4, 3), got (4, 1)"),
    ({"target": torch.ones(N, C) * 1j}, "target must hold real numbers, got torch.complex64"),
    ({"target": torch.ones(N, C, device="meta")}, "target must be on input's device cpu, got meta"),
    ({"weight": 2.0}, "weight must be a tensor, got float"),
    ({"weight": torch.ones(N)}, "weight must broadcast against input (4, 3), got (4,)"),
    ({"weight": torch.ones(2, N, C)}, "weight must broadcast against input (4, 3), got (2, 4, 3)"),
    ({"pos_weight": 2.0}, "pos_weight must be a tensor, got float"),
    ({"pos_weight": torch.ones(N)}, "pos_weight must broadcast against input (4, 3), got (4,)"),
    ({"reduction": "avg"}, "reduction must be one of 'none', 'mean', 'sum', got 'avg'"),
    ({"off_target": "other"}, "off_target must be one of 'all', 'others', got 'other'"),
    ({"label_smoothing": -0.1}, "label_smoothing must lie in [0, 1], got -0.1"),
    ({"label_smoothing": math.nan}, "label_smoothing must lie in [0, 1], got nan"),
    ({"label_smoothing": torch.tensor(1.5)}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": constant(1.5)}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": "0.1"}, "label_smoothing must be a number or a tensor, got str"),
    (
        {"label_smoothing": by_class(torch.ones(C))},
        "label_smoothing must be a number or a tensor, got ByClass",
    ),
    ({"label_smoothing": torch.ones(N)}, "label_smoothing must broadcast against input (4, 3), got (4,)"),
    ({"prior": 1.5}, "prior must lie in [0, 1], got 1.5"),
    ({"prior": torch.tensor([0.1, math.nan, 0.2])}, "prior must lie in [0, 1], got nan"),
    ({"prior": torch.zeros(N)}, "prior must broadcast against input (4, 3), got (4,)"),
    ({"prior": torch.zeros(C, device="meta")}, "prior must be on input's device cpu, got meta"),
    (
        {"prior": 0.5, "off_target": "others"},
        'prior goes with off_target="all" only: "others" gives all of eps to the opposite label',
    ),
    ({"denominator": -1}, "denominator must not be negative or NaN, got -1"),
    (
        {"denominator": 3, "reduction": "sum"},
        "denominator goes with reduction=\"mean\" only, got reduction='sum'",
    ),
]
MODULE: list[tuple[dict[str, Any], str]] = [
    ({"weight": 2.0}, "weight must be a tensor, got float"),
    ({"pos_weight": [1.0]}, "pos_weight must be a tensor, got list"),
    ({"reduction": "avg"}, "reduction must be one of 'none', 'mean', 'sum', got 'avg'"),
    ({"off_target": "other"}, "off_target must be one of 'all', 'others', got 'other'"),
    ({"label_smoothing": 1.5}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": torch.tensor([0.5, -1.0])}, "label_smoothing must lie in [0, 1], got -1.0"),
    ({"label_smoothing": linear(0.1, 1.5, 9)}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": delayed(-0.4, 9)}, "label_smoothing must lie in [0, 1], got -0.4"),
    (
        {"label_smoothing": by_class(torch.ones(C))},
        "label_smoothing must be a number or a tensor, got ByClass",
    ),
    ({"prior": -0.5}, "prior must lie in [0, 1], got -0.5"),
    ({"prior": "uniform"}, "prior must be a number or a tensor, got str"),
    (
        {"prior": 0.2, "off_target": "others"},
        'prior goes with off_target="all" only: "others" gives all of eps to the opposite label',
    ),
]
loss: Any = functional.binary_cross_entropy_with_logits
module: Any = labelsmooth.BCEWithLogitsLoss
CASES = [(partial(loss, **{"input": INPUT, "target": TARGET, **o}), message) for o, message in FUNCTION]
CASES += [(partial(module, **options), message) for options, message in MODULE]
