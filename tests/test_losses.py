"""The modules, and the formulas of other frameworks they stand in for."""

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from expecttest import assert_expected_inline
from torch import Tensor, nn
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LabelSmoothingLoss, by_class
from labelsmooth.functional import cross_entropy, label_smoothing_loss
from labelsmooth.priors import Prior, unigram

N, K = 6, 4
GENERATOR = torch.Generator().manual_seed(0)
INPUT = torch.randn(N, K, dtype=torch.float64, generator=GENERATOR)
SOFT = torch.randn(N, K, dtype=torch.float64, generator=GENERATOR).softmax(-1)
TARGET = torch.tensor([0, 1, 2, 3, 1, 0])
VECTOR = torch.tensor([0.5, 0.3, 0.0, 0.2], dtype=torch.float64)
EPS_K = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=torch.float64)


def value_and_gradient(loss: Callable[[Tensor], Tensor], input: Tensor) -> tuple[Tensor, Tensor]:
    leaf = input.detach().clone().requires_grad_()
    value = loss(leaf)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def literal_loss(pred: Tensor, target: Tensor, smoothing: float) -> Tensor:
    """The literal formula: KLDivLoss to a dense smoothed target, for classes in the last dimension."""
    one_hot = F.one_hot(target, num_classes=pred.size(-1)).to(pred.dtype)
    smoothed = (1 - smoothing) * one_hot + smoothing / pred.size(-1)
    return nn.KLDivLoss(reduction="batchmean")(F.log_softmax(pred, dim=-1), smoothed)


# No smoothing, some, nothing but smoothing. KLDivLoss takes 0 log 0 for 0, as we do.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_label_smoothing_loss_is_the_literal_formula(smoothing: float, dtype: torch.dtype) -> None:
    z = INPUT.to(dtype)
    ours = value_and_gradient(lambda z: LabelSmoothingLoss(smoothing)(z, TARGET), z)
    assert_close(ours, value_and_gradient(lambda z: literal_loss(z, TARGET, smoothing), z))
    assert ours[0].dtype == dtype


# The class dimension at every place of inputs with two to four dimensions, counted from both ends. The
# literal formula has it last; so with it moved there that is the measure, but for the divisor, which is the
# size of the original's first dimension.
@pytest.mark.parametrize(
    ("shape", "dim"), [((5, 3), 0), ((5, 3), 1), ((2, 3, 4), 1), ((2, 3, 4), 2), ((2, 3, 4, 5), 1), ((7,), 0)]
)
def test_dim_is_the_class_dimension(shape: tuple[int, ...], dim: int) -> None:
    z = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = z.roll(1, 0).argmin(dim)
    moved = z.movedim(dim, -1)
    expected = literal_loss(moved, target, 0.1) * moved.size(0) / shape[0]
    for d in (dim, dim - len(shape)):
        assert_close(LabelSmoothingLoss(0.1, dim=d)(z, target), expected)
        assert_close(label_smoothing_loss(z, target, 0.1, d), expected)


def test_masked_classes_are_as_if_deleted() -> None:
    keep = torch.tensor([True, True, False, True])
    target = torch.tensor([0, 1, 3, 0, 0, 1])
    masked = value_and_gradient(
        lambda z: LabelSmoothingLoss(0.3)(z.masked_fill(~keep, -torch.inf), target), INPUT
    )
    deleted = value_and_gradient(lambda z: literal_loss(z[:, keep], target.clamp(max=2), 0.3), INPUT)
    assert_close(masked, deleted)


def test_label_smoothing_loss_of_nothing_is_nan() -> None:
    assert LabelSmoothingLoss()(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)).isnan()


def test_label_smoothing_loss_in_short_types_is_float32() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        loss = LabelSmoothingLoss()(INPUT.to(dtype), TARGET)
        assert_close(loss, literal_loss(INPUT.to(dtype).float(), TARGET, 0.1))


# One entry for each option that forward has to hand on.
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": VECTOR},
        {"label_smoothing": 0.3},
        {"label_smoothing": torch.linspace(0, 1, N)},
        {"label_smoothing": by_class(EPS_K)},
        {"label_smoothing": 0.3, "prior": VECTOR},
        {"label_smoothing": 0.3, "off_target": "others"},
        {"label_smoothing": 0.3, "weight": VECTOR, "weighting": "sample"},
        {"ignore_index": 1},
        {"reduction": "none"},
        {"reduction": "sum"},
    ],
    ids=lambda options: "-".join(options),
)
def test_module_is_the_function(options: dict[str, Any]) -> None:
    scale = torch.linspace(0.5, 2, N).double()
    batch: dict[str, Any] = {"sample_weight": scale}
    if "reduction" not in options:
        batch["denominator"] = 7.0
    assert_close(CrossEntropyLoss(**options)(INPUT, TARGET), cross_entropy(INPUT, TARGET, **options))
    loss = CrossEntropyLoss(**options)(INPUT, TARGET, **batch)
    assert_close(loss, cross_entropy(INPUT, TARGET, **options, **batch))


