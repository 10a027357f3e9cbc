"""What formulas refuse: strengths out of range, statistics not asked for, options that make no sense."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, by_class, functional, mixed, schedules
from labelsmooth.formulas import (
    BackwardCorrection,
    ConfidencePenalty,
    Focal,
    Formula,
    ForwardCorrection,
    LabelRelaxation,
    LabelSmoothing,
    MarginSmoothing,
    MaxSup,
    NegativeSmoothing,
    RowStatistics,
    times,
)
from tests.cases import INF, NAN

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

RANGES = [
    (LabelSmoothing(), "[0, 1]", [-0.1, 1.1]),
    (NegativeSmoothing(), "(-inf, 1]", [1.5, -INF, NAN]),
    (MaxSup(), "[0, inf)", [-0.1, INF]),
    (MarginSmoothing(), "[0, inf)", [-0.1, INF]),
    (ConfidencePenalty(), "[0, inf)", [-0.1, INF]),
    (LabelRelaxation(), "[0, 1]", [-0.1, 1.1]),
    (Focal(), "[0, 1]", [-0.1, 1.1]),
    (ForwardCorrection(), "[0, 1]", [-0.1, 1.1, NAN]),
    (BackwardCorrection(), "[0, 1)", [-0.1, 1.0]),
]
Z, Y = torch.zeros(2, 3), torch.tensor([0, 1])


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is the answer
        call()
    return str(caught.value)


@pytest.mark.parametrize(("formula", "interval", "values"), RANGES, ids=repr)
def test_strengths_out_of_range(formula: Formula, interval: str, values: list[float]) -> None:
    for value in values:
        message = f"label_smoothing must lie in {interval}, got {torch.tensor(value).item()}"
        each = torch.tensor([0.5, value])
        exact: Any = torch.tensor(value, dtype=torch.float64)
        said = f"label_smoothing must lie in {interval}, got {value}"
        assert refused(lambda v=value: cross_entropy(Z, Y, label_smoothing=v, formula=formula)) == said
        assert refused(lambda e=exact: cross_entropy(Z, Y, label_smoothing=e, formula=formula)) == said
        assert refused(lambda e=each: cross_entropy(Z, Y, label_smoothing=e, formula=formula)) == message
        assert refused(lambda v=value: CrossEntropyLoss(label_smoothing=v, formula=formula)) == said
        given = {"label_smoothing": value, "formula": formula}
        assert refused(lambda g=given: linear_cross_entropy(Z, torch.zeros(3, 3), Y, **g)) == said
        if math.isfinite(value):
            schedule = schedules.constant(value)
            assert (
                refused(lambda s=schedule: cross_entropy(Z, Y, label_smoothing=s, formula=formula)) == message
            )


def test_strengths_of_classes_lie_in_the_range_of_the_formula() -> None:
    weak = by_class(torch.tensor([-2.0, -1.0, 0.0]))
    loss = cross_entropy(Z, Y, label_smoothing=weak, formula=NegativeSmoothing(), reduction="none")
    assert_close(loss, torch.full((2,), math.log(3)))
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\], got -2"):
        cross_entropy(Z, Y, label_smoothing=weak)


Use = Callable[[RowStatistics, Tensor], Any]


@dataclass(frozen=True)
class Own(Formula):
    use: Use

    def __call__(self, s: RowStatistics, eps: Tensor) -> Tensor:
        return self.use(s, eps)


UNASKED: dict[str, tuple[str, list[Use]]] = {
    "model_z": ("spread = True", [lambda s, eps: s.lse - s.model_z, lambda s, eps: -s.model_z]),
    "hinge": (
        "a property hinge that returns (margin, squared)",
        [
            lambda s, eps: s.lse + times(eps, s.hinge),
            lambda s, eps: 2**s.hinge,
            lambda s, eps: s.hinge.exp(),
            lambda s, eps: s.lse if s.hinge else eps,
            lambda s, eps: s.lse * (s.hinge == 0),
        ],
    ),
    "overlap": ("overlap = True", [lambda s, eps: torch.stack([s.lse, s.overlap])]),  # pyright: ignore
}


@pytest.mark.parametrize("statistic", UNASKED)
def test_statistics_have_to_be_asked_for(statistic: str) -> None:
    rule, uses = UNASKED[statistic]
    for use in uses:
        said = f"formula Own uses {statistic}, and so must have {rule}"
        assert refused(lambda use=use: cross_entropy(Z, Y, formula=Own(use))) == said
        assert refused(lambda use=use: linear_cross_entropy(Z, torch.eye(3), Y, formula=Own(use))) == said


@pytest.mark.parametrize(
    ("use", "got"),
    [
        (lambda s, eps: s.lse.mean(), "()"),
        (lambda s, eps: eps, "()"),
        (lambda s, eps: s.lse.unsqueeze(-1), "(2, 1)"),
        (lambda s, eps: 1.0, "float"),
    ],
)
def test_a_formula_has_a_loss_for_each_row(use: Use, got: str) -> None:
    message = f"formula Own must return one loss for each row, in shape (2,), got {got}"
    assert refused(lambda: cross_entropy(Z, Y, label_smoothing=0.1, formula=Own(use))) == message


@pytest.mark.parametrize("formula", [ForwardCorrection(), BackwardCorrection()], ids=repr)
@pytest.mark.parametrize("target", [Y, mixed(Y, Y, 0.5), torch.eye(3)[:2]], ids=["hard", "mixed", "soft"])
def test_wrong_labels_are_drawn_from_one_prior(formula: Formula, target: Any) -> None:
    name = type(formula).__name__
    said = refused(lambda: cross_entropy(Z, target, formula=formula, prior=torch.eye(3)))
    assert said.startswith(f"prior must be the same for all classes with {name}")
    said = refused(lambda: cross_entropy(Z, target, formula=formula, off_target="others"))
    assert said.startswith(f'off_target must be "all" with {name}')


@pytest.mark.parametrize(
    ("given", "name"), [(MaxSup, "the class MaxSup"), ("maxsup", "str"), (None, "NoneType"), (0.1, "float")]
)
def test_what_is_no_formula(given: Any, name: str) -> None:
    message = f"formula must be a Formula, such as MaxSup(), got {name}"
    assert refused(lambda: cross_entropy(Z, Y, formula=given)) == message
    assert refused(lambda: CrossEntropyLoss(formula=given)) == message
    assert refused(lambda: linear_cross_entropy(Z, torch.zeros(3, 3), Y, formula=given)) == message


def make(formula: Any, *arguments: Any, **options: Any) -> Formula:
    return formula(*arguments, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(NegativeSmoothing, 0), "clip must be above 0, got 0"),
        (lambda: make(NegativeSmoothing, NAN), "clip must be above 0, got nan"),
        (lambda: make(MarginSmoothing, -1), "margin must be finite and at least 0, got -1"),
        (lambda: make(MarginSmoothing, INF), "margin must be finite and at least 0, got inf"),
        (lambda: make(MarginSmoothing, torch.tensor(1.0)), "margin must be a number, got Tensor"),
        (lambda: make(ConfidencePenalty, 0), "threshold must be finite and above 0, got 0"),
        (lambda: make(Focal, -1), "gamma must be finite and at least 0, got -1"),
        (lambda: make(Focal, "3"), "gamma must be a number, got str"),
    ],
)
def test_options_out_of_range(call: Callable[[], Any], message: str) -> None:
    assert refused(call) == message
