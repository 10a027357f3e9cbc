"""What holds for every batch."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from labelsmooth.functional import cross_entropy, label_smoothing_loss
from tests import oracle
from tests.cases import ENGINES, PRECISE, gradients

examples = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)


class Batch(NamedTuple):
    input: Tensor  # (N, K)
    hard: Tensor  # (N,)
    soft: Tensor  # (N, K)
    options: dict[str, Any]  # label_smoothing (N,), prior, off_target

    def loss(self, target: Tensor | None = None, **options: Any) -> Tensor:
        """One loss per row, to class indices unless told otherwise."""
        target = self.hard if target is None else target
        merged: dict[str, Any] = {"reduction": "none", **self.options, **options}
        return cross_entropy(self.input, target, **merged)

    def rows(self, keep: Tensor) -> "Batch":
        eps = self.options["label_smoothing"][keep]
        return Batch(
            self.input[keep], self.hard[keep], self.soft[keep], {**self.options, "label_smoothing": eps}
        )


@st.composite
def tensors(draw: st.DrawFn, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    size = torch.Size(shape).numel()
    values = draw(st.lists(st.floats(low, high), min_size=size, max_size=size))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def distributions(shape: tuple[int, ...]) -> st.SearchStrategy[Tensor]:
    return tensors(shape, 0.01, 1).map(lambda x: x / x.sum(-1, keepdim=True))


# Few rows and classes, so that failures are readable, of which there are at least two, so that something can
# be left out; every kind of prior.
@st.composite
def batches(draw: st.DrawFn, priors: tuple[str, ...] = ("uniform", "vector", "matrix")) -> Batch:
    N, K = draw(st.integers(2, 4)), draw(st.integers(3, 5))
    prior = {"uniform": st.none(), "vector": distributions((K,)), "matrix": distributions((K, K))}
    options = {
        "label_smoothing": draw(tensors((N,), 0, 1)),
        "prior": draw(prior[draw(st.sampled_from(priors))]),
        "off_target": draw(st.sampled_from(["all", "others"])),
    }
    hard = torch.tensor(draw(st.lists(st.integers(0, K - 1), min_size=N, max_size=N)))
    return Batch(draw(tensors((N, K), -20, 20)), hard, draw(distributions((N, K))), options)


def gradient(loss: Tensor, input: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), input)[0]


@examples
@given(batches(), st.floats(-100, 100))
def test_a_common_offset_changes_nothing(batch: Batch, offset: float) -> None:
    shifted = batch._replace(input=batch.input + offset)
    assert_close(shifted.loss(), batch.loss())
    assert_close(shifted.loss(batch.soft), batch.loss(batch.soft))


@examples
@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_the_classes_does_not_matter(batch: Batch, random: Any) -> None:
    K = batch.input.size(-1)
    order = torch.tensor(random.sample(range(K), K))
    prior = batch.options["prior"]
    if prior is not None:
        prior = prior[order][:, order] if prior.dim() == 2 else prior[order]
    weight = torch.arange(1.0, K + 1)
    permuted = Batch(
        batch.input[:, order],
        order.argsort()[batch.hard],
        batch.soft[:, order],
        {**batch.options, "prior": prior},
    )
    assert_close(permuted.loss(weight=weight[order]), batch.loss(weight=weight))
    assert_close(permuted.loss(permuted.soft, weight=weight[order]), batch.loss(batch.soft, weight=weight))


@examples
@given(batches(), st.data())
def test_leaving_a_row_out_is_deleting_it(batch: Batch, data: st.DataObject) -> None:
    out = data.draw(st.integers(0, len(batch.hard) - 1))
    keep = torch.arange(len(batch.hard)) != out
    deleted = batch.rows(keep)
    for reduction in ("mean", "sum"):
        expected = deleted.loss(reduction=reduction)
        assert_close(batch.loss(batch.hard.masked_fill(~keep, -100), reduction=reduction), expected)
        assert_close(batch.loss(sample_weight=keep.double(), reduction=reduction), expected)
        soft = batch.loss(batch.soft, sample_weight=keep.double(), reduction=reduction)
        assert_close(soft, deleted.loss(deleted.soft, reduction=reduction))


@examples
@given(batches(priors=("uniform",)), st.data())
def test_masking_a_class_is_deleting_it(batch: Batch, data: st.DataObject) -> None:
    K = batch.input.size(-1)
    out = data.draw(st.integers(0, K - 1))
    keep = torch.arange(K) != out
    hard = torch.where(batch.hard == out, (out + 1) % K, batch.hard)
    soft = batch.soft * keep
    masked = batch._replace(input=batch.input.masked_fill(~keep, -torch.inf).requires_grad_())
    deleted = batch._replace(input=batch.input[:, keep].requires_grad_())
    pairs = (
        (masked.loss(hard), deleted.loss(hard - (hard > out).long())),
        (
            masked.loss(soft / soft.sum(-1, keepdim=True)),
            deleted.loss((soft / soft.sum(-1, keepdim=True))[:, keep]),
        ),
    )
    for ours, expected in pairs:
        assert_close(ours, expected)
        grad = gradient(ours, masked.input)
        assert_close(grad[:, keep], gradient(expected, deleted.input))
        assert not grad[:, out].any()


@examples
@given(batches(), st.sampled_from(["none", "mean", "sum"]))
def test_no_smoothing_is_torchs_cross_entropy(batch: Batch, reduction: Any) -> None:
    options = {"weight": torch.linspace(0.5, 2, batch.input.size(-1)).double(), "reduction": reduction}
    for target in (batch.hard, batch.soft):
        ours = batch.loss(target, label_smoothing=0.0, **options)
        assert_close(ours, F.cross_entropy(batch.input, target, **options))


@examples
@given(batches(priors=("uniform",)))
def test_the_conventions_convert_into_each_other(batch: Batch) -> None:
    # eps over all K classes leaves eps / K on the target: (K - 1) / K of it goes to the others.
    K = batch.input.size(-1)
    for target in (batch.hard, batch.soft):
        others = batch.options["label_smoothing"] * (K - 1) / K
        assert_close(
            batch.loss(target, off_target="others", label_smoothing=others),
            batch.loss(target, off_target="all"),
        )


@examples
@given(batches(), st.floats(0, 1))
def test_divergence_is_cross_entropy_less_entropy(batch: Batch, smoothing: float) -> None:
    K = batch.input.size(-1)
    p = (1 - smoothing) * F.one_hot(batch.hard, K).double() + smoothing / K
    entropy = torch.special.entr(p).sum(-1).mean()
    divergence = label_smoothing_loss(batch.input, batch.hard, smoothing)
    expected = F.cross_entropy(batch.input, batch.hard, label_smoothing=smoothing) - entropy
    assert_close(divergence, expected)
    assert divergence > -1e-12


@examples
@given(batches(), st.floats(0.01, 1))
def test_divergence_is_0_at_the_target(batch: Batch, smoothing: float) -> None:
    K = batch.input.size(-1)
    p = (1 - smoothing) * F.one_hot(batch.hard, K).double() + smoothing / K
    z = p.log().requires_grad_()
    loss = label_smoothing_loss(z, batch.hard, smoothing)
    assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-14)
    assert_close(gradient(loss, z), torch.zeros_like(z), rtol=0, atol=1e-14)


@examples
@given(batches())
def test_gradient_of_a_row_sums_to_0(batch: Batch) -> None:
    leaf = batch._replace(input=batch.input.requires_grad_())
    for target in (batch.hard, batch.soft):
        for weight in (None, torch.linspace(0, 2, batch.input.size(-1))):
            grad = gradient(leaf.loss(target, weight=weight), leaf.input)
            assert_close(grad.sum(-1), torch.zeros(len(grad), dtype=grad.dtype), rtol=0, atol=1e-13)


@examples
@given(batches(), st.sampled_from(["torch", "sample"]))
def test_class_probabilities_of_one_class_are_its_index(batch: Batch, weighting: str) -> None:
    K = batch.input.size(-1)
    options = {"weight": torch.linspace(0, 2, K), "weighting": weighting}
    one_hot = F.one_hot(batch.hard, K).double()
    assert_close(batch.loss(one_hot, **options), batch.loss(**options))


@examples
@given(batches(), st.data())
def test_parts_of_a_batch_add_up(batch: Batch, data: st.DataObject) -> None:
    N = len(batch.hard)
    cut = data.draw(st.integers(0, N))
    parts = (batch.rows(torch.arange(N) < cut), batch.rows(torch.arange(N) >= cut))
    reductions: list[dict[str, Any]] = [{"reduction": "sum"}, {"denominator": N, "reduction": "mean"}]
    for options in reductions:
        assert_close(sum(part.loss(**options) for part in parts), batch.loss(**options))
        assert_close(
            sum(part.loss(part.soft, **options) for part in parts), batch.loss(batch.soft, **options)
        )


@examples
@given(batches(), st.sampled_from(["torch", "sample"]), st.data())
def test_reductions_agree(batch: Batch, weighting: str, data: st.DataObject) -> None:
    N, K = batch.input.shape
    weight, scale = data.draw(tensors((K,), 0.1, 3)), data.draw(tensors((N,), 0.1, 3))
    options = {"weight": weight, "weighting": weighting, "sample_weight": scale}
    soft_counts = scale * (batch.soft @ weight) if weighting == "sample" else scale
    for target, counts in ((batch.hard, scale * weight[batch.hard]), (batch.soft, soft_counts)):
        total = batch.loss(target, reduction="sum", **options)
        assert_close(batch.loss(target, **options).sum(), total)
        assert_close(batch.loss(target, reduction="mean", **options), total / counts.sum())


@examples
@given(batches())
def test_smoothing_a_mixture_is_mixing_the_smoothed(batch: Batch) -> None:
    N, K = batch.input.shape
    each_class = torch.stack([batch.loss(torch.full((N,), k)) for k in range(K)], dim=-1)
    assert_close(batch.loss(batch.soft), (batch.soft * each_class).sum(-1))


@examples
@given(batches(), st.sampled_from(["none", "mean", "sum"]), st.data())
def test_equals_the_textbook(batch: Batch, reduction: str, data: st.DataObject) -> None:
    N, K = batch.input.shape
    z = batch.input.masked_fill(
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=N * K, max_size=N * K))).reshape(N, K),
        -torch.inf,
    )
    options: dict[str, Any] = {**batch.options, "reduction": reduction}
    options["sample_weight"] = data.draw(st.sampled_from([None, torch.linspace(0, 1, N).double()]))
    if data.draw(st.booleans()):
        options["label_smoothing"] = options["label_smoothing"][0]
    weight = data.draw(st.sampled_from([None, torch.linspace(0, 2, K).double()]))
    options["weighting"] = data.draw(st.sampled_from(["torch"] if weight is None else ["torch", "sample"]))
    target = data.draw(st.sampled_from([batch.hard, batch.soft]))
    if target is batch.soft:
        if options["off_target"] == "others" or (
            options["prior"] is not None and options["prior"].dim() == 2
        ):
            target = batch.hard
        else:  # no mass where the logit is masked, or the loss is infinite
            target = target * (z > -torch.inf)
    if target is batch.hard:
        z = z.scatter(-1, target[:, None], batch.input.gather(-1, target[:, None]))
        options["ignore_index"] = data.draw(st.integers(-1, K - 1))
    else:
        z[:, 0], target[:, 0] = batch.input[:, 0], batch.soft[:, 0]
        target /= target.sum(-1, keepdim=True)
    leaf = z.clone().requires_grad_()
    loss, nll = oracle.cross_entropy(leaf, target, weight, **options)
    if reduction == "mean" and not loss.isfinite():  # the weights of the labels add to 0, which divides
        return
    (by_z,) = gradients(loss, [leaf])
    for engine in ENGINES:
        leaf = z.clone().requires_grad_()
        given: Any = {"engine": engine, "return_nll": True, **options}
        found = cross_entropy(leaf, target, weight, **given)
        assert_close((*found, *gradients(found[0], [leaf])), (loss, nll, by_z), equal_nan=True, **PRECISE)