def test_train_only_smooths_in_training_only() -> None:
    smoothed = F.cross_entropy(INPUT, TARGET, label_smoothing=0.3)
    plain = F.cross_entropy(INPUT, TARGET)
    criterion = CrossEntropyLoss(label_smoothing=0.3, train_only=True)
    assert_close(criterion(INPUT, TARGET), smoothed)
    assert_close(criterion.eval()(INPUT, TARGET), plain)
    assert_close(criterion.train()(INPUT, TARGET), smoothed)
    assert_close(CrossEntropyLoss(label_smoothing=0.3).eval()(INPUT, TARGET), smoothed)
    criterion = CrossEntropyLoss(label_smoothing=0.3, z_loss=0.1, train_only=True)
    assert_close(criterion.eval()(INPUT, TARGET), plain)


def full_criterion(scale: float = 1.0) -> CrossEntropyLoss:
    return CrossEntropyLoss(
        weight=scale * (VECTOR + 1),
        label_smoothing=by_class(scale * EPS_K / 2),
        prior=VECTOR.flip(0) if scale == 1 else VECTOR,
        weighting="sample",
    )


def test_tensors_are_in_the_state_and_nothing_is_a_parameter() -> None:
    criterion = full_criterion()
    assert sorted(criterion.state_dict()) == ["label_smoothing.eps", "prior.probabilities", "weight"]
    assert list(CrossEntropyLoss(label_smoothing=torch.tensor(0.1)).state_dict()) == ["label_smoothing"]
    assert list(LabelSmoothingLoss(torch.tensor(0.1)).state_dict()) == ["smoothing"]
    assert list(CrossEntropyLoss(label_smoothing=0.1).state_dict()) == []
    assert list(criterion.parameters()) == []
    other = full_criterion(scale=0.5)
    assert other(INPUT, TARGET) != criterion(INPUT, TARGET)
    other.load_state_dict(criterion.state_dict())
    assert_close(other(INPUT, TARGET), criterion(INPUT, TARGET), rtol=0, atol=0)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_independent(clone: Callable[[nn.Module], nn.Module]) -> None:
    for criterion in (full_criterion(), LabelSmoothingLoss(0.3)):
        expected = criterion(INPUT, TARGET)
        twin = clone(criterion)
        assert_close(twin(INPUT, TARGET), expected, rtol=0, atol=0)
        for buffer in twin.buffers():
            buffer.zero_()
        assert_close(criterion(INPUT, TARGET), expected, rtol=0, atol=0)


def test_priors_are_checked_when_they_come() -> None:
    """And not again in each call; but for one that is learnt."""
    criterion = CrossEntropyLoss(label_smoothing=0.3, prior=VECTOR.clone())
    expected = criterion(INPUT, TARGET)
    state = {"prior.probabilities": 2 * VECTOR}
    with pytest.raises(ValueError, match="prior must sum to 1, got 2"):
        criterion.load_state_dict(state)
    assert_close(criterion(INPUT, TARGET), expected, rtol=0, atol=0)
    learnt = CrossEntropyLoss(label_smoothing=0.3, prior=nn.Parameter(VECTOR.clone()))
    assert [name for name, _ in learnt.named_parameters()] == ["prior.probabilities"]
    assert_close(learnt(INPUT, TARGET), expected)
    with torch.no_grad():
        next(learnt.parameters()).mul_(2)
    with pytest.raises(ValueError, match="prior must sum to 1, got 2"):
        learnt(INPUT, TARGET)

    assert criterion.prior is not None
    criterion.prior.probabilities.mul_(2)
    assert_close(criterion(INPUT, TARGET), expected)


