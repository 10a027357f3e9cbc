"""What cross entropy of logits refuses: each way to break each rule, and the values on its edges."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from labelsmooth import by_class, functional, mixed

NAN = torch.nan
INPUT = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
DENSE = torch.zeros(2, 3, 4)
TARGET = torch.tensor([0, 2])
SOFT = torch.full((2, 3), 1 / 3)


def loss(input: Tensor = INPUT, target: Tensor = TARGET, weight: Any = None, **options: Any) -> Tensor:
    cross_entropy: Any = functional.cross_entropy
    return cross_entropy(input, target, weight, **options)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


OUT_OF_RANGE = "target must hold class indices in [0, 3) or ignore_index=-100, got "
PRIOR_SHAPE = "prior must have shape (K,) or (K, K) with K=3 classes, got "
SAMPLE_WEIGHT_SHAPE = "sample_weight must broadcast against the rows' (2,), got "
STRENGTH_SHAPE = "label_smoothing must broadcast against the rows' "

TURN = "; as in torch, the classes are in dimension 1: give dim=-1 where they are last in input"

ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"label_smoothing": -0.1}, "label_smoothing must lie in [0, 1], got -0.1"),
    ({"label_smoothing": 1.5}, "label_smoothing must lie in [0, 1], got 1.5"),
    ({"label_smoothing": NAN}, "label_smoothing must lie in [0, 1], got nan"),
    ({"label_smoothing": 2}, "label_smoothing must lie in [0, 1], got 2"),
    ({"label_smoothing": None}, "label_smoothing must be a number or a tensor, got NoneType"),
    ({"label_smoothing": "0.1"}, "label_smoothing must be a number or a tensor, got str"),
    ({"label_smoothing": t(0.5, -0.25)}, "label_smoothing must lie in [0, 1], got -0.25"),
    ({"label_smoothing": t(0.5, 1.25)}, "label_smoothing must lie in [0, 1], got 1.25"),
    ({"label_smoothing": t(NAN, 0.5)}, "label_smoothing must lie in [0, 1], got nan"),
    (
        {"label_smoothing": torch.tensor([0.5, 1j])},
        "label_smoothing must hold real numbers, got torch.complex64",
    ),
    (
        {"label_smoothing": torch.zeros(2, device="meta")},
        "label_smoothing must be on input's device cpu, got meta",
    ),
    (
        {"label_smoothing": by_class(torch.zeros(3, device="meta"))},
        "label_smoothing must be on input's device cpu, got meta",
    ),
    ({"ignore_index": "0"}, "ignore_index must be an integer, got '0'"),
    ({"ignore_index": [0]}, "ignore_index must be an integer, got [0]"),
    ({"ignore_index": 1.5}, "ignore_index must be an integer, got 1.5"),
    ({"z_loss": torch.ones(2)}, "z_loss must be a number, got Tensor"),
    ({"denominator": torch.tensor(1j)}, "denominator must hold real numbers, got torch.complex64"),
    ({"weight": torch.tensor([1, 1j, 1])}, "weight must hold real numbers, got torch.complex64"),
    (
        {"reduction": torch.ones(2)},
        "reduction must be one of 'none', 'mean', 'sum', got tensor([1., 1.])",
    ),
    ({"ignore_index": torch.tensor([0, 1, 2])}, "ignore_index must be one number, got shape (3,)"),
    ({"ignore_index": torch.tensor(1j)}, "ignore_index must hold real numbers, got torch.complex64"),
    ({"weighting": "sample"}, 'weighting="sample" goes with weight only, got weight=None'),
    ({"sample_weight": torch.tensor([1, 1j])}, "sample_weight must hold real numbers, got torch.complex64"),
    ({"input": INPUT.to_sparse()}, "input must be dense, got torch.sparse_coo"),
    ({"target": TARGET.to_sparse()}, "target must be dense, got torch.sparse_coo"),
    (
        {"target": mixed(TARGET, TARGET, torch.tensor(0.5)), "ignore_index": "0"},
        "ignore_index must be an integer, got '0'",
    ),
    ({"label_smoothing": torch.tensor(-1)}, "label_smoothing must lie in [0, 1], got -1"),
    (
        {"label_smoothing": torch.zeros(3)},
        STRENGTH_SHAPE + "(2,), got (3,); a strength for each class is given as by_class(...)",
    ),
    ({"label_smoothing": torch.zeros(2, 1)}, STRENGTH_SHAPE + "(2,), got (2, 1)"),
    ({"label_smoothing": torch.zeros(1, 2)}, STRENGTH_SHAPE + "(2,), got (1, 2)"),
    (
        {"input": INPUT[:1], "target": TARGET[:1], "label_smoothing": torch.zeros(2)},
        STRENGTH_SHAPE + "(1,), got (2,)",
    ),
    (
        {"input": INPUT[0], "target": TARGET[0], "label_smoothing": torch.zeros(1)},
        STRENGTH_SHAPE + "(), got (1,)",
    ),
    ({"label_smoothing": by_class(t(0, 0, 0, 0))}, "label_smoothing: by_class has K=4 classes, input K=3"),
    (
        {"label_smoothing": by_class(t(0, 0, 0)), "target": SOFT},
        "label_smoothing: by_class goes with class indices, got class probabilities",
    ),
    ({"prior": t(0.6, 0.6, -0.2)}, f"prior must not be negative or NaN, got {t(-0.2).item()}"),
    ({"prior": t(0.5, NAN, 0.5)}, "prior must not be negative or NaN, got nan"),
    ({"prior": t(0.5, 0.5, 0.5)}, "prior must sum to 1, got 1.5"),
    ({"prior": t(0, 0, 0)}, "prior must sum to 1, got 0.0"),
    ({"prior": t(0.5, 0.5, torch.inf)}, "prior must sum to 1, got inf"),
    ({"prior": torch.eye(3) * t(1, 2, 1)}, "prior must sum to 1, got 2.0"),
    ({"prior": t(0.5, 0.5)}, PRIOR_SHAPE + "(2,)"),
    ({"prior": torch.tensor(1.0)}, PRIOR_SHAPE + "()"),
    ({"prior": torch.ones(2, 3) / 3}, PRIOR_SHAPE + "(2, 3); see priors.per_sample for one of each sample"),
    (
        {"prior": torch.ones(3, 3, 3) / 3},
        PRIOR_SHAPE + "(3, 3, 3); see priors.per_sample for one of each sample",
    ),
    ({"prior": torch.tensor([1, 0, 0])}, "prior must be floating point, got torch.int64"),
    (
        {"input": INPUT[:, :1], "target": TARGET * 0, "off_target": "others"},
        'off_target="others" needs at least 2 classes, got 1',
    ),
    (
        {"prior": t(0, 1, 0), "off_target": "others"},
        'off_target="others" needs mass on other classes, and prior gives class 1 all of it',
    ),
    (
        {"prior": t(0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0, 1).reshape(3, 3), "off_target": "others"},
        'off_target="others" needs mass on other classes, and prior gives class 2 all of it',
    ),
    ({"target": TARGET.to("meta")}, "target must be on input's device cpu, got meta"),
    ({"weight": torch.ones(3, device="meta")}, "weight must be on input's device cpu, got meta"),
    ({"target": torch.tensor([0, 3])}, OUT_OF_RANGE + "3"),
    ({"target": torch.tensor([-1, 0])}, OUT_OF_RANGE + "-1"),
    (
        {"target": torch.tensor([-100, 0]), "ignore_index": -1},
        "target must hold class indices in [0, 3) or ignore_index=-1, got -100",
    ),
    (
        {"target": torch.tensor([True, False])},
        "target must hold integer class indices when its shape is the input's without the 3 classes, got "
        "torch.bool",
    ),
    (
        {"target": t(0, 1)},
        "target must hold integer class indices when its shape is the input's without the 3 classes, got "
        "torch.float32; of labels take target.long()",
    ),
    (
        {"target": torch.zeros(2, 3, dtype=torch.long)},
        "target must hold class indices of shape (2,), or floating-point class probabilities; of one-hot "
        "labels take target.argmax(1); got torch.int64 of shape (2, 3)",
    ),
    (
        {"target": torch.zeros(3, dtype=torch.long)},
        "target must have shape (2,) (class indices) or (2, 3) (class probabilities) for input of shape "
        "(2, 3), got (3,)",
    ),
    (
        {"input": DENSE, "target": torch.zeros(2, 3, dtype=torch.long)},
        "target must have shape (2, 4) (class indices) or (2, 3, 4) (class probabilities) for input of shape "
        "(2, 3, 4), got (2, 3)" + TURN,
    ),
    (
        {"target": SOFT, "ignore_index": 0},
        "ignore_index goes with class indices only, got 0; for class probabilities, give ignored rows a "
        "sample_weight of 0",
    ),
    ({"weight": t(1, 1)}, "weight must have shape (K,) with K=3 classes, got (2,)"),
    ({"weight": torch.ones(1, 3)}, "weight must have shape (K,) with K=3 classes, got (1, 3)"),
    ({"sample_weight": t(1, 1, 1)}, SAMPLE_WEIGHT_SHAPE + "(3,)"),
    ({"sample_weight": torch.ones(2, 1)}, SAMPLE_WEIGHT_SHAPE + "(2, 1)"),
    ({"sample_weight": torch.ones(2, 2)}, SAMPLE_WEIGHT_SHAPE + "(2, 2)"),
    (
        {"denominator": 2.0, "reduction": "sum"},
        "denominator goes with reduction=\"mean\" only, got reduction='sum'",
    ),
    (
        {"denominator": 2.0, "reduction": "none"},
        "denominator goes with reduction=\"mean\" only, got reduction='none'",
    ),
    ({"denominator": -1.0}, "denominator must not be negative or NaN, got -1.0"),
    ({"denominator": NAN}, "denominator must not be negative or NaN, got nan"),
    ({"denominator": torch.tensor(-1)}, "denominator must not be negative or NaN, got -1"),
    ({"denominator": t(1, 1)}, "denominator must be one number, got a tensor of shape (2,)"),
    ({"reduction": "batchmean"}, "reduction must be one of 'none', 'mean', 'sum', got 'batchmean'"),
    ({"off_target": "other"}, "off_target must be one of 'all', 'others', got 'other'"),
    ({"weighting": "class"}, "weighting must be one of 'torch', 'sample', got 'class'"),
    ({"input": torch.zeros(2, 0)}, "input must have at least one class, got shape (2, 0)"),
    (
        {"input": torch.zeros(2, 3, dtype=torch.long)},
        "input must hold floating-point logits, got torch.int64",
    ),
    (
        {"input": torch.zeros(2, 3, dtype=torch.complex64)},
        "input must hold floating-point logits, got torch.complex64",
    ),
    ({"input": torch.tensor(0.0)}, "input of shape () has no class dimension -1"),
    ({"input": [[0.0, 1.0]]}, "input must be a tensor, got list"),
    ({"target": [0, 2]}, "target must be a tensor, got list"),
    ({"weight": [1.0, 1.0, 1.0]}, "weight must be a tensor, got list"),
    ({"prior": [1.0, 0.0, 0.0]}, "prior must be a tensor, got list"),
    ({"sample_weight": 0.5}, "sample_weight must be a tensor, got float"),
    ({"denominator": "2"}, "denominator must be a number or a tensor, got str"),
]
CASES = [(partial(loss, **arguments), message) for arguments, message in ARGUMENTS]
