"""Every error names the argument, what was given and the rule; and what is not looked at."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from labelsmooth import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    LabelSmoothingLoss,
    LinearCrossEntropyLoss,
    OnlineLabelSmoothing,
    by_class,
    mixed,
)
from labelsmooth.functional import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    label_smoothing_loss,
    linear_cross_entropy,
    vocab_parallel_cross_entropy,
    vocab_parallel_linear_cross_entropy,
)

NAN = torch.nan
INPUT = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
DENSE = torch.zeros(2, 3, 4)
TARGET = torch.tensor([0, 2])
SOFT = torch.full((2, 3), 1 / 3)


def given(input: Tensor = INPUT, target: Tensor = TARGET, weight: Any = None, **options: Any) -> Tensor:
    return cross_entropy(input, target, weight, **options)


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


OUT_OF_RANGE = "target must hold class indices in [0, 3) or ignore_index=-100, got "
PRIOR_SHAPE = "prior must have shape (K,) or (K, K) with K=3 classes, got "
SAMPLE_WEIGHT_SHAPE = "sample_weight must broadcast against the rows' (2,), got "
STRENGTH_SHAPE = "label_smoothing must broadcast against the rows' "

TURN = (
    "; as in torch, the classes are in dimension 1: where they are last in input, take "
    "input.movedim(-1, 1), or input.flatten(0, -2) and target.flatten()"
)

# The keyword arguments of ``given`` and the whole message. One entry for each way to break each rule that is
# a branch of the code, and for the values on its edges (0, 1, NaN, one too many).
CASES: list[tuple[dict[str, Any], str]] = [
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
        'prior leaves nothing for the others of class 1, as off_target="others" needs',
    ),
    (
        {"prior": t(0.5, 0.5, 0, 0, 0.5, 0.5, 0, 0, 1).reshape(3, 3), "off_target": "others"},
        'prior leaves nothing for the others of class 2, as off_target="others" needs',
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


def rule(case: tuple[dict[str, Any], str]) -> str:
    return re.sub(r"\W+", "_", case[1])[:40] + "_" + re.sub(r"\W+", "_", case[1].split("got")[-1])[:20]


@pytest.mark.parametrize("case", CASES, ids=rule)
def test_cross_entropy(case: tuple[dict[str, Any], str]) -> None:
    arguments, message = case
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        given(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LabelSmoothingLoss(-0.1), "smoothing must lie in [0, 1], got -0.1"),
        (lambda: LabelSmoothingLoss(NAN), "smoothing must lie in [0, 1], got nan"),
        (lambda: label_smoothing_loss(INPUT, TARGET, 1.1), "smoothing must lie in [0, 1], got 1.1"),
        (
            lambda: label_smoothing_loss(INPUT, TARGET, torch.tensor(1.5)),
            "smoothing must lie in [0, 1], got 1.5",
        ),
        (
            lambda: label_smoothing_loss(INPUT, TARGET, t(0.1, 0.1)),
            "smoothing must broadcast against a scalar's shape (), got (2,)",
        ),
        (lambda: LabelSmoothingLoss(dim=2)(INPUT, TARGET), "input of shape (2, 3) has no class dimension 2"),
        (
            lambda: LabelSmoothingLoss(dim=-3)(INPUT, TARGET),
            "input of shape (2, 3) has no class dimension -3",
        ),
        (
            lambda: LabelSmoothingLoss()(INPUT, SOFT),
            "target must hold class indices of shape (2,); of one-hot labels take target.argmax(1); got",
        ),
        (
            lambda: LabelSmoothingLoss()(INPUT, torch.tensor([0, 3])),
            "target must hold class indices in [0, 3), got 3",
        ),
        (
            lambda: LabelSmoothingLoss()(INPUT, torch.tensor([0, -100])),
            "target must hold class indices in [0, 3), got -100",
        ),
        (
            lambda: LabelSmoothingLoss()(DENSE, TARGET),
            "target must have shape (2, 3) (class indices) for input of shape (2, 3, 4), got (2,)",
        ),
        (lambda: CrossEntropyLoss(label_smoothing=2.0), "label_smoothing must lie in [0, 1], got 2.0"),
        (
            lambda: CrossEntropyLoss(label_smoothing=torch.tensor(2.0)),
            "label_smoothing must lie in [0, 1], got 2.0",
        ),
        (lambda: CrossEntropyLoss(prior=t(0.5, 0.6)), "prior must sum to 1, got "),
        (lambda: CrossEntropyLoss(prior=torch.tensor(1.0)), "prior must have shape (K,) or (K, K) with K="),
        (lambda: CrossEntropyLoss(prior=torch.ones(2, 3)), "prior must have shape (K,) or (K, K) with K="),
        (
            lambda: CrossEntropyLoss(reduction="batchmean"),  # pyright: ignore[reportArgumentType]
            "reduction must be one of 'none', 'mean', 'sum', got 'batchmean'",
        ),
        (
            lambda: CrossEntropyLoss(off_target="other"),  # pyright: ignore[reportArgumentType]
            "off_target must be one of 'all', 'others', got 'other'",
        ),
        (
            lambda: CrossEntropyLoss(weighting="class"),  # pyright: ignore[reportArgumentType]
            "weighting must be one of 'torch', 'sample', got 'class'",
        ),
        (
            lambda: CrossEntropyLoss(weight=[1.0, 1.0]),  # pyright: ignore[reportArgumentType]
            "weight must be a tensor, got list",
        ),
        (
            lambda: CrossEntropyLoss(prior=[0.5, 0.5]),  # pyright: ignore[reportArgumentType]
            "prior must be a tensor, got list",
        ),
        (
            lambda: LinearCrossEntropyLoss(4, 3, out_features=2),  # pyright: ignore[reportArgumentType]
            "out_features must be a tuple of integers, got int",
        ),
        (
            lambda: LinearCrossEntropyLoss(4, 3, out_features=(0.5,)),  # pyright: ignore[reportArgumentType]
            "out_features must be an integer of at least 0, got 0.5",
        ),
        (
            lambda: vocab_parallel_cross_entropy(INPUT, TARGET, group=None, num_classes=3.0),  # pyright: ignore
            "num_classes must be an integer, got 3.0",
        ),
        (
            lambda: vocab_parallel_cross_entropy(INPUT, TARGET, group=None, num_classes=3, start="0"),  # pyright: ignore
            "start must be an integer, got '0'",
        ),
        (
            lambda: LinearCrossEntropyLoss(4, 3, weighting="sample"),
            'weighting="sample" goes with weight only, got weight=None',
        ),
        (
            lambda: BCEWithLogitsLoss(torch.tensor([1j])),
            "weight must hold real numbers, got torch.complex64",
        ),
        (
            lambda: BCEWithLogitsLoss(pos_weight=torch.tensor([1j])),
            "pos_weight must hold real numbers, got torch.complex64",
        ),
        (lambda: by_class([0.1]), "by_class: eps must be a tensor, got list"),  # pyright: ignore[reportArgumentType]
        (lambda: by_class(t(0.1, torch.inf)), "by_class: eps must lie in (-inf, inf), got inf"),
        (lambda: by_class(t(0.1, NAN)), "by_class: eps must lie in (-inf, inf), got nan"),
        (
            lambda: CrossEntropyLoss(label_smoothing=by_class(t(0.1, 1.5))),
            "label_smoothing must lie in [0, 1], got 1.5",
        ),
        (lambda: by_class(torch.tensor(0.1)), "by_class: eps must have shape (K,), got ()"),
    ],
    ids=lambda value: re.sub(r"\W+", "_", value)[:40] if isinstance(value, str) else "",
)
def test_modules_and_divergence(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


TOKENS = torch.zeros(2, 5, 3)  # (B, T, V)
NO_CLASSES = "; the arguments are (smoothing, dim), and the number of classes is that of input"
EVERY = torch.full((3,), 0.1)
BY_CLASS = "; a strength for each class is given as by_class(...)"
FROM_ONE = "smoothing must broadcast against a scalar's shape (), got (3,)"


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: cross_entropy(TOKENS, torch.zeros(2, 5).long()), TURN),
        (lambda: cross_entropy(torch.zeros(2, 5, 4, 3), torch.zeros(2, 5, 4).long()), TURN),
        (lambda: OnlineLabelSmoothing(3)(TOKENS, torch.zeros(2, 5).long()), TURN),
        (
            lambda: label_smoothing_loss(DENSE, torch.zeros(2, 4).long()),
            "last dimension: give dim=1 where they are not",
        ),
        (
            lambda: LabelSmoothingLoss()(INPUT, torch.tensor([0, -100])),
            "CrossEntropyLoss has an ignore_index",
        ),
        (lambda: LabelSmoothingLoss(10, 0.1), "got 10" + NO_CLASSES),  # pyright: ignore[reportArgumentType]
        (lambda: LabelSmoothingLoss(10), "got 10" + NO_CLASSES),
        (lambda: LabelSmoothingLoss(1, 0.1), "got 0.1" + NO_CLASSES),  # pyright: ignore[reportArgumentType]
        (lambda: cross_entropy(DENSE, torch.zeros(2, 1, 4).long()), "; take target.squeeze(1)"),
        (lambda: label_smoothing_loss(INPUT, TARGET.unsqueeze(1)), "; take target.squeeze(1)"),
        (lambda: label_smoothing_loss(INPUT, TARGET.float()), "; of labels take target.long()"),
        (lambda: cross_entropy(INPUT, TARGET, label_smoothing=EVERY), BY_CLASS),
        (lambda: CrossEntropyLoss(label_smoothing=EVERY)(INPUT, TARGET), BY_CLASS),
        (lambda: OnlineLabelSmoothing(3, label_smoothing=EVERY)(INPUT, TARGET), BY_CLASS),
        (lambda: LinearCrossEntropyLoss(4, 3, label_smoothing=EVERY)(torch.zeros(2, 4), TARGET), BY_CLASS),
        (lambda: LabelSmoothingLoss(EVERY), FROM_ONE + "; CrossEntropyLoss takes"),
        (lambda: label_smoothing_loss(INPUT, TARGET, EVERY), FROM_ONE + "; CrossEntropyLoss takes"),
    ],
)
def test_hints(call: Callable[[], Any], hint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(hint)):
        call()


H, W = torch.zeros(2, 4), torch.zeros(3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda **wrong: cross_entropy(INPUT, TARGET, **wrong), "cross_entropy() got an unexpected"),
        (
            lambda **wrong: binary_cross_entropy_with_logits(INPUT, SOFT, **wrong),
            "binary_cross_entropy_with_logits() got an unexpected",
        ),
        *(
            (
                call,
                f"{name}() got an unexpected keyword argument 'lable_smoothing'; "
                "did you mean 'label_smoothing'?",
            )
            for name, call in {
                "linear_cross_entropy": lambda **wrong: linear_cross_entropy(H, W, TARGET, **wrong),
                "vocab_parallel_cross_entropy": lambda **wrong: vocab_parallel_cross_entropy(
                    INPUT, TARGET, group=None, **wrong
                ),
                "vocab_parallel_linear_cross_entropy": lambda **wrong: vocab_parallel_linear_cross_entropy(
                    H, W, TARGET, group=None, **wrong
                ),
                "CrossEntropyLoss": CrossEntropyLoss,
                "LinearCrossEntropyLoss": lambda **wrong: LinearCrossEntropyLoss(4, 3, **wrong),
                "OnlineLabelSmoothing": lambda **wrong: OnlineLabelSmoothing(3, **wrong),
                "BCEWithLogitsLoss": BCEWithLogitsLoss,
            }.items()
        ),
    ],
)
def test_a_mistyped_keyword(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(message)}"):
        call(lable_smoothing=0.1)


@pytest.mark.parametrize(
    ("call", "hint"),
    [
        (lambda: LinearCrossEntropyLoss(4, 3, soft_cap=1.0), "did you mean 'softcap'?"),  # pyright: ignore
        (lambda: OnlineLabelSmoothing(3, proces_group=None), "did you mean 'process_group'?"),  # pyright: ignore
        (lambda: linear_cross_entropy(H, W, TARGET, linear_bia=None), "did you mean 'linear_bias'?"),  # pyright: ignore
        (lambda: CrossEntropyLoss(smoothing=0.1), "did you mean 'label_smoothing'?"),  # pyright: ignore
        (
            lambda: LabelSmoothingLoss(classes=10, smoothing=0.1),  # pyright: ignore
            "LabelSmoothingLoss() got an unexpected keyword argument 'classes'; the number of classes",
        ),
    ],
)
def test_the_nearest_keyword(call: Callable[[], Any], hint: str) -> None:
    with pytest.raises(TypeError, match=re.escape(hint)):
        call()


# What lies just inside a rule: the tests above alone would pass if everything were an error.
@pytest.mark.parametrize(
    "arguments",
    [
        {"label_smoothing": 0},
        {"label_smoothing": 1},
        {"label_smoothing": True},
        {"label_smoothing": torch.tensor(1)},
        {"label_smoothing": torch.zeros(1)},
        {"input": torch.zeros(0, 3), "target": TARGET[:0], "label_smoothing": torch.zeros(0)},
        {"prior": t(0, 1, 0)},
        {"prior": t(0.5004, 0.25, 0.25)},
        {"prior": (torch.ones(3) / 3).bfloat16(), "off_target": "others"},
        {"target": torch.tensor([-100, 2])},
        {"target": torch.tensor([3, 2]), "ignore_index": 3},
        {"sample_weight": torch.tensor(2.0)},
        {"sample_weight": torch.tensor([True, False])},
        {"denominator": 0},
    ],
    ids=str,
)
def test_edges_are_allowed(arguments: dict[str, Any]) -> None:
    given(**arguments, reduction="mean")


# Where values cannot be read without a graph break, a strength out of range shows in the loss.
@pytest.mark.parametrize("eps", [-0.1, 1.5, NAN])
def test_strength_out_of_range_is_nan_where_values_are_not_read(eps: float) -> None:
    strength = torch.tensor([0.1, eps])
    torch.compiler.reset()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="eager")
    loss = compiled(INPUT, TARGET, label_smoothing=strength, reduction="none")
    assert loss.isnan().tolist() == [False, True]
    loss = torch.vmap(lambda eps: cross_entropy(INPUT[0], TARGET[0], label_smoothing=eps))(strength)
    assert loss.isnan().tolist() == [False, True]
    loss = torch.vmap(lambda eps: label_smoothing_loss(INPUT, TARGET, eps))(strength)
    assert loss.isnan().tolist() == [False, True]


def test_compiled_float_out_of_range_is_an_error_all_the_same() -> None:
    torch.compiler.reset()
    compiled = torch.compile(cross_entropy, backend="eager")
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        compiled(INPUT, TARGET, label_smoothing=1.5)