def test_priors_may_be_parametrized() -> None:
    class Softmax(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.softmax(-1)

    criterion = CrossEntropyLoss(label_smoothing=0.3, prior=nn.Parameter(VECTOR.clone()))
    expected = cross_entropy(INPUT, TARGET, label_smoothing=0.3, prior=VECTOR.softmax(-1))
    assert criterion.prior is not None
    nn.utils.parametrize.register_parametrization(criterion.prior, "probabilities", Softmax())
    assert_close(criterion(INPUT, TARGET), expected)
    assert_close(criterion.to(torch.float64)(INPUT, TARGET), expected)


def test_short_priors_are_widened_and_move() -> None:
    prior = Prior(torch.ones(4, dtype=torch.bfloat16) / 4)
    assert prior.to("cpu").probabilities.dtype == torch.float32
    assert prior.share_memory().probabilities.is_shared()
    meta = copy.deepcopy(prior).to("meta").to_empty(device="cpu")
    meta.load_state_dict(prior.state_dict())
    assert meta.probabilities.equal(prior.probabilities)


def test_priors_are_made_while_compiling() -> None:
    def loss(z: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        return cross_entropy(z, target, label_smoothing=0.3, prior=unigram(counts))

    counts = torch.arange(1, 5)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert_close(compiled(INPUT, TARGET, counts), loss(INPUT, TARGET, counts))


# Rounded to a short type, and wide again.
@pytest.mark.parametrize("short", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("wide", [torch.float32, torch.float64])
def test_priors_survive_a_round_trip(short: torch.dtype, wide: torch.dtype) -> None:
    for K in (3, 6, 7, 10, 50, 1000, 50_000, 151_936):
        prior = torch.ones(K) / K if K > 50 else torch.linspace(1, 2, K).softmax(-1).expand(K, K).clone()
        criterion = CrossEntropyLoss(label_smoothing=0.3, prior=prior)
        expected = criterion(torch.zeros(1, K), torch.tensor([0]))
        for _ in range(2):
            criterion.to(short)
            assert_close(criterion(torch.zeros(1, K), torch.tensor([0])), expected)
            criterion.to(wide)
            assert_close(criterion(torch.zeros(1, K), torch.tensor([0])), expected)
        fresh = CrossEntropyLoss(label_smoothing=0.3, prior=prior)
        fresh.load_state_dict(criterion.to(short).state_dict())
        assert_close(fresh(torch.zeros(1, K), torch.tensor([0])), expected)


# A third is no number of a short type, so a prior and a strength stay as they are.
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tensors_move_with_the_module(dtype: torch.dtype) -> None:
    criterion = CrossEntropyLoss(label_smoothing=torch.tensor(0.25), prior=torch.ones(3) / 3).to(dtype)
    dtypes = {name: buffer.dtype for name, buffer in criterion.named_buffers()}
    assert dtypes == {"label_smoothing": torch.float32, "prior.probabilities": torch.float32}
    z = INPUT[:, :3].to(dtype)
    expected = F.cross_entropy(z.float(), TARGET % 3, label_smoothing=0.25)
    assert_close(criterion(z, TARGET % 3), expected)
    meta = full_criterion().to("meta")
    assert {buffer.device.type for buffer in meta.buffers()} == {"meta"}
    assert meta(INPUT.to("meta"), TARGET.to("meta")).device.type == "meta"


def test_repr() -> None:
    assert_expected_inline(repr(LabelSmoothingLoss()), """LabelSmoothingLoss(smoothing=0.1, dim=-1)""")
    assert repr(LabelSmoothingLoss(torch.tensor(0.1))) == repr(LabelSmoothingLoss())
    assert "label_smoothing=0.1, " in repr(CrossEntropyLoss(label_smoothing=torch.tensor(0.1)))
    assert "label_smoothing=(), " in repr(CrossEntropyLoss(label_smoothing=torch.tensor(0.1)).to("meta"))
    assert_expected_inline(
        repr(CrossEntropyLoss(weight=torch.ones(3), label_smoothing=0.1, reduction="sum")),
        """CrossEntropyLoss(label_smoothing=0.1, weight=(3,), ignore_index=-100, reduction='sum', \
off_target='all', weighting='torch', train_only=False)""",
    )
    shown = repr(CrossEntropyLoss(label_smoothing=by_class(EPS_K), prior=torch.eye(4)))
    assert "K=4" in shown
    assert "(prior): Prior(given, shape (4, 4))" in shown


# The definitions of other frameworks, of a batch without ignored rows, each with what gives it here.
def fairseq(z: Tensor, eps: float) -> Tensor:
    lprobs = z.log_softmax(-1)
    nll_loss = -lprobs.gather(-1, TARGET[:, None])
    smooth_loss = -lprobs.sum(-1, keepdim=True)
    eps_i = eps / (lprobs.size(-1) - 1)
    return ((1.0 - eps - eps_i) * nll_loss + eps_i * smooth_loss).sum()


def espnet(z: Tensor, eps: float) -> Tensor:
    true_dist = torch.full_like(z, eps / (z.size(-1) - 1)).scatter(1, TARGET[:, None], 1 - eps)
    return F.kl_div(z.log_softmax(-1), true_dist, reduction="none").sum() / z.size(0)


def megatron(z: Tensor, eps: float) -> Tensor:
    smoothing = eps * z.size(-1) / (z.size(-1) - 1)
    log_probs = z.log_softmax(-1)
    loss = -log_probs.gather(-1, TARGET[:, None]).squeeze(-1)
    return (1.0 - smoothing) * loss - smoothing * log_probs.mean(-1)


def timm(z: Tensor, eps: float) -> Tensor:
    logprobs = z.log_softmax(-1)
    nll_loss = -logprobs.gather(-1, TARGET[:, None]).squeeze(1)
    return ((1.0 - eps) * nll_loss + eps * -logprobs.mean(-1)).mean()


def transformers(z: Tensor, eps: float) -> Tensor:
    log_probs = -z.log_softmax(-1)
    nll_loss = log_probs.gather(-1, TARGET[:, None]).sum() / len(z)
    smoothed_loss = log_probs.sum() / (len(z) * z.size(-1))
    return (1 - eps) * nll_loss + eps * smoothed_loss


def optax(z: Tensor, eps: float) -> Tensor:
    labels = (1.0 - eps) * F.one_hot(TARGET, z.size(-1)) + eps / z.size(-1)
    return -(labels * z.log_softmax(-1)).sum(-1)


def keras(z: Tensor, eps: float) -> Tensor:
    y_true = SOFT * (1.0 - eps) + eps / z.size(-1)
    return -(y_true * z.log_softmax(-1)).sum(-1).mean()


def ours(target: Tensor = TARGET, **options: Any) -> Callable[[Tensor, float], Tensor]:
    return lambda z, eps: cross_entropy(z, target, label_smoothing=eps, **options)


def our_divergence(z: Tensor, eps: float) -> Tensor:
    p = torch.tensor([1 - eps] + [eps / (K - 1)] * (K - 1), dtype=z.dtype)
    return ours(off_target="others")(z, eps) - torch.special.entr(p).sum()


@pytest.mark.parametrize("eps", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(
    ("theirs", "mine"),
    [
        (fairseq, ours(off_target="others", reduction="sum")),
        (espnet, our_divergence),
        (megatron, ours(off_target="others", reduction="none")),
        (timm, ours()),
        (transformers, ours()),
        (optax, ours(reduction="none")),
        (keras, ours(SOFT)),
    ],
)
def test_formulas_of_other_frameworks(theirs: Any, mine: Any, eps: float) -> None:
    expected = value_and_gradient(lambda z: theirs(z, eps), INPUT)
    assert_close(value_and_gradient(lambda z: mine(z, eps), INPUT), expected)


def test_optax_with_a_mask() -> None:
    # smooth_labels(labels, alpha, where) spreads alpha over the valid classes only.
    where = torch.tensor([True, True, False, True])
    target = torch.tensor([0, 1, 3, 3, 1, 0])
    labels = (0.7 * F.one_hot(target, K) + 0.3 / 3)[:, where]
    expected = -(labels * INPUT[:, where].log_softmax(-1)).sum(-1)
    masked = INPUT.masked_fill(~where, -math.inf)
    assert_close(cross_entropy(masked, target, label_smoothing=0.3, reduction="none"), expected)


def test_fairseq_and_transformers_with_padding() -> None:
    padded = TARGET.masked_fill(torch.tensor([False, True, False, False, True, False]), -100)
    rows = padded != -100
    loss, nll = cross_entropy(INPUT, padded, label_smoothing=0.1, return_nll=True)
    assert_close(loss, F.cross_entropy(INPUT[rows], padded[rows], label_smoothing=0.1))
    assert_close(nll, F.cross_entropy(INPUT[rows], padded[rows]))
    # transformers' num_items_in_batch counts the tokens of all the steps that are accumulated.
    accumulated = cross_entropy(INPUT, padded, label_smoothing=0.1, denominator=10)
    assert_close(accumulated, loss * rows.sum() / 10)


def test_a_parameter_stays_one() -> None:
    eps = torch.nn.Parameter(torch.tensor(0.1))
    criterion = CrossEntropyLoss(label_smoothing=eps)
    assert list(criterion.parameters()) == [eps]
    criterion(torch.randn(4, 3), torch.tensor([0, 1, 2, 0])).backward()
    assert eps.grad is not None
    assert eps.grad != 0
