"""The shapes of language models: classes last, labels shifted, heads shared, predictions without logits."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close

from labelsmooth import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    LabelSmoothingLoss,
    LinearCrossEntropyLoss,
    OnlineLabelSmoothing,
    functional,
    mixed,
)
from labelsmooth.functional import (
    Predictions,
    causal_cross_entropy,
    cross_entropy,
    next_tokens,
)
from labelsmooth.priors import PerSample
from tests.cases import chunks, random
from tests.table import SERVED

linear_cross_entropy: Any = functional.linear_cross_entropy  # which takes options from dictionaries here
B, L, D = 3, 5, 4


def moved(x: Any, dim: int) -> Any:
    """What has the classes in torch's dimension, with the classes in another."""
    if isinstance(x, Tensor):
        return x.movedim(min(1, x.dim() - 1), dim)
    return x._replace(probabilities=moved(x.probabilities, dim))


SHAPED = [case for case in SERVED if case.name.startswith(("shape", "drawn", "mixed-ignoring"))]


@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("case", SHAPED, ids=str)
def test_classes_in_another_dimension(case: Any, dim: int) -> None:
    target, options = case.target, dict(case.options)
    if isinstance(target, Tensor) and target.is_floating_point():
        target = moved(target, dim)
    prior = options.get("prior")
    if isinstance(prior, PerSample) and prior.classes is None:
        options["prior"] = moved(prior, dim)
    z = case.z.clone().requires_grad_()
    expected, found = case.loss(z), functional.cross_entropy(moved(z, dim), target, dim=dim, **options)
    assert_close(found, expected, equal_nan=True)
    by = [torch.autograd.grad(x.sum(), z)[0] for x in (found, expected)]
    assert_close(*by, equal_nan=True)


@pytest.mark.parametrize("K", [7, L], ids=["K", "K equals L"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"prior": True}, {"reduction": "none"}], ids=str)
def test_causal(K: int, dtype: torch.dtype, options: Any) -> None:
    """Against logits and labels that are sliced by hand, as Transformers does."""
    z, labels = random(B, L, K).to(dtype).requires_grad_(), torch.arange(B * L).reshape(B, L) * 3 % K
    labels[0, 2] = -100
    if "prior" in options:
        options = {"prior": torch.arange(1.0, K + 1) / (K * (K + 1) / 2)}
    given: Any = {"label_smoothing": 0.2, **options}
    found, nll = causal_cross_entropy(z, labels, return_nll=True, **given)
    sliced = cross_entropy(z[:, :-1].reshape(-1, K), labels[:, 1:].reshape(-1), return_nll=True, **given)
    if options.get("reduction") == "none":
        assert (found[:, -1] == 0).all()
        found, nll = found[:, :-1].reshape(-1), nll[:, :-1].reshape(-1)
    assert_close((found, nll), sliced)
    by = [torch.autograd.grad(x.sum(), z)[0] for x in (found, sliced[0])]
    assert_close(*by)
    assert (by[0][:, -1] == 0).all()
    assert_close(
        CrossEntropyLoss(dim=-1, **given)(z, next_tokens(labels)), causal_cross_entropy(z, labels, **given)
    )


def test_causal_keeps_the_logits_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "labelsmooth.functional._causal.cross_entropy",
        lambda z, *_, **__: seen.append(z.data_ptr()) or z.sum(),
    )
    z = random(B, L, 3)
    causal_cross_entropy(z, torch.zeros(B, L, dtype=torch.long))
    assert seen == [z.data_ptr()]


@pytest.mark.parametrize("shape", [(0,), (1,), (2, 0), (2, 1), (2, 3, 4)])
def test_next_tokens(shape: tuple[int, ...]) -> None:
    labels = torch.arange(torch.Size(shape).numel()).reshape(shape)
    found = next_tokens(labels, ignore_index=-1)
    assert found.shape == labels.shape
    assert (found[..., -1:] == -1).all()
    assert_close(found[..., :-1], labels[..., 1:])


def test_causal_refuses_class_probabilities() -> None:
    with pytest.raises(
        ValueError, match=r"^labels must hold class indices of shape \(..., L\), got torch.float32 of"
    ):
        causal_cross_entropy(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"^labels must be a tensor, got list"):
        next_tokens([1, 2])  # pyright: ignore[reportArgumentType]


def test_dim_of_a_module() -> None:
    z, target = random(B, L, L), torch.arange(B * L).reshape(B, L) % L
    module = CrossEntropyLoss(label_smoothing=0.1, dim=-1)
    assert_close(module(z, target), F.cross_entropy(z.movedim(-1, 1), target, label_smoothing=0.1))
    assert "dim=-1" in repr(module)
    for dim in ("last", 1.0):
        with pytest.raises(ValueError, match=r"^dim must be an integer, got "):
            CrossEntropyLoss(dim=dim)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match=r"^dim must be an integer, got "):
            cross_entropy(z, target, dim=dim)  # pyright: ignore[reportArgumentType]
    for dim in (3, -4):
        with pytest.raises(ValueError, match=rf"has no class dimension {dim}$"):
            cross_entropy(z, target, dim=dim)


