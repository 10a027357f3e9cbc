"""What modules and the divergence refuse, and the hint that goes with it; and keywords that are mistyped."""

from collections.abc import Callable
from typing import Any

import torch

import labelsmooth
from labelsmooth import by_class, functional, mixed, priors, schedules
from tests.errors.logits import DENSE, INPUT, NAN, SOFT, TARGET, TURN, t

# All take options of every type here.
CrossEntropyLoss: Any = labelsmooth.CrossEntropyLoss
LabelSmoothingLoss: Any = labelsmooth.LabelSmoothingLoss
LinearCrossEntropyLoss: Any = labelsmooth.LinearCrossEntropyLoss
OnlineLabelSmoothing: Any = labelsmooth.OnlineLabelSmoothing
BCEWithLogitsLoss: Any = labelsmooth.BCEWithLogitsLoss
cross_entropy: Any = functional.cross_entropy
label_smoothing_loss: Any = functional.label_smoothing_loss
linear_cross_entropy: Any = functional.linear_cross_entropy
vocab_parallel_cross_entropy: Any = functional.vocab_parallel_cross_entropy
vocab_parallel_linear_cross_entropy: Any = functional.vocab_parallel_linear_cross_entropy

TOKENS = torch.zeros(2, 5, 3)  # (B, T, V)
EVERY = torch.full((3,), 0.1)
H, W = torch.zeros(2, 4), torch.zeros(3, 4)
BY_CLASS = (
    "label_smoothing must broadcast against the rows' (2,), got (3,); a strength for each class is given as "
    "by_class(...)"
)
SCALAR = (
    "smoothing must broadcast against a scalar's shape (), got ({},); CrossEntropyLoss takes one for each "
    "sample, or by_class(...)"
)
ARGUMENTS = "; the arguments are (smoothing, dim), and the number of classes is that of input"

CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: LabelSmoothingLoss(-0.1), "smoothing must lie in [0, 1], got -0.1"),
    (lambda: LabelSmoothingLoss(NAN), "smoothing must lie in [0, 1], got nan"),
    (lambda: label_smoothing_loss(INPUT, TARGET, 1.1), "smoothing must lie in [0, 1], got 1.1"),
    (lambda: label_smoothing_loss(INPUT, TARGET, torch.tensor(1.5)), "smoothing must lie in [0, 1], got 1.5"),
    (
        lambda: label_smoothing_loss(INPUT, TARGET, t(0.1, 0.1)),
        SCALAR.format(2),
    ),
    (lambda: LabelSmoothingLoss(dim=2)(INPUT, TARGET), "input of shape (2, 3) has no class dimension 2"),
    (lambda: LabelSmoothingLoss(dim=-3)(INPUT, TARGET), "input of shape (2, 3) has no class dimension -3"),
    (
        lambda: LabelSmoothingLoss()(INPUT, SOFT),
        "target must hold class indices of shape (2,); of one-hot labels take target.argmax(1); got "
        "torch.float32 of shape (2, 3)",
    ),
    (
        lambda: LabelSmoothingLoss()(INPUT, torch.tensor([0, 3])),
        "target must hold class indices in [0, 3), got 3",
    ),
    (
        lambda: LabelSmoothingLoss()(INPUT, torch.tensor([0, -100])),
        "target must hold class indices in [0, 3), got -100; CrossEntropyLoss has an ignore_index",
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
    (lambda: CrossEntropyLoss(prior=t(0.5, 0.6)), "prior must sum to 1, got 1.100000023841858"),
    (
        lambda: CrossEntropyLoss(prior=torch.tensor(1.0)),
        "prior must have shape (K,) or (K, K) with K=0 classes, got ()",
    ),
    (
        lambda: CrossEntropyLoss(prior=torch.ones(2, 3)),
        "prior must have shape (K,) or (K, K) with K=3 classes, got (2, 3); see priors.per_sample for "
        "one of each sample",
    ),
    (
        lambda: CrossEntropyLoss(reduction="batchmean"),
        "reduction must be one of 'none', 'mean', 'sum', got 'batchmean'",
    ),
    (lambda: CrossEntropyLoss(off_target="other"), "off_target must be one of 'all', 'others', got 'other'"),
    (lambda: CrossEntropyLoss(weighting="class"), "weighting must be one of 'torch', 'sample', got 'class'"),
    (lambda: CrossEntropyLoss(weight=[1.0, 1.0]), "weight must be a tensor, got list"),
    (lambda: CrossEntropyLoss(prior=[0.5, 0.5]), "prior must be a tensor, got list"),
    (
        lambda: LinearCrossEntropyLoss(4, 3, out_features=2),
        "out_features must be a tuple of integers, got int",
    ),
    (
        lambda: LinearCrossEntropyLoss(4, 3, out_features=(0.5,)),
        "out_features must be an integer of at least 0, got 0.5",
    ),
    (
        lambda: vocab_parallel_cross_entropy(INPUT, TARGET, group=None, num_classes=3.0),
        "num_classes must be an integer, got 3.0",
    ),
    (
        lambda: vocab_parallel_cross_entropy(INPUT, TARGET, group=None, num_classes=3, start="0"),
        "start must be an integer, got '0'",
    ),
    (
        lambda: LinearCrossEntropyLoss(4, 3, weighting="sample"),
        'weighting="sample" goes with weight only, got weight=None',
    ),
    (lambda: BCEWithLogitsLoss(torch.tensor([1j])), "weight must hold real numbers, got torch.complex64"),
    (
        lambda: BCEWithLogitsLoss(pos_weight=torch.tensor([1j])),
        "pos_weight must hold real numbers, got torch.complex64",
    ),
    (
        lambda: by_class([0.1]),  # pyright: ignore[reportArgumentType]
        "by_class: eps must be a tensor, got list",
    ),
    (lambda: by_class(t(0.1, torch.inf)), "by_class: eps must lie in (-inf, inf), got inf"),
    (lambda: by_class(t(0.1, NAN)), "by_class: eps must lie in (-inf, inf), got nan"),
    (
        lambda: CrossEntropyLoss(label_smoothing=by_class(t(0.1, 1.5))),
        "label_smoothing must lie in [0, 1], got 1.5",
    ),
    (lambda: by_class(torch.tensor(0.1)), "by_class: eps must have shape (K,), got ()"),
    (
        lambda: cross_entropy(TOKENS, torch.zeros(2, 5).long()),
        "target must have shape (2, 3) (class indices) or (2, 5, 3) (class probabilities) for input of "
        "shape (2, 5, 3), got (2, 5)" + TURN,
    ),
    (
        lambda: cross_entropy(torch.zeros(2, 5, 4, 3), torch.zeros(2, 5, 4).long()),
        "target must have shape (2, 4, 3) (class indices) or (2, 5, 4, 3) (class probabilities) for "
        "input of shape (2, 5, 4, 3), got (2, 5, 4)" + TURN,
    ),
    (
        lambda: OnlineLabelSmoothing(3)(TOKENS, torch.zeros(2, 5).long()),
        "input must have num_classes=3 classes, got 5" + TURN,
    ),
    (
        lambda: label_smoothing_loss(DENSE, torch.zeros(2, 4).long()),
        "target must have shape (2, 3) (class indices) for input of shape (2, 3, 4), got (2, 4); the "
        "classes are in the last dimension: give dim=1 where they are not",
    ),
    (
        lambda: LabelSmoothingLoss(10, 0.1),
        "smoothing must lie in [0, 1], got 10" + ARGUMENTS,
    ),
    (
        lambda: LabelSmoothingLoss(10),
        "smoothing must lie in [0, 1], got 10" + ARGUMENTS,
    ),
    (
        lambda: LabelSmoothingLoss(1, 0.1),
        "dim must be an integer, got 0.1" + ARGUMENTS,
    ),
    (
        lambda: cross_entropy(DENSE, torch.zeros(2, 1, 4).long()),
        "target must have shape (2, 4) (class indices) or (2, 3, 4) (class probabilities) for input of "
        "shape (2, 3, 4), got (2, 1, 4); take target.squeeze(1)",
    ),
    (
        lambda: label_smoothing_loss(INPUT, TARGET.unsqueeze(1)),
        "target must have shape (2,) (class indices) for input of shape (2, 3), got (2, 1); take "
        "target.squeeze(1)",
    ),
    (
        lambda: label_smoothing_loss(INPUT, TARGET.float()),
        "target must hold integer class indices when its shape is the input's without the 3 classes, got "
        "torch.float32; of labels take target.long()",
    ),
    (
        lambda: cross_entropy(INPUT, TARGET, label_smoothing=EVERY),
        BY_CLASS,
    ),
    (
        lambda: CrossEntropyLoss(label_smoothing=EVERY)(INPUT, TARGET),
        BY_CLASS,
    ),
    (
        lambda: OnlineLabelSmoothing(3, label_smoothing=EVERY)(INPUT, TARGET),
        BY_CLASS,
    ),
    (
        lambda: LinearCrossEntropyLoss(4, 3, label_smoothing=EVERY)(torch.zeros(2, 4), TARGET),
        BY_CLASS,
    ),
    (
        lambda: LabelSmoothingLoss(EVERY),
        SCALAR.format(3),
    ),
    (
        lambda: label_smoothing_loss(INPUT, TARGET, EVERY),
        SCALAR.format(3),
    ),
    (lambda: OnlineLabelSmoothing(0), "num_classes must be an integer of at least 1, got 0"),
    (lambda: OnlineLabelSmoothing(-1), "num_classes must be an integer of at least 1, got -1"),
    (lambda: OnlineLabelSmoothing(2.0), "num_classes must be an integer of at least 1, got 2.0"),
    (lambda: OnlineLabelSmoothing("ten"), "num_classes must be an integer of at least 1, got 'ten'"),
    (lambda: OnlineLabelSmoothing(None), "num_classes must be an integer of at least 1, got None"),
    (
        lambda: OnlineLabelSmoothing(torch.tensor(3)),
        "num_classes must be an integer of at least 1, got tensor(3)",
    ),
    (lambda: OnlineLabelSmoothing(True), "num_classes must be an integer of at least 1, got True"),
    (
        lambda: OnlineLabelSmoothing(3, prior=EVERY),
        "prior cannot be given: OnlineLabelSmoothing estimates it",
    ),
    (
        lambda: OnlineLabelSmoothing(3)(INPUT, TARGET, prior=priors.teacher(INPUT)),
        "prior cannot be given: OnlineLabelSmoothing estimates it",
    ),
    (
        lambda: OnlineLabelSmoothing(3)(INPUT, SOFT),
        "target must hold class indices in training, as each mean is over the samples of one class",
    ),
    (
        lambda: OnlineLabelSmoothing(3)(INPUT, mixed(TARGET, TARGET, 0.5)),
        "target must hold class indices in training, as each mean is over the samples of one class",
    ),
    (lambda: OnlineLabelSmoothing(3)(INPUT, [0, 2]), "target must be a tensor, got list"),
    (
        lambda: OnlineLabelSmoothing(3)(INPUT, TARGET + 1),
        "target must hold class indices in [0, 3) or ignore_index=-100, got 3",
    ),
    (
        lambda: OnlineLabelSmoothing(3)(INPUT, TARGET - 1),
        "target must hold class indices in [0, 3) or ignore_index=-100, got -1",
    ),
    (lambda: OnlineLabelSmoothing(4)(INPUT, TARGET), "input must have num_classes=4 classes, got 3"),
    (lambda: OnlineLabelSmoothing(2)(INPUT, TARGET), "input must have num_classes=2 classes, got 3"),
    (lambda: OnlineLabelSmoothing(3, label_smoothing=1.5), "label_smoothing must lie in [0, 1], got 1.5"),
    (
        lambda: OnlineLabelSmoothing(3, weight=torch.ones(5)),
        "weight must have shape (K,) with K=3 classes, got (5,)",
    ),
    (
        lambda: OnlineLabelSmoothing(3, label_smoothing=by_class(torch.ones(5))),
        "label_smoothing: by_class has K=5 classes, input K=3",
    ),
    (
        lambda: CrossEntropyLoss(label_smoothing=schedules.linear(0.0, 1.5, 10)),
        "label_smoothing must lie in [0, 1], got 1.5",
    ),
    (
        lambda: CrossEntropyLoss(label_smoothing=schedules.linear(0.0, -0.1, 10)),
        "label_smoothing must lie in [0, 1], got -0.1",
    ),
    (lambda: LabelSmoothingLoss(schedules.linear(0.0, 1.5, 10)), "smoothing must lie in [0, 1], got 1.5"),
    (lambda: LabelSmoothingLoss(schedules.linear(0.0, -0.1, 10)), "smoothing must lie in [0, 1], got -0.1"),
    (
        lambda: LinearCrossEntropyLoss(4, 3, label_smoothing=schedules.linear(0.0, 1.5, 10)),
        "label_smoothing must lie in [0, 1], got 1.5",
    ),
    (
        lambda: LinearCrossEntropyLoss(4, 3, label_smoothing=schedules.linear(0.0, -0.1, 10)),
        "label_smoothing must lie in [0, 1], got -0.1",
    ),
    (
        lambda: CrossEntropyLoss(prior=priors.per_sample(SOFT)),
        "prior of each sample must be given in the call, with its batch",
    ),
    (lambda: LinearCrossEntropyLoss(4, 3, softcap=0), "softcap must be finite and above 0, got 0"),
    (lambda: LinearCrossEntropyLoss(4, 3, z_loss=-1), "z_loss must be finite and at least 0, got -1"),
    (lambda: LinearCrossEntropyLoss(4, 3, label_smoothing=2), "label_smoothing must lie in [0, 1], got 2"),
    (
        lambda: LinearCrossEntropyLoss(4, 3, options={"batch_chunk_size": 2}),
        "options must be a torch.nn.LinearCrossEntropyOptions, got dict",
    ),
    (
        lambda: LinearCrossEntropyLoss(4, 3, options=2),
        "options must be a torch.nn.LinearCrossEntropyOptions, got int",
    ),
    (
        lambda: LinearCrossEntropyLoss(4, 3, options="auto"),
        "options must be a torch.nn.LinearCrossEntropyOptions, got str",
    ),
]

