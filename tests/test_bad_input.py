"""What is just not refused, and where values are not looked at; what is refused is in tests/errors."""

from typing import Any

import pytest
import torch

from labelsmooth.functional import cross_entropy, label_smoothing_loss
from tests.errors.logits import INPUT, NAN, TARGET, loss, t


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
    loss(**arguments, reduction="mean")


# Where values cannot be read without a graph break, a strength out of range shows in the loss.
@pytest.mark.slow
@pytest.mark.parametrize("eps", [-0.1, 1.5, NAN])
def test_strength_out_of_range_is_nan_where_values_are_not_read(eps: float) -> None:
    strength = torch.tensor([0.1, eps])
    torch.compiler.reset()
    compiled = torch.compile(cross_entropy, fullgraph=True, backend="eager")
    found = compiled(INPUT, TARGET, label_smoothing=strength, reduction="none")
    assert found.isnan().tolist() == [False, True]
    found = torch.vmap(lambda eps: cross_entropy(INPUT[0], TARGET[0], label_smoothing=eps))(strength)
    assert found.isnan().tolist() == [False, True]
    found = torch.vmap(lambda eps: label_smoothing_loss(INPUT, TARGET, eps))(strength)
    assert found.isnan().tolist() == [False, True]


@pytest.mark.slow
def test_compiled_float_out_of_range_is_an_error_all_the_same() -> None:
    torch.compiler.reset()
    compiled = torch.compile(cross_entropy, backend="eager")
    with pytest.raises(ValueError, match="label_smoothing must lie in"):
        compiled(INPUT, TARGET, label_smoothing=1.5)