def test_online_smoothing_with_the_classes_last() -> None:
    z, target = random(B, 4, L), torch.arange(B * L).reshape(B, L) % 4
    ours, torchs = OnlineLabelSmoothing(4, dim=-1), OnlineLabelSmoothing(4)
    for _ in range(2):
        assert_close(ours(z.movedim(1, -1), target), torchs(z, target))
        ours.end_epoch()
        torchs.end_epoch()
    assert_close(ours.state_dict(), torchs.state_dict())


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("options", [{}, {"scale": 0.25}, {"softcap": 2.0}], ids=str)
def test_from_linear_shares_the_head(bias: bool, options: dict[str, Any]) -> None:
    K = 7
    embedding = nn.Embedding(K, D)
    linear = nn.Linear(D, K, bias=bias)
    linear.weight = embedding.weight  # tied
    head = LinearCrossEntropyLoss.from_linear(linear, label_smoothing=0.1, **options)
    assert head.linear is linear
    hidden, target = torch.randn(B, L, D), torch.arange(B * L).reshape(B, L) % K
    z = linear(hidden) * options.get("scale", 1.0)
    if "softcap" in options:
        z = options["softcap"] * (z / options["softcap"]).tanh()
    expected = F.cross_entropy(z.flatten(0, -2), target.flatten(), label_smoothing=0.1)
    loss = head(hidden, target)
    assert_close(loss, expected)
    assert_close(*(torch.autograd.grad(x, embedding.weight)[0] for x in (loss, expected)))


def test_from_linear_refuses_another_module() -> None:
    with pytest.raises(ValueError, match=r"^linear must be an nn.Linear, got Embedding: "):
        LinearCrossEntropyLoss.from_linear(nn.Embedding(3, 4))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'soft_cap'; did you mean 'softcap'\?"):
        LinearCrossEntropyLoss.from_linear(nn.Linear(3, 4), soft_cap=1.0)


