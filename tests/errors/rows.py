"""What is refused of two labels for each sample, and of priors of samples: of logits and of a head alike."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

from labelsmooth import by_class, functional, mixed
from labelsmooth.priors import PerSample
from tests.cases import CLASSES, FEW, HEAD, LAM, NAN, ROWS, SECOND, SHARES, WEIGHT, Z
from tests.cases import HARD as A

B = SECOND
PAIRS: list[tuple[tuple[Any, ...], str]] = [
    ((A.tolist(), B, 0.5), "first must be a tensor, got list"),
    ((A, None, 0.5), "second must be a tensor, got NoneType"),
    ((A, B[:-1], 0.5), "second must have the shape of first (7,), got (6,)"),
    ((A, B, 1.5), "lam must lie in [0, 1], got 1.5"),
    ((A, B, -0.1), "lam must lie in [0, 1], got -0.1"),
    ((A, B, NAN), "lam must lie in [0, 1], got nan"),
    ((A, B, "half"), "lam must be a number or a tensor, got str"),
    ((A, B, LAM + 0.5), "lam must lie in [0, 1], got 1.1"),
    ((A, B, LAM[:-1]), "lam must broadcast against first (7,), got (6,)"),
    ((A, B, LAM[:, None]), "lam must broadcast against first (7,), got (7, 1)"),
]
ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    (
        {"target": mixed(A[:-1], B[:-1], 0.5)},
        "target must have shape (7,) (class indices) for input of shape (7, 5), got (6,)",
    ),
    (
        {"target": mixed(A, B + 1, 0.5)},
        "target must hold class indices in [0, 5) or ignore_index=-100, got 5",
    ),
    (
        {"target": mixed(A - 1, B, 0.5)},
        "target must hold class indices in [0, 5) or ignore_index=-100, got -1",
    ),
    (
        {"target": mixed(A.float(), B, 0.5)},
        "target must hold integer class indices when its shape is the input's without the 5 classes, got "
        "torch.float32; of labels take target.long()",
    ),
    (
        {"target": mixed(Z.softmax(-1), Z.softmax(-1), 0.5)},
        "target must hold class indices of shape (7,); of one-hot labels take target.argmax(1); got "
        "torch.float64 of shape (7, 5)",
    ),
    (
        {"target": mixed(A, B, 0.5), "label_smoothing": by_class(WEIGHT / 2)},
        "label_smoothing: by_class goes with class indices, got mixed labels",
    ),
    (
        {"target": mixed(A, B, 0.5), "off_target": "others", "prior": FEW},
        'off_target="others" takes one label for each row with a prior of a few classes, got several',
    ),
    ({"target": mixed(A.to("meta"), B.to("meta"), 0.5)}, "target must be on input's device cpu, got meta"),
    ({"target": mixed(A, B.to("meta"), 0.5)}, "target must be on input's device cpu, got meta"),
    ({"prior": PerSample(ROWS[:-1])}, "prior of each sample must have the input's shape (7, 5), got (6, 5)"),
    ({"prior": PerSample(SHARES)}, "prior of each sample must have the input's shape (7, 5), got (7, 4)"),
    (
        {"prior": PerSample(SHARES[:-1], CLASSES[:-1])},
        "prior of each sample must have its classes, and as many probabilities, in shape (7, k), got (6, "
        "4) and (6, 4)",
    ),
    (
        {"prior": PerSample(SHARES, CLASSES[:, :2])},
        "prior of each sample must have its classes, and as many probabilities, in shape (7, k), got (7, "
        "2) and (7, 4)",
    ),
    (
        {"prior": PerSample(SHARES[0], CLASSES[0])},
        "prior of each sample must have its classes, and as many probabilities, in shape (7, k), got "
        "(4,) and (4,)",
    ),
    ({"prior": PerSample(SHARES, CLASSES + 1)}, "prior of each sample must have classes in [0, 5), got 5"),
    ({"prior": PerSample(SHARES, CLASSES - 1)}, "prior of each sample must have classes in [0, 5), got -1"),
    ({"prior": PerSample(ROWS.to("meta"))}, "prior must be on input's device cpu, got meta"),
    (
        {"prior": PerSample(SHARES.to("meta"), CLASSES.to("meta"))},
        "prior must be on input's device cpu, got meta",
    ),
    ({"prior": PerSample(SHARES, CLASSES.to("meta"))}, "prior must be on input's device cpu, got meta"),
]

cross_entropy: Any = functional.cross_entropy
linear_cross_entropy: Any = functional.linear_cross_entropy
LOSSES = [partial(cross_entropy, Z), partial(linear_cross_entropy, HEAD.input, HEAD.weight)]
CASES: list[tuple[Callable[[], Any], str]] = [(partial(mixed, *pair), message) for pair, message in PAIRS]
CASES += [
    (partial(loss, **{"target": A, "label_smoothing": 0.1, **arguments}), message)
    for loss, (arguments, message) in product(LOSSES, ARGUMENTS)
]
