"""What the z-loss adds, under every way to weight rows: a scale of the weights cancels in a mean."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from labelsmooth import functional, mixed
from labelsmooth.engines import available
from labelsmooth.formulas import ConfidencePenalty, LabelSmoothing

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

N, D, K, Z = 6, 4, 5, 0.03
ENGINES = ["reference", *(["dense"] if available()["dense"].present else [])]
generator = torch.Generator().manual_seed(0)
H, HEAD = (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (N, K))
INPUT = H @ HEAD.T
LABELS = torch.tensor([0, 3, -100, 1, 4, 3])
SECOND = torch.tensor([2, 2, -100, 1, 0, 0])
SOFT = torch.rand(N, K, generator=generator, dtype=torch.float64).softmax(-1)
SHARE = F.one_hot(LABELS.clamp(min=0), K).double()
BOTH = 0.7 * SHARE + 0.3 * F.one_hot(SECOND.clamp(min=0), K)
WEIGHT = torch.rand(K, generator=generator, dtype=torch.float64) + 0.5
SAMPLE = torch.tensor([1.0, 0.5, 2.0, 0.0, 1.0, 3.0], dtype=torch.float64)
TARGETS: dict[str, tuple[Any, Tensor, Tensor]] = {  # with the class probabilities, and the rows that count
    "labels": (LABELS, SHARE, LABELS != -100),
    "mixed": (mixed(LABELS, SECOND, 0.7), BOTH, LABELS != -100),
    "soft": (SOFT, SOFT, torch.ones(N, dtype=torch.bool)),
}


def logits(options: dict[str, Any], engine: str, target: Any) -> Tensor:
    return cross_entropy(INPUT, target, engine=engine, **options)


def head(options: dict[str, Any], engine: str, target: Any) -> Tensor:
    return linear_cross_entropy(H, HEAD, target, **options)


LOSSES = [(logits, engine) for engine in ENGINES] + [(head, "linear")]


@pytest.mark.parametrize("formula", [LabelSmoothing(), ConfidencePenalty()], ids=str)
@pytest.mark.parametrize("sample_weight", [None, SAMPLE], ids=["rows", "sample_weight"])
@pytest.mark.parametrize("weighting", [None, "torch", "sample"])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("loss", "engine"), LOSSES, ids=lambda x: getattr(x, "__name__", x))
def test_weighted_as_its_row(
    loss: Any, engine: str, target: str, weighting: Any, sample_weight: Tensor | None, formula: Any
) -> None:
    given, t, counted = TARGETS[target]
    options: dict[str, Any] = {"label_smoothing": 0.1, "formula": formula, "sample_weight": sample_weight}
    if weighting is not None:
        options |= {"weight": WEIGHT, "weighting": weighting}
    by_row = (1.0 if sample_weight is None else sample_weight) * counted
    by_class = torch.ones(N, dtype=torch.float64) if weighting is None else t @ WEIGHT
    term = Z * by_row * by_class * INPUT.logsumexp(-1).square()
    # Torch's mean over class probabilities is over the rows.
    counts = by_row if weighting == "torch" and target != "labels" else by_row * by_class
    means = {"none": term, "sum": term.sum(), "mean": term.sum() / counts.sum()}
    for reduction, expected in means.items():
        given_options = options | {"reduction": reduction}
        added = loss(given_options | {"z_loss": Z}, engine, given) - loss(given_options, engine, given)
        assert_close(added, expected)
    over = options | {"denominator": 7.0}
    assert_close(loss(over | {"z_loss": Z}, engine, given) - loss(over, engine, given), term.sum() / 7)


@pytest.mark.parametrize("weighting", ["torch", "sample"])
@pytest.mark.parametrize(("loss", "engine"), LOSSES, ids=lambda x: getattr(x, "__name__", x))
def test_a_scale_of_the_weights_cancels(loss: Any, engine: str, weighting: Any) -> None:
    options: dict[str, Any] = {"label_smoothing": 0.1, "weighting": weighting, "z_loss": Z}
    one, ten = (loss(options | {"weight": w}, engine, LABELS) for w in (WEIGHT, 10 * WEIGHT))
    assert_close(one, ten)
