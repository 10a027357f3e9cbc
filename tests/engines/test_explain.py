"""What `explain` says of a call is what the call does."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from labelsmooth import engines, formulas, mixed, priors
from labelsmooth.engines import available, explain
from labelsmooth.functional import cross_entropy, linear_cross_entropy

DENSE = available()["dense"]
built = pytest.mark.skipif(not DENSE.present, reason=str(DENSE))

Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 1, 2, 0, -100, 1])
H, W = Z[:, :2], torch.randn(4, 2, generator=torch.Generator().manual_seed(1))
PRIOR = torch.tensor([0.2, 0.3, 0.5])

# Options, the engine, and why the loss is not the plain one.
CALLS: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "plain": ({"label_smoothing": 0.1, "reduction": "sum", "ignore_index": -100}, "dense", None),
    "defaults": ({"prior": None, "formula": formulas.LabelSmoothing(), "z_loss": 0.0}, "dense", None),
    "prior": ({"prior": PRIOR}, "dense", "prior is given"),
    "weight": ({"weight": torch.ones(3)}, "dense", "weight is given"),
    "formula": ({"formula": formulas.MaxSup()}, "dense", "formula is given"),
    "none": ({"reduction": "none"}, "dense", "reduction is 'none'"),
    "strengths": ({"label_smoothing": torch.full((6,), 0.1)}, "dense", "label_smoothing is not one number"),
    "asked": ({"engine": "reference"}, "reference", "engine='reference' is asked for"),
}


@built
@pytest.mark.parametrize("name", CALLS)
def test_the_engine_and_the_reason(name: str) -> None:
    options, engine, reason = CALLS[name]
    found = explain(Z, Y, **options)
    assert found.engine == engine
    assert found.obstacles.get("plain loss") == reason
    assert str(found).startswith(f"{engine}: ")
    assert all(f"not {name}: {why}" in str(found) for name, why in found.obstacles.items())


@built
@pytest.mark.parametrize("name", CALLS)
def test_the_plain_loss_is_one_step_of_autograd(name: str) -> None:
    """The call itself, whose plain loss has a node of its own."""
    options, engine, reason = CALLS[name]
    loss: Tensor = cross_entropy(Z.clone().requires_grad_(), Y, **options)
    node = type(loss.grad_fn).__name__
    assert (node == "_UniformBackward") == (reason is None)
    assert (node == "_LossBackward") == (reason is not None and engine == "dense")


DEFERRED: dict[str, tuple[dict[str, Any], str | None]] = {
    "prior": ({"prior": PRIOR}, None),
    "MaxSup": ({"formula": formulas.MaxSup()}, None),
    "none": ({"reduction": "none", "prior": PRIOR}, "reduction='none' brings a factor for each row"),
    "Focal": ({"formula": formulas.Focal()}, "Focal is no sum of factors and terms"),
    "few": (
        {"prior": priors.per_sample(torch.ones(6, 1), torch.zeros(6, 1, dtype=torch.long))},
        "the prior is over a few classes of each row",
    ),
}


@built
@pytest.mark.parametrize("name", DEFERRED)
def test_why_the_gradient_is_computed_later(name: str) -> None:
    options, reason = DEFERRED[name]
    assert explain(Z, Y, **options).obstacles.get("gradient with the loss") == reason


@built
def test_what_the_kernel_does_not_serve() -> None:
    labels = mixed(Y, Y, 0.5)
    found = explain(Z, labels, prior=torch.eye(3))
    assert found.engine == "reference"
    assert found.obstacles["plain loss"] == "prior is given"
    assert found.obstacles["dense"].startswith("it does not mix priors by class")
    assert explain(Z, labels).obstacles["plain loss"] == "target holds pairs of labels"
    with torch.device("meta"):
        assert explain(torch.empty(2, 3), torch.empty(2, dtype=torch.long)).engine == "reference"


@built
def test_a_linear_head() -> None:
    found = explain(H, Y, linear_weight=W)
    assert (found.engine, found.detail) == ("linear", "chunks of rows by dense")
    assert explain(H, Y, linear_weight=W, engine="dense").detail == "chunks of rows by dense"
    asked = explain(H, Y, linear_weight=W, engine="reference")
    assert (asked.engine, asked.obstacles) == ("reference", {"linear": "engine='reference' is asked for"})
    learned = explain(H, Y, linear_weight=W, prior=torch.full((4,), 0.25, requires_grad=True))
    assert learned.engine == "reference"
    assert learned.obstacles["linear"].startswith("a gradient is asked for")


def test_an_engine_of_chunks() -> None:
    expected = linear_cross_entropy(H, W, Y, label_smoothing=0.1, engine="reference")
    if DENSE.present:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            found = linear_cross_entropy(H, W, Y, label_smoothing=0.1, engine="dense")
        torch.testing.assert_close(found, expected)
        assert "aten::exp" not in {event.key for event in seen.key_averages()}
    if not engines.available()["triton"].present:
        with pytest.raises(ValueError, match=r"^engine='triton' cannot serve: .*; engine='\w+' can$"):
            linear_cross_entropy(H, W, Y, engine="triton")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"lable_smoothing": 0.1},
            TypeError,
            "explain() got an unexpected keyword argument 'lable_smoothing'",
        ),
        ({"label_smoothing": 2}, ValueError, "label_smoothing must lie in [0, 1], got 2"),
        ({"engine": "fast"}, ValueError, "engine must be one of 'reference', 'dense', 'triton', got 'fast'"),
    ],
)
def test_bad_input(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        explain(Z, Y, **options)
    assert str(caught.value).startswith(message)
