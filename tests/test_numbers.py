"""Numbers of NumPy are taken wherever Python's are, and give what these give."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import labelsmooth
from labelsmooth import formulas, functional, mixed, priors, schedules

Z = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 0.25], [1.0, 1.0, 0.5]])
Y = torch.tensor([0, 2, 1])
H, W = (
    torch.tensor([[1.0, 0.5], [0.0, 2.0], [-1.0, 1.0]]),
    torch.tensor([[1.0, 0.0], [0.5, 1.0], [0.0, -1.0]]),
)
ON = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])

# Each takes a real number, 0.5, or an integer, 3, in whatever type.
cross_entropy: Any = functional.cross_entropy
linear_cross_entropy: Any = functional.linear_cross_entropy
REALS: dict[str, Callable[[Any], Tensor]] = {
    "label_smoothing": lambda x: cross_entropy(Z, Y, label_smoothing=x),
    "label_smoothing, reference": lambda x: cross_entropy(Z, Y, label_smoothing=x, engine="reference"),
    "z_loss": lambda x: cross_entropy(Z, Y, label_smoothing=0.1, z_loss=x),
    "denominator": lambda x: cross_entropy(Z, Y, denominator=x),
    "label_smoothing_loss": lambda x: functional.label_smoothing_loss(Z, Y, x),
    "linear": lambda x: linear_cross_entropy(H, W, Y, label_smoothing=x),
    "scale": lambda x: linear_cross_entropy(H, W, Y, scale=x),
    "softcap": lambda x: linear_cross_entropy(H, W, Y, softcap=x),
    "binary": lambda x: functional.binary_cross_entropy_with_logits(Z, ON, label_smoothing=x),
    "binary prior": lambda x: functional.binary_cross_entropy_with_logits(
        Z, ON, label_smoothing=0.1, prior=x
    ),
    "lam": lambda x: cross_entropy(Z, mixed(Y, Y.flip(0), x)),
    "CrossEntropyLoss": lambda x: labelsmooth.CrossEntropyLoss(label_smoothing=x, z_loss=x)(Z, Y),
    "LabelSmoothingLoss": lambda x: labelsmooth.LabelSmoothingLoss(x)(Z, Y),
    "BCEWithLogitsLoss": lambda x: labelsmooth.BCEWithLogitsLoss(label_smoothing=x, prior=x)(Z, ON),
    "OnlineLabelSmoothing": lambda x: labelsmooth.OnlineLabelSmoothing(3, label_smoothing=x)(Z, Y),
    "constant": lambda x: cross_entropy(Z, Y, label_smoothing=schedules.constant(x)),
    "linear schedule": lambda x: cross_entropy(Z, Y, label_smoothing=schedules.linear(x, x / 2, steps=2)),
    "cosine": lambda x: cross_entropy(Z, Y, label_smoothing=schedules.cosine(x, x, steps=2)),
    "warm_up": lambda x: cross_entropy(Z, Y, label_smoothing=schedules.warm_up(x, steps=0)),
    "delayed": lambda x: cross_entropy(Z, Y, label_smoothing=schedules.delayed(x, steps=0)),
    "drop_late": lambda x: cross_entropy(Z, Y, label_smoothing=schedules.drop_late(x, steps=1)),
    "by_counts": lambda x: schedules.by_counts(torch.tensor([5, 3, 1]), head=x, tail=x / 4).eps,
    "by_counts, power": lambda x: schedules.by_counts(Y + 1, 0.3, 0.1, "exponential", power=x).eps,
    "graduated": lambda x: schedules.graduated(Z.sigmoid(), (x / 2, x), (0.0, x, x)),
    "unigram": lambda x: priors.unigram(torch.tensor([5, 3, 1]), temperature=x).probabilities,
    "sord": lambda x: priors.sord(3, alpha=x).probabilities,
    "exponential": lambda x: priors.exponential(3, power=x, tau=x).probabilities,
    "teacher": lambda x: priors.teacher(Z, temperature=x).probabilities,
    "neighbourhood": lambda x: priors.neighbourhood(Y.unsqueeze(0), sigma=x).probabilities,
    **{
        f"formula {name}": lambda x, formula=formula: cross_entropy(
            Z, Y, label_smoothing=0.3, formula=formula(x)
        )
        for name, formula in {
            "margin": lambda x: formulas.MarginSmoothing(margin=x),
            "threshold": lambda x: formulas.ConfidencePenalty(threshold=x),
            "gamma": lambda x: formulas.Focal(gamma=x),
            "clip": lambda x: formulas.NegativeSmoothing(clip=x),
        }.items()
    },
}
INTEGERS: dict[str, Callable[[Any], Tensor]] = {
    "ignore_index": lambda k: cross_entropy(Z, Y, ignore_index=k - 3),
    "ignore_index of a head": lambda k: linear_cross_entropy(H, W, Y, ignore_index=k - 3),
    "ignore_index of smoothing_term": lambda k: functional.smoothing_term(H, W, Y, ignore_index=k - 3),
    "ignore_index of a module": lambda k: labelsmooth.CrossEntropyLoss(ignore_index=k - 3)(Z, Y),
    "dim": lambda k: functional.label_smoothing_loss(Z, Y, 0.1, k - 2),
    "dim of a module": lambda k: labelsmooth.LabelSmoothingLoss(0.1, dim=k - 2)(Z, Y),
    "OnlineLabelSmoothing": lambda k: labelsmooth.OnlineLabelSmoothing(k)(Z, Y),
    "LinearCrossEntropyLoss": lambda k: torch.tensor(
        labelsmooth.LinearCrossEntropyLoss(k, k, out_features=(k,)).linear.weight.shape
    ),
    "steps": lambda k: schedules.linear(0.0, 0.9, steps=k)._now(),
    "uniform": lambda k: priors.uniform(k).probabilities,
    "masked": lambda k: priors.masked(torch.tensor([True, False, True])).probabilities * k,
    "sord": lambda k: priors.sord(k).probabilities,
    "exponential": lambda k: priors.exponential(k).probabilities,
    "triangular": lambda k: priors.triangular(k).probabilities,
    "binomial": lambda k: priors.binomial(k).probabilities,
    "beta": lambda k: priors.beta(k).probabilities,
    "teacher": lambda k: priors.teacher(Z, k=k).probabilities,
    "neighbourhood": lambda k: priors.neighbourhood(Y.unsqueeze(0), size=k).probabilities,
}


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64], ids=lambda x: x.__name__)
@pytest.mark.parametrize("name", REALS)
def test_reals(name: str, kind: type) -> None:
    expected, found = REALS[name](0.5), REALS[name](kind(0.5))
    assert found.dtype == expected.dtype
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8], ids=lambda x: x.__name__)
@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str, kind: type) -> None:
    if "ignore" in name or "dim" in name:
        kind = np.int64
    expected, found = INTEGERS[name](3), INTEGERS[name](kind(3))
    assert found.dtype == expected.dtype
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_module_holds_numbers_of_python(compiled: bool) -> None:
    criterion = labelsmooth.CrossEntropyLoss(label_smoothing=np.float32(0.5))  # pyright: ignore[reportArgumentType]
    assert type(criterion.label_smoothing) is float
    called = torch.compile(criterion, fullgraph=True, backend="aot_eager") if compiled else criterion
    assert_close(called(Z, Y), cross_entropy(Z, Y, label_smoothing=0.5))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"label_smoothing": np.float32(0.5)}, {"z_loss": np.float32(0.5)}, {"ignore_index": np.int64(1)}],
    ids=str,
)
def test_modules_made_with_them_compile(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    criterion = labelsmooth.CrossEntropyLoss(**options)
    compiled = torch.compile(criterion, fullgraph=True, backend="aot_eager")
    assert_close(compiled(Z, Y), criterion(Z, Y))


@pytest.mark.parametrize("bad", [np.float32("nan"), np.float64(-0.1), np.int64(2), "0.1", np.zeros(2), 1j])
def test_others_are_refused_by_name(bad: Any) -> None:
    for loss in (
        cross_entropy,
        lambda z, y, label_smoothing: labelsmooth.LabelSmoothingLoss(label_smoothing)(z, y),
    ):
        with pytest.raises(ValueError, match=r"smoothing must"):
            loss(Z, Y, label_smoothing=bad)
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 1"):
        labelsmooth.OnlineLabelSmoothing(np.float32(3))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="num_classes must be an integer of at least 1"):
        labelsmooth.OnlineLabelSmoothing(True)