# What is called by its name, the keyword that it does not have, and what is said of it.
KEYWORDS: list[tuple[str, Callable[..., Any], str, str]] = [
    (
        "CrossEntropyLoss",
        CrossEntropyLoss,
        "denominator",
        "; denominator belongs to a batch and is given in the call",
    ),
    (
        "cross_entropy",
        lambda **k: cross_entropy(INPUT, TARGET, **k),
        "lable_smoothing",
        "",
    ),  # Python's own words
    (
        "binary_cross_entropy_with_logits",
        lambda **k: functional.binary_cross_entropy_with_logits(INPUT, SOFT, **k),
        "lable_smoothing",
        "",
    ),
    (
        "linear_cross_entropy",
        lambda **k: linear_cross_entropy(H, W, TARGET, **k),
        "lable_smoothing",
        "label_smoothing",
    ),
    (
        "linear_cross_entropy",
        lambda **k: linear_cross_entropy(H, W, TARGET, **k),
        "linear_bia",
        "linear_bias",
    ),
    (
        "vocab_parallel_cross_entropy",
        lambda **k: vocab_parallel_cross_entropy(INPUT, TARGET, group=None, **k),
        "lable_smoothing",
        "label_smoothing",
    ),
    (
        "vocab_parallel_linear_cross_entropy",
        lambda **k: vocab_parallel_linear_cross_entropy(H, W, TARGET, group=None, **k),
        "lable_smoothing",
        "label_smoothing",
    ),
    ("CrossEntropyLoss", lambda **k: CrossEntropyLoss(**k), "lable_smoothing", "label_smoothing"),
    ("CrossEntropyLoss", lambda **k: CrossEntropyLoss(**k), "smoothing", "label_smoothing"),
    (
        "LinearCrossEntropyLoss",
        lambda **k: LinearCrossEntropyLoss(4, 3, **k),
        "lable_smoothing",
        "label_smoothing",
    ),
    ("LinearCrossEntropyLoss", lambda **k: LinearCrossEntropyLoss(4, 3, **k), "soft_cap", "softcap"),
    ("OnlineLabelSmoothing", lambda **k: OnlineLabelSmoothing(3, **k), "lable_smoothing", "label_smoothing"),
    ("OnlineLabelSmoothing", lambda **k: OnlineLabelSmoothing(3, **k), "proces_group", "process_group"),
    ("BCEWithLogitsLoss", lambda **k: BCEWithLogitsLoss(**k), "lable_smoothing", "label_smoothing"),
    (
        "LabelSmoothingLoss",
        lambda **k: LabelSmoothingLoss(smoothing=0.1, **k),
        "classes",
        "; the number of classes is that of input",
    ),
]