K = 7
HIDDEN, LABELS = random(B, L, D), torch.arange(B * L).reshape(B, L) * 2 % K
ONE_HOT = F.one_hot(LABELS, K).double()
MODULES: dict[str, tuple[Any, Any, Tensor]] = {
    "CrossEntropyLoss": (CrossEntropyLoss(label_smoothing=0.3, dim=-1), random(B, L, K), LABELS),
    "LabelSmoothingLoss": (LabelSmoothingLoss(0.3), random(B, L, K), LABELS),
    "BCEWithLogitsLoss": (BCEWithLogitsLoss(label_smoothing=0.3), random(B, L, K), ONE_HOT),
    "OnlineLabelSmoothing": (OnlineLabelSmoothing(K, dim=-1), random(B, L, K), LABELS),
    "LinearCrossEntropyLoss": (
        LinearCrossEntropyLoss(D, K, label_smoothing=0.3, dtype=torch.float64), HIDDEN, LABELS
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_every_module_returns_the_nll(name: str) -> None:
    module, x, target = MODULES[name]
    z = module.linear(x) if name == "LinearCrossEntropyLoss" else x
    rows = z.reshape(-1, K), target.reshape(-1, K) if target.is_floating_point() else target.reshape(-1)
    plain = F.binary_cross_entropy_with_logits if name == "BCEWithLogitsLoss" else F.cross_entropy
    expected = plain(*rows) * (L if name == "LabelSmoothingLoss" else 1)  # which divides by the batch
    x = x.clone().requires_grad_()
    loss, nll = module(x, target, return_nll=True)
    assert_close(loss, module(x, target))
    assert_close(nll, expected.detach())
    assert loss.requires_grad
    assert not nll.requires_grad
    assert not loss.isclose(nll)


def test_the_nll_of_an_empty_batch() -> None:
    z, target = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
    loss, nll = functional.label_smoothing_loss(z, target, return_nll=True)
    assert loss.isnan()
    assert nll.isnan()


def test_online_smoothing_observes_beside_the_nll() -> None:
    one, other = OnlineLabelSmoothing(K, dim=-1), OnlineLabelSmoothing(K, dim=-1)
    z = random(B, L, K) + 3 * ONE_HOT
    one(z, LABELS)
    other(z, LABELS, return_nll=True)
    assert one.counts.sum() > 0
    assert_close(one.state_dict(), other.state_dict())


@pytest.mark.parametrize("name", ["CrossEntropyLoss", "BCEWithLogitsLoss", "LinearCrossEntropyLoss"])
def test_train_only_is_off_without_gradients(name: str) -> None:
    module, x, target = MODULES[name]
    module.train_only = True
    try:
        smoothed, nll = module(x, target, return_nll=True)
        with torch.no_grad():
            assert_close(module(x, target), nll)
        with torch.inference_mode():
            assert_close(module(x, target).clone(), nll)
        assert_close(module.eval()(x, target).detach(), nll)
        assert not smoothed.isclose(nll)
    finally:
        module.train().train_only = False
    with torch.no_grad():
        assert_close(module(x, target), smoothed.detach())


def test_online_smoothing_takes_an_evaluation_for_no_training() -> None:
    z = random(B, L, K) + 3 * ONE_HOT
    counts: list[Tensor] = []
    module = OnlineLabelSmoothing(K)
    for train_only in (False, True):
        module = OnlineLabelSmoothing(K, dim=-1, train_only=train_only)
        with torch.no_grad():
            module(z, LABELS)
        counts.append(module.counts.sum().clone())
    assert counts[0] > 0
    assert counts[1] == 0
    module(z, LABELS)
    assert module.counts.sum() == counts[0]


def predictions(z: Tensor, target: Tensor) -> Predictions:
    """By torch alone."""
    ignored = target == -100
    log_q = z.double().log_softmax(-1)
    label = log_q.gather(-1, target.masked_fill(ignored, 0).unsqueeze(-1)).squeeze(-1)
    entropy = torch.distributions.Categorical(logits=z.double()).entropy()
    return Predictions(
        label.masked_fill(ignored, 0.0),
        entropy.masked_fill(ignored, 0.0),
        z.argmax(-1).masked_fill(ignored, -1),
    )


WAYS: dict[str, dict[str, Any]] = {
    "mean": {},
    "none": {"reduction": "none"},
    "weights": {"weight": torch.arange(1.0, K + 1).double(), "z_loss": 0.1},
    "scale and softcap": {"scale": 0.5, "softcap": 2.0},
    "whole logits": {"engine": "reference"},
}


@pytest.mark.parametrize("gradient", [True, False])
@pytest.mark.parametrize("way", WAYS)
def test_predictions_without_logits(way: str, gradient: bool) -> None:
    options = WAYS[way]
    weight = random(K, D)
    target = LABELS.masked_fill(torch.arange(B * L).reshape(B, L) % 4 == 1, -100)
    hidden = HIDDEN.clone()
    hidden[0, 1] = torch.nan  # of an ignored row
    leaves = [x.clone().requires_grad_(gradient) for x in (hidden, weight)]
    z = options.get("scale", 1.0) * (HIDDEN @ weight.T)
    z = options["softcap"] * torch.tanh(z / options["softcap"]) if "softcap" in options else z
    chunked = {} if way == "whole logits" else chunks(4)
    given = {"label_smoothing": 0.1, **chunked, **options}
    loss, found = linear_cross_entropy(*leaves, target, return_predictions=True, **given)
    assert isinstance(found, Predictions)
    assert_close(tuple(found), tuple(predictions(z, target)))
    assert not found.log_prob.requires_grad
    expected = linear_cross_entropy(*leaves, target, **given)
    assert_close(loss, expected)
    if gradient:
        both = (torch.autograd.grad(x.sum(), leaves) for x in (loss, expected))
        assert_close(*both)


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_predictions_of_a_module(wrapped: bool, compiled: bool) -> None:
    torch.compiler.reset()
    head = LinearCrossEntropyLoss(D, K, bias=True, label_smoothing=0.1, dtype=torch.float64)
    if wrapped:
        head.linear.register_forward_hook(lambda *_: None)
    target = LABELS.masked_fill(torch.arange(B * L).reshape(B, L) % 4 == 1, -100)
    run: Any = torch.compile(head, backend="aot_eager") if compiled else head
    loss, found = run(HIDDEN, target, return_predictions=True)
    assert_close(loss, head(HIDDEN, target))
    assert_close(tuple(found), tuple(predictions(head.linear(HIDDEN).detach(), target)))


def test_predictions_take_no_product_of_their_own() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    leaves = [x.clone().requires_grad_() for x in (HIDDEN, random(K, D))]
    flops = []
    for asked in ({}, {"return_predictions": True}):
        with FlopCounterMode(display=False) as counter:
            loss = linear_cross_entropy(*leaves, LABELS, label_smoothing=0.1, **asked)
            (loss[0] if asked else loss).backward()
        flops.append(counter.get_total_flops())
    assert flops[0] == flops[1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear_cross_entropy(*leaves, LABELS, return_predictions=True)
    assert counter.get_total_flops() * 3 == flops[0]


def test_predictions_of_half_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        hidden, weight = HIDDEN.to(dtype), random(K, D).to(dtype)
        _, found = linear_cross_entropy(hidden, weight, LABELS, return_predictions=True)
        expected = predictions(F.linear(hidden, weight).float(), LABELS)
        assert found.log_prob.dtype == torch.float32
        assert_close(found.log_prob.double(), expected.log_prob, atol=1e-5, rtol=1e-5)
        assert_close(found.entropy.double(), expected.entropy, atol=1e-5, rtol=1e-5)
        assert_close(found.argmax, expected.argmax)


def test_a_module_without_logits_refuses_what_its_function_refuses() -> None:
    head: Any = LinearCrossEntropyLoss(D, K, dtype=torch.float64)
    for wrap in (False, True):
        if wrap:
            head.linear.register_forward_hook(lambda *_: None)
        with pytest.raises(ValueError, match=r"^target must hold class indices with return_predictions=True"):
            head(HIDDEN, mixed(LABELS, LABELS, 0.5), return_predictions=True)
        with pytest.raises(ValueError, match=r"^return_nll must not be given together"):
            head(HIDDEN, LABELS, return_nll=True, return_predictions=True)
