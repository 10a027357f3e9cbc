"""Two labels for each sample, as mixup and CutMix make them: the loss of class probabilities nobody makes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.profiler import ProfilerActivity, profile
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LinearCrossEntropyLoss, by_class, functional, mixed, priors
from labelsmooth._engines import linear
from labelsmooth.engines import available
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
)

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

INF, NAN = math.inf, math.nan
DENSE = available()["dense"]
kernel = pytest.mark.skipif(not DENSE.present, reason=str(DENSE))
ENGINES = ["reference", pytest.param("dense", marks=kernel), None]
PRECISE: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-13}


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


# --- the definition, of a row of logits z, class probabilities t and a prior, differentiable by autograd


def spread(k: int, prior: Tensor | None, valid: Tensor, others: bool) -> Tensor:
    """What the smoothing of class k goes to: its prior over the classes that may have any, or else itself."""
    K = len(valid)
    row = [1 / K] * K if prior is None else (prior[k] if prior.dim() == 2 else prior).tolist()
    kept = [row[c] if valid[c] and not (others and c == k) else 0.0 for c in range(K)]
    left = torch.tensor(kept if any(kept) else [float(c == k) for c in range(K)], dtype=torch.float64)
    return left / left.sum()


def row_losses(
    z: Tensor,
    t: Tensor,
    prior: Tensor | None,
    eps: Tensor,
    weight: Tensor,
    others: bool,
    formula: Formula,
    z_loss: float,
) -> tuple[Tensor, Tensor]:
    """The loss and, without smoothing, the loss."""
    K, log_q, lse = len(z), z.log_softmax(0), z.logsumexp(0)
    valid = z > -INF
    pi = torch.zeros(K, dtype=torch.float64)
    for k in range(K):
        if t[k] > 0:
            pi = pi + t[k] * spread(k, prior, valid, others)

    def entropy(p: Tensor) -> Tensor:
        """- sum_c w_c p_c log q_c, where 0 log 0 is 0."""
        a = weight * p
        return -(a[a != 0] * log_q[a != 0]).sum()

    def excess(m: float, squared: bool) -> Tensor:
        a = weight * pi
        above = (z[z.argmax()] - z[a != 0] - m).relu()
        return (a[a != 0] * (above**2 if squared else above)).sum()

    mass = (weight * t).sum()
    nll = entropy(t)
    log_qy = -nll / mass
    penalty = -(log_q[valid].exp() * log_q[valid]).sum()
    match formula:
        case MaxSup():
            loss = nll + eps * excess(0.0, False)
        case MarginSmoothing():
            loss = nll + eps * excess(formula.margin, formula.squared)
        case ConfidencePenalty():
            gamma = formula.threshold
            loss = nll - eps * penalty if gamma is None else nll + eps * (gamma - penalty).relu()
        case Focal():
            smoothed = (1 - eps) * nll + eps * entropy(pi)
            loss = (1 - log_qy.exp()) ** formula.gamma * smoothed
        case LabelRelaxation():
            q = log_qy.exp()
            loss = nll * 0
            if q < 1 - eps:
                loss = mass * ((1 - eps) * ((1 - eps) / q).log() + eps * (eps / (1 - q)).log())
        case ForwardCorrection():
            base = torch.full_like(t, 1 / K) if prior is None else prior
            pi_y = (t * base).sum() / base[valid].sum()
            loss = -mass * ((1 - eps) * log_qy.exp() + eps * pi_y).log()
        case BackwardCorrection():
            loss = (1 + eps / (1 - eps)) * nll - eps / (1 - eps) * entropy(pi)
        case NegativeSmoothing():
            above = entropy(pi) - nll
            loss = nll + eps * (above.clamp(max=formula.clip) if eps < 0 else above)
        case _:
            # Not 0 * inf: what has no strength is not there.
            loss = nll if eps == 0 else (1 - eps) * nll + eps * entropy(pi)
    return loss + z_loss * mass * lse**2, nll


def textbook(
    z: Tensor,
    t: Tensor,
    counted: Tensor,
    weight: Tensor | None = None,
    *,
    prior: Tensor | None = None,
    per_row: bool = False,
    label_smoothing: float | Tensor = 0.0,
    off_target: str = "all",
    weighting: str = "torch",
    sample_weight: Tensor | None = None,
    denominator: float | None = None,
    reduction: str = "mean",
    formula: Formula | None = None,
    z_loss: float = 0.0,
    hard: bool = False,
) -> list[Tensor]:
    """The loss and the loss without smoothing of class probabilities ``t``, (..., K) as the logits."""
    rows, K = z.shape[:-1], z.size(-1)
    w = torch.ones(K, dtype=torch.float64) if weight is None else weight.double()
    eps = torch.as_tensor(label_smoothing, dtype=torch.float64).expand(rows).flatten()
    factor = torch.ones(rows) if sample_weight is None else sample_weight.expand(rows)
    losses: list[list[Tensor]] = [[], []]
    total = 0.0
    own = prior.reshape(-1, K) if per_row and prior is not None else None
    everything = zip(z.reshape(-1, K), t.reshape(-1, K), counted.flatten(), factor.flatten(), strict=True)
    for i, (z_i, t_i, counts, scale) in enumerate(everything):
        if not counts or scale == 0:
            for found in losses:
                found.append(torch.zeros((), dtype=torch.float64))
            continue
        by_class = w if weighting == "torch" else torch.ones_like(w)
        pi = prior if own is None else own[i]
        others = off_target == "others"
        both = row_losses(z_i, t_i, pi, eps[i], by_class, others, formula or LabelSmoothing(), z_loss)
        of_row = float(scale) * (float((t_i * w).sum()) if weighting == "sample" else 1.0)
        total += of_row * (float((t_i * w).sum()) if hard and weighting == "torch" else 1.0)
        for found, one in zip(losses, both, strict=True):
            found.append(of_row * one if of_row else one.detach() * 0)
    stacked = [torch.stack(found).reshape(rows) for found in losses]
    if reduction == "none":
        return stacked
    divisor = 1.0 if reduction == "sum" else total if denominator is None else denominator
    return [found.sum() / divisor for found in stacked]


def dense_target(
    a: Tensor, b: Tensor, lam: float | Tensor, K: int, ignore_index: int = -100
) -> tuple[Tensor, Tensor]:
    """lam e_a + (1 - lam) e_b, and which rows count."""
    share = torch.as_tensor(lam, dtype=torch.float64).expand(a.shape).flatten()
    t = torch.zeros(a.numel(), K, dtype=torch.float64)
    counted = torch.ones(a.numel(), dtype=torch.bool)
    for i, (first, second) in enumerate(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True)):
        for label, part in ((first, share[i]), (second, 1 - share[i])):
            if part == 0:
                continue
            if label == ignore_index:
                counted[i] = False
            else:
                t[i, label] += part
    return t.reshape(*a.shape, K), counted.reshape(a.shape)


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """By a direction in which no two rows weigh the same."""
    direction = torch.linspace(0.5, 2, loss.numel(), dtype=loss.dtype).reshape(loss.shape)
    return list(torch.autograd.grad(loss, leaves, direction))


N, K = 7, 5
Z = 2 * random(N, K)
A = torch.tensor([0, 1, 2, 3, 4, 0, 2])
B = torch.tensor([1, 1, 0, 4, 2, 3, 3])  # the second row has the same label twice
LAM = torch.tensor([0.3, 0.6, 1.0, 0.0, 0.5, 0.9, 0.2], dtype=torch.float64)
VECTOR = torch.tensor([0.4, 0.0, 0.3, 0.1, 0.2], dtype=torch.float64)
MATRIX = torch.tensor(
    [
        [0.1, 0.2, 0.3, 0.4, 0.0],
        [0.5, 0.0, 0.5, 0.0, 0.0],
        [0.0, 0.0, 0.9, 0.1, 0.0],
        [0.0, 0.7, 0.0, 0.2, 0.1],
        [0.2, 0.2, 0.2, 0.2, 0.2],
    ],
    dtype=torch.float64,
)
ROWS = random(N, K + 1)[:, :K].softmax(-1)
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5, 1.0], dtype=torch.float64)
EPS = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.2, 0.3, 0.7], dtype=torch.float64)
FEW = 3
CLASSES = torch.tensor([[0, 1, 4], [3, 3, 0], [2, 1, 2], [4, 4, 4], [0, 2, 1], [1, 0, 0], [3, 2, 4]])
SHARES = random(N, FEW).softmax(-1)
SPARSE = priors.per_sample(SHARES, CLASSES)
SPARSE_ROWS = torch.zeros(N, K, dtype=torch.float64).scatter_add(-1, CLASSES, SHARES)


def served(engine: str | None, options: dict[str, Any]) -> bool:
    """The kernel mixes no priors of the classes themselves, and finds no hinge over a few; what few classes
    leave for the others of each label, nothing finds."""
    prior, formula = options.get("prior"), options.get("formula")
    others = options.get("off_target") == "others"
    if prior is SPARSE and others:
        return False
    mixes = others or (isinstance(prior, Tensor) and prior.dim() == 2)
    hinge_of_few = prior is SPARSE and formula is not None and formula.hinge is not None
    return engine != "dense" or not (mixes or hinge_of_few)


def assert_refused(engine: str | None, options: dict[str, Any]) -> None:
    few_others = options.get("prior") is SPARSE and options.get("off_target") == "others"
    reason = "takes one label for each row" if few_others else "engine='dense' cannot serve: "
    with pytest.raises(ValueError, match=reason):
        cross_entropy(Z, mixed(A, B, LAM), WEIGHT, engine=engine, **options)


def assert_is_textbook(
    z: Tensor,
    a: Tensor,
    b: Tensor,
    lam: float | Tensor,
    weight: Tensor | None = None,
    *,
    engine: str | None = None,
    ignore_index: int = -100,
    **options: Any,
) -> None:
    t, counted = dense_target(a, b, lam, z.size(-1), ignore_index)
    leaf = z.detach().clone().requires_grad_()
    class_dim = min(1, z.dim() - 1)
    given = {"weight": weight, "ignore_index": ignore_index, **options}
    ours = cross_entropy(
        leaf.movedim(-1, class_dim), mixed(a, b, lam), engine=engine, return_nll=True, **given
    )
    if isinstance(options.get("prior"), priors.PerSample):
        sparse = options["prior"].classes is not None
        options |= {"prior": SPARSE_ROWS if sparse else ROWS, "per_row": True}
    again = z.detach().clone().requires_grad_()
    theirs = textbook(again, t, counted, weight, **options)
    assert_close(ours, tuple(theirs), **PRECISE)
    assert not ours[1].requires_grad
    assert_close(gradients(ours[0], [leaf]), gradients(theirs[0], [again]), **PRECISE)


PRIORS: dict[str, Any] = {
    "uniform": None,
    "vector": VECTOR,
    "matrix": MATRIX,
    "rows": priors.per_sample(ROWS),
    "few": SPARSE,
}


# All that meets in one formula: where smoothing goes, how much, and what weighs it.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("weighting", ["torch", "sample"])
@pytest.mark.parametrize("eps", [0.3, EPS], ids=["all", "rows"])
def test_options(eps: Any, weighting: str, prior: str, off_target: str, engine: str | None) -> None:
    options: dict[str, Any] = {
        "label_smoothing": eps,
        "prior": PRIORS[prior],
        "off_target": off_target,
        "weighting": weighting,
        "sample_weight": torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 3.0, 1.0], dtype=torch.float64),
    }
    if not served(engine, options):
        assert_refused(engine, options)
        return
    assert_is_textbook(Z, A, B, LAM, WEIGHT, engine=engine, **options)


# No share, all of it, a part; for all rows and for each.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "lam",
    [0, 1, 0.0, 1.0, 0.3, torch.tensor(0.3, dtype=torch.float64), torch.tensor([0.3]).double(), LAM],
    ids=str,
)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_shares(reduction: str, lam: Any, engine: str | None) -> None:
    assert_is_textbook(Z, A, B, lam, engine=engine, reduction=reduction, label_smoothing=0.2)


@pytest.mark.parametrize("weighting", ["torch", "sample"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_label_with_all_of_a_row_is_a_class_index_but_for_the_weighted_mean(
    engine: str | None, weighting: str
) -> None:
    """As for class probabilities, weighting "torch" has a mean over rows, whatever their weights."""
    for lam, target in ((1.0, A), (0.0, B)):
        for reduction in ("none", "sum") if weighting == "torch" else ("none", "sum", "mean"):
            options = {"reduction": reduction, "label_smoothing": 0.2, "weighting": weighting}
            found = cross_entropy(Z, mixed(A, B, lam), WEIGHT, engine=engine, **options)
            assert_close(found, cross_entropy(Z, target, WEIGHT, **options), **PRECISE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", ["uniform", "vector", "matrix", "rows", "few"])
@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("formula", [None, MaxSup(), MarginSmoothing(0.5, squared=True)], ids=str)
def test_the_same_label_twice_is_that_label(
    formula: Formula | None, off_target: str, prior: str, engine: str | None
) -> None:
    """Masked classes, that leave nothing of some priors, included."""
    z = Z.clone()
    z[0, 1:4] = -INF  # and so nothing but class 4 in row 0, to which the matrix gives nothing
    z[1, [0, 2]] = -INF
    z[2, [0, 1, 3, 4]] = -INF
    options: dict[str, Any] = {"label_smoothing": 0.3, "prior": PRIORS[prior], "off_target": off_target}
    options |= {} if formula is None else {"formula": formula}
    if not served(engine, options):
        assert_refused(engine, options)
        return
    leaf, other = z.clone().requires_grad_(), z.clone().requires_grad_()
    found = cross_entropy(leaf, mixed(A, A, 0.3), engine=engine, reduction="none", **options)
    expected = cross_entropy(other, A, engine="reference", reduction="none", **options)
    assert_close(found, expected, **PRECISE)
    assert_close(gradients(found, [leaf]), gradients(expected, [other]), **PRECISE)


# Ignored: the first label, the second, both; and labels without a share, which may be anything.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ignore_index", [-100, 2])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("prior", [None, VECTOR, MATRIX], ids=["uniform", "vector", "matrix"])
def test_ignored_labels(prior: Any, reduction: str, ignore_index: int, engine: str | None) -> None:
    a, b = A.clone(), B.clone()
    a[0], b[1], a[5], b[5] = [ignore_index] * 4
    b[2], a[3] = ignore_index, ignore_index  # their shares are 0
    options = {"prior": prior, "reduction": reduction, "ignore_index": ignore_index}
    if served(engine, options):
        z = Z.clone()
        z[5] = NAN
        z[3, 0] = -INF  # which a blanked label would mean
        _, counted = dense_target(a, b, LAM, K, ignore_index)
        kept = ignore_index == -100
        assert counted.tolist() == [False, False, kept, True, kept, False, kept]
        assert_is_textbook(z, a, b, LAM, engine=engine, label_smoothing=0.2, **options)
        leaf = z.clone().requires_grad_()
        loss = cross_entropy(leaf, mixed(a, b, LAM), engine=engine, label_smoothing=0.2, **options)
        (grad,) = gradients(loss, [leaf])
        assert grad[~counted].eq(0).all()


FORMULAS: list[tuple[Formula, float]] = [
    (MaxSup(), 0.7),
    (MarginSmoothing(0.5), 0.7),
    (MarginSmoothing(0.5, squared=True), 1.7),
    (ConfidencePenalty(), 0.2),
    (ConfidencePenalty(threshold=1.1), 0.2),
    (Focal(2.0), 0.2),
    (Focal(0.5), 0.0),
    (LabelRelaxation(), 0.3),
    (ForwardCorrection(), 0.3),
    (BackwardCorrection(), 0.3),
    (NegativeSmoothing(clip=0.5), -0.4),
]


FORMULAS_OF_PRIORS = [
    pytest.param(formula, eps, prior, id=f"{formula}-{name}")
    for formula, eps in FORMULAS
    for name, prior in (("uniform", None), ("vector", VECTOR), ("matrix", MATRIX))
    if prior is not MATRIX or not formula.draws
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("weight", [None, WEIGHT + 0.5], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("formula", "eps", "prior"), FORMULAS_OF_PRIORS)
def test_formulas(
    formula: Formula, eps: float, prior: Tensor | None, weight: Tensor | None, engine: str | None
) -> None:
    options: dict[str, Any] = {"label_smoothing": eps, "prior": prior, "formula": formula, "z_loss": 0.01}
    if not served(engine, options):
        assert_refused(engine, options)
        return
    assert_is_textbook(Z, A, B, LAM, weight, engine=engine, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 2), (2, 1, 3, 2)])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_maps(reduction: str, shape: tuple[int, ...], engine: str | None) -> None:
    """Classes are in torch's dimension, and a share for each map, or each position, broadcasts."""
    z = random(*shape, K)
    a, b = (random(*shape, K + 1)[..., :K].argsort(-1)[..., i] for i in (0, 1))
    b = torch.where(torch.arange(a.numel()).reshape(shape) % 3 == 0, a, b)
    shares = [torch.rand(shape, generator=torch.Generator().manual_seed(0))]
    if len(shape) > 1:
        shares.append(shares[0].flatten(1)[:, 0].reshape(-1, *[1] * (len(shape) - 1)))
    for lam in shares:
        assert_is_textbook(
            z, a, b, lam.double(), WEIGHT, engine=engine, reduction=reduction, label_smoothing=0.1
        )


@pytest.mark.parametrize("integer", [torch.uint8, torch.int32])
def test_labels_of_short_types(integer: torch.dtype) -> None:
    found = cross_entropy(Z, mixed(A.to(integer), B.to(integer), LAM))
    assert_close(found, cross_entropy(Z, mixed(A, B, LAM)), rtol=0, atol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", [None, VECTOR, MATRIX], ids=["uniform", "vector", "matrix"])
def test_masked_classes(prior: Tensor | None, engine: str | None) -> None:
    if not served(engine, {"prior": prior}):
        assert_refused(engine, {"prior": prior})
        return
    z = Z.clone()
    z[0, 2:] = -INF
    z[1, [0, 2, 4]] = -INF
    z[4, [0, 1]] = -INF
    assert_is_textbook(z, A, B, LAM, WEIGHT, engine=engine, label_smoothing=0.3, prior=prior)
    assert_is_textbook(z, A, B, LAM, engine=engine, label_smoothing=1.0, prior=prior, reduction="none")


# Masked but for what is too little to divide by.
@pytest.mark.parametrize("by", ["mask", "others"])
@pytest.mark.parametrize("left", [1e-37, 1e-40])
def test_next_to_nothing(left: float, by: str) -> None:
    z, other = (random(1, 3).float().requires_grad_() for _ in range(2))
    valid = torch.tensor([by != "mask", True, True])
    target = mixed(torch.tensor([1]), torch.tensor([2]), 0.25)
    if by == "mask":
        prior, options = torch.tensor([[1.0, left, 0.0]] * 3), {}
    else:
        prior = torch.tensor([[0.0, 0.9995, 0.0], [left, 0.9995, 0.0], [0.9995, 0.0, 0.0]])
        options = {"off_target": "others"}
    loss = cross_entropy(z.masked_fill(~valid, -INF), target, label_smoothing=0.5, prior=prior, **options)
    log_q = other.masked_fill(~valid, -INF).log_softmax(-1)[0]
    toward = log_q[1] if by == "mask" else log_q[0]
    expected = -0.5 * (0.25 * log_q[1] + 0.75 * log_q[2]) - 0.5 * toward
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert grad.isfinite().all()
    if left > torch.finfo(torch.float32).tiny:
        assert_close(loss, expected)
        assert_close(grad, torch.autograd.grad(expected, other)[0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_masked_label_costs_all_if_it_has_a_share(engine: str | None) -> None:
    z = Z[:3].clone()
    z[:, 1] = -INF
    target = mixed(torch.tensor([0, 1, 0]), torch.tensor([1, 2, 1]), torch.tensor([0.5, 0.0, 1.0]))
    loss = cross_entropy(z, target, engine=engine, label_smoothing=0.1, reduction="none")
    assert loss.isinf().tolist() == [True, False, False]
    assert loss[1:].isfinite().all()


@pytest.mark.parametrize("engine", ENGINES)
def test_denominator(engine: str | None) -> None:
    assert_is_textbook(Z, A, B, LAM, WEIGHT, engine=engine, denominator=11.0, label_smoothing=0.1)
    nothing = torch.full_like(A, -100)
    assert cross_entropy(Z, mixed(nothing, B, 0.5), denominator=11.0, engine=engine) == 0
    assert cross_entropy(Z, mixed(nothing, B, 0.5), engine=engine).isnan()


def test_equals_dense_targets_of_torch() -> None:
    t, _ = dense_target(A, B, LAM, K)
    for weight in (None, WEIGHT):
        for reduction in ("none", "mean", "sum"):
            options: dict[str, Any] = {"weight": weight, "reduction": reduction, "label_smoothing": 0.1}
            assert_close(cross_entropy(Z, mixed(A, B, LAM), **options), F.cross_entropy(Z, t, **options))


# --- a linear head


D = 3
HEAD: Any = [random(N, D), random(K, D), random(K)]


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("engine", ["reference", "linear", None])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("weighting", ["torch", "sample"])
def test_linear_head(weighting: str, prior: str, reduction: str, engine: str | None) -> None:
    options: dict[str, Any] = {"label_smoothing": EPS, "weighting": weighting, "reduction": reduction}
    a, b = A.clone(), B.clone()
    a[4] = -100
    t, counted = dense_target(a, b, LAM, K)
    leaves, again = ([x.clone().requires_grad_() for x in HEAD] for _ in range(2))
    ours = linear_cross_entropy(
        *leaves[:2],
        mixed(a, b, LAM),
        linear_bias=leaves[2],
        weight=WEIGHT,
        prior=PRIORS[prior],
        engine=engine,
        return_nll=True,
        **options,
    )
    rows = {"rows": ROWS, "few": SPARSE_ROWS}.get(prior)
    pi = {"prior": PRIORS[prior]} if rows is None else {"prior": rows, "per_row": True}
    theirs = textbook(F.linear(*again), t, counted, WEIGHT, **pi, **options)
    assert_close(ours, tuple(theirs), **PRECISE)
    assert_close(gradients(ours[0], leaves), gradients(theirs[0], again), **PRECISE)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(("formula", "eps", "prior"), FORMULAS_OF_PRIORS)
def test_formulas_of_a_linear_head(
    formula: Formula, eps: float, prior: Tensor | None, reduction: str
) -> None:
    options: dict[str, Any] = {"label_smoothing": eps, "prior": prior, "formula": formula, "z_loss": 0.1}
    t, counted = dense_target(A, B, LAM, K)
    leaves, again = ([x.clone().requires_grad_() for x in HEAD] for _ in range(2))
    ours = linear_cross_entropy(
        *leaves[:2], mixed(A, B, LAM), linear_bias=leaves[2], reduction=reduction, **options
    )
    theirs, _ = textbook(F.linear(*again), t, counted, reduction=reduction, **options)
    assert_close(ours, theirs, **PRECISE)
    assert_close(gradients(ours, leaves), gradients(theirs, again), **PRECISE)


@pytest.mark.usefixtures("chunks")
def test_masked_classes_of_a_linear_head() -> None:
    bias = HEAD[2].clone()
    bias[2] = -INF
    a, b = A.masked_fill(A == 2, 0), B.masked_fill(B == 2, 0)
    t, counted = dense_target(a, b, LAM, K)
    leaves, again = ([x.clone().requires_grad_() for x in HEAD[:2]] for _ in range(2))
    ours = linear_cross_entropy(*leaves, mixed(a, b, LAM), linear_bias=bias, label_smoothing=0.2)
    theirs, _ = textbook(F.linear(again[0], again[1], bias), t, counted, label_smoothing=0.2)
    assert_close(ours, theirs, **PRECISE)
    assert_close(gradients(ours, leaves), gradients(theirs, again), **PRECISE)


def test_head_over_maps() -> None:
    """A weight of (K, d1, D), and an input of (N, T, D)."""
    hidden, weight = random(2, D), random(K, 3, D)
    a, b = A[:6].reshape(2, 3), B[:6].reshape(2, 3)
    z = torch.einsum("nd,kmd->nkm", hidden, weight)
    found = linear_cross_entropy(hidden, weight, mixed(a, b, 0.3), label_smoothing=0.1, reduction="none")
    assert_close(found, cross_entropy(z, mixed(a, b, 0.3), label_smoothing=0.1, reduction="none"))
    hidden, weight, lam = random(2, 3, D), random(K, D), torch.tensor([[0.2], [0.7]])
    found = linear_cross_entropy(hidden, weight, mixed(a, b, lam), label_smoothing=0.1, reduction="none")
    z = (hidden @ weight.T).movedim(-1, 1)
    assert_close(found, cross_entropy(z, mixed(a, b, lam), label_smoothing=0.1, reduction="none"))


# --- modules


@pytest.mark.parametrize("prior", [None, VECTOR, MATRIX], ids=["uniform", "vector", "matrix"])
def test_modules(prior: Tensor | None) -> None:
    options: dict[str, Any] = {"weight": WEIGHT, "label_smoothing": 0.2, "prior": prior}
    expected = cross_entropy(Z, mixed(A, B, LAM), **options)
    assert_close(CrossEntropyLoss(**options)(Z, mixed(A, B, LAM)), expected)
    assert_close(
        CrossEntropyLoss(**options)(Z, mixed(A, B, LAM), prior=SPARSE),
        cross_entropy(Z, mixed(A, B, LAM), **(options | {"prior": SPARSE})),
    )
    head = LinearCrossEntropyLoss(D, K, bias=True, dtype=torch.float64, **options)
    expected = cross_entropy(head.linear(HEAD[0]), mixed(A, B, LAM), **options)
    assert_close(head(HEAD[0], mixed(A, B, LAM)), expected)


def test_plain_loss_in_evaluation() -> None:
    loss = CrossEntropyLoss(label_smoothing=0.5, train_only=True).eval()
    assert_close(loss(Z, mixed(A, B, LAM)), cross_entropy(Z, mixed(A, B, LAM)))


# --- precision


# Far from the target, and so near that the gradient is what is left of two large numbers.
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("near", [False, True], ids=["far", "near"])
@pytest.mark.parametrize("head", [False, True], ids=["logits", "head"])
@pytest.mark.parametrize("prior", [None, SPARSE], ids=["uniform", "few"])
def test_at_most_twice_the_error_of_plain_code(
    prior: Any, head: bool, near: bool, dtype: torch.dtype
) -> None:
    """Plain code makes the target, and computes in float32."""
    t, _ = dense_target(A, B, LAM, K)
    p = 0.9 * t + 0.1 * (SPARSE_ROWS if prior is not None else 1 / K)
    z = ((p + 1e-2).log() if near else 3 * Z).to(dtype)
    # Of a head that is the identity, the gradient by the input is that by the logits.
    eye = torch.eye(K, dtype=dtype)
    call = (lambda x, y, **o: linear_cross_entropy(x, eye, y, **o)) if head else cross_entropy
    leaf, naive, truth = z.clone().requires_grad_(), z.clone().requires_grad_(), z.double().requires_grad_()
    loss = call(leaf, mixed(A, B, LAM), label_smoothing=0.1, prior=prior, reduction="none")
    plain = F.cross_entropy(naive.float(), p.float(), reduction="none")
    exact = F.cross_entropy(truth, p, reduction="none")
    assert loss.dtype == torch.float32
    ours, theirs, right = (
        gradients(x.sum(), [y])[0] for x, y in ((loss, leaf), (plain, naive), (exact, truth))
    )
    assert ours.dtype == dtype
    for found, other, true in ((loss, plain, exact), (ours, theirs, right)):
        allowed = 2 * (other.double() - true).abs().amax(-1)
        allowed += 4 * torch.finfo(found.dtype).eps * true.abs().amax(-1) + 1e-7
        assert ((found.double() - true).abs().amax(-1) <= allowed).all()


# --- derivatives


@pytest.mark.parametrize("engine", ENGINES)
def test_gradcheck(engine: str | None) -> None:
    def loss(z: Tensor) -> Tensor:
        return cross_entropy(
            z, mixed(A, B, LAM), WEIGHT, label_smoothing=0.2, engine=engine, reduction="none", z_loss=0.1
        )

    z = Z.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("prior", [None, SPARSE], ids=["uniform", "few"])
def test_gradcheck_of_a_linear_head(prior: Any, reduction: str) -> None:
    def loss(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        target = mixed(A, B, LAM)
        return linear_cross_entropy(
            hidden, weight, target, linear_bias=bias, label_smoothing=0.2, reduction=reduction, prior=prior
        )

    leaves = [x.clone().requires_grad_() for x in HEAD]
    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradgradcheck(loss, leaves)


@pytest.mark.parametrize("shape", [(), (N,)])
@pytest.mark.parametrize("prior", [None, MATRIX, SPARSE], ids=["uniform", "matrix", "few"])
@pytest.mark.parametrize("head", [False, True])
def test_gradient_by_the_share(head: bool, prior: Any, shape: tuple[int, ...]) -> None:
    """A share may be learned."""

    def loss(lam: Tensor) -> Tensor:
        options: dict[str, Any] = {"label_smoothing": 0.2, "weight": WEIGHT, "prior": prior}
        if head:
            return linear_cross_entropy(*HEAD[:2], mixed(A, B, lam), **options)
        return cross_entropy(Z, mixed(A, B, lam), **options)

    lam = torch.full(shape, 0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, lam)


# Forward mode compiles some of torch's own functions when it is first used, in torch's old way.
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_transforms() -> None:
    def loss(z: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
        return cross_entropy(z, mixed(a, b, lam), label_smoothing=0.2)

    found = torch.func.vmap(torch.func.grad(loss))(Z, A, B, LAM)
    leaf = Z.clone().requires_grad_()
    expected = gradients(cross_entropy(leaf, mixed(A, B, LAM), label_smoothing=0.2, reduction="sum"), [leaf])
    assert_close(found * 0.5, expected[0], **PRECISE)
    leaf = Z.clone().requires_grad_()
    (expected_grad,) = torch.autograd.grad(loss(leaf, A, B, LAM), leaf)
    pushed: Any = torch.func.jvp(lambda z: loss(z, A, B, LAM), (Z,), (A.double()[:, None] - Z,))
    assert_close(pushed[1], (expected_grad * (A.double()[:, None] - Z)).sum(), **PRECISE)


# --- memory


def largest(call: Callable[[], object]) -> list[int]:
    """The sizes of the blocks of memory that a call asks for, from the largest."""
    call()  # what is made once and kept
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    results: Any = profiled.profiler
    sizes = [event.nbytes() for event in results.kineto_results.events() if event.name() == "[memory]"]
    return sorted((size for size in sizes if size > 0), reverse=True)


WIDE = 5000


@kernel
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight": torch.ones(WIDE)},
        {"weight": torch.ones(WIDE), "weighting": "sample"},
        {"prior": torch.full((WIDE,), 1 / WIDE)},
        {"formula": MaxSup()},
        {"formula": ConfidencePenalty()},
        {"formula": ForwardCorrection()},
        {"z_loss": 0.1},
    ],
    ids=["plain", "weight", "sample", "prior", "MaxSup", "ConfidencePenalty", "ForwardCorrection", "z_loss"],
)
def test_nothing_as_wide_as_the_classes_but_the_gradient(options: dict[str, Any], reduction: str) -> None:
    z = torch.zeros(8, WIDE, requires_grad=True)
    target = mixed(torch.arange(8), torch.arange(8) // 2, torch.linspace(0, 1, 8))

    def step() -> Tensor:
        loss = cross_entropy(z, target, label_smoothing=0.1, reduction=reduction, **options)
        return torch.autograd.grad(loss.sum(), z)[0]

    first, second, *_ = largest(step)
    assert first == z.nbytes
    assert second < z.nbytes / 2  # the check of a prior makes a row of its own


@kernel
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_a_linear_head_needs_a_chunk(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "BUDGET", 16 * WIDE * 4)
    monkeypatch.setattr(linear, "LEAST", 1)
    leaves = [torch.zeros(256, 4, requires_grad=True), torch.zeros(WIDE, 4, requires_grad=True)]
    target = mixed(torch.arange(256), torch.arange(256) // 2, torch.linspace(0, 1, 256))

    def step() -> object:
        loss = linear_cross_entropy(*leaves, target, label_smoothing=0.1, reduction=reduction)
        return torch.autograd.grad(loss.sum(), leaves)

    assert largest(step)[0] <= linear.BUDGET


# --- compiled


def test_compiles_once_for_all_shares() -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def loss(z: Tensor, a: Tensor, b: Tensor, lam: Tensor) -> Tensor:
        return cross_entropy(z, mixed(a, b, lam), label_smoothing=0.2)

    for share in (0.3, 0.0, 1.0, 0.7):
        lam = torch.tensor(share)
        assert_close(loss(Z, A, B, lam), cross_entropy(Z, mixed(A, B, lam), label_smoothing=0.2))
    assert counter.frame_count == 1


def test_compiles_seldom_for_numbers() -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def loss(z: Tensor, a: Tensor, b: Tensor, lam: float) -> Tensor:
        return cross_entropy(z, mixed(a, b, lam), label_smoothing=0.2)

    for lam in (0.3, 0.41, 0.7, 0.99, 0.123):
        assert_close(loss(Z, A, B, lam), cross_entropy(Z, mixed(A, B, lam), label_smoothing=0.2))
    assert counter.frame_count <= 2


@pytest.mark.parametrize(("prior", "head"), [(None, False), (MATRIX, False), (SPARSE, True)])
def test_compiled_gradient(head: bool, prior: Any) -> None:
    torch.compiler.reset()

    def loss(hidden: Tensor, weight: Tensor, target: Any) -> Tensor:
        options: dict[str, Any] = {"label_smoothing": 0.2, "prior": prior}
        if head:
            return linear_cross_entropy(hidden, weight, target, **options)
        return cross_entropy(hidden @ weight.T, target, **options)

    compiled: Any = torch.compile(loss, backend="aot_eager", fullgraph=True)
    leaves, again = ([x.clone().requires_grad_() for x in HEAD[:2]] for _ in range(2))
    ours, theirs = compiled(*leaves, mixed(A, B, LAM)), loss(again[0], again[1], mixed(A, B, LAM))
    assert_close(ours, theirs)
    assert_close(gradients(ours, leaves), gradients(theirs, again))


def test_compiled_share_out_of_range_is_nan() -> None:
    torch.compiler.reset()
    compiled: Any = torch.compile(
        lambda z, lam: cross_entropy(z, mixed(A, B, lam), reduction="none"), backend="eager", fullgraph=True
    )
    for lam in (1.5, -0.1, NAN):
        assert compiled(Z, torch.tensor(lam)).isnan().all()


# --- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((A.tolist(), B, 0.5), "first must be a tensor, got list"),
        ((A, None, 0.5), "second must be a tensor, got NoneType"),
        ((A, B[:-1], 0.5), r"second must have the shape of first \(7,\), got \(6,\)"),
        ((A, B, 1.5), r"lam must lie in \[0, 1\], got 1.5"),
        ((A, B, -0.1), r"lam must lie in \[0, 1\], got -0.1"),
        ((A, B, NAN), r"lam must lie in \[0, 1\], got nan"),
        ((A, B, "half"), "lam must be a number or a tensor, got str"),
        ((A, B, LAM + 0.5), r"lam must lie in \[0, 1\], got 1.1"),
        ((A, B, LAM[:-1]), r"lam must broadcast against first \(7,\), got \(6,\)"),
        ((A, B, LAM[:, None]), r"lam must broadcast against first \(7,\), got \(7, 1\)"),
    ],
)
def test_bad_pairs(arguments: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}"):
        mixed(*arguments)


@pytest.mark.parametrize(
    ("target", "options", "words"),
    [
        (mixed(A[:-1], B[:-1], 0.5), {}, r"target must have shape \(7,\) .*, got \(6,\)"),
        (mixed(A, B + 1, 0.5), {}, r"target must hold class indices in \[0, 5\) or .*, got 5"),
        (mixed(A - 1, B, 0.5), {}, r"target must hold class indices in \[0, 5\) or .*, got -1"),
        (mixed(A.float(), B, 0.5), {}, "target must hold integer class indices .*, got torch.float32"),
        (
            mixed(Z.softmax(-1), Z.softmax(-1), 0.5),
            {},
            r"target must hold class indices of shape \(7,\); of one-hot",
        ),
        (mixed(A, B, 0.5), {"label_smoothing": by_class(WEIGHT / 2)}, "label_smoothing: by_class goes with"),
        (mixed(A, B, 0.5), {"off_target": "others", "prior": SPARSE}, 'off_target="others" takes one label'),
        (mixed(A.to("meta"), B.to("meta"), 0.5), {}, "target must be on input's device cpu, got meta"),
        (mixed(A, B.to("meta"), 0.5), {}, "target must be on input's device cpu, got meta"),
    ],
    ids=["shape", "high", "low", "float", "soft", "by_class", "others", "devices", "device"],
)
@pytest.mark.parametrize("head", [False, True])
def test_bad_targets(head: bool, target: Any, options: dict[str, Any], words: str) -> None:
    loss, given = (linear_cross_entropy, HEAD[:2]) if head else (cross_entropy, [Z])
    with pytest.raises(ValueError, match=f"^{words}"):
        loss(*given, target, **options)


@kernel
@pytest.mark.parametrize("options", [{"prior": MATRIX}, {"off_target": "others"}], ids=["matrix", "others"])
def test_what_the_kernel_cannot(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^engine='dense' cannot serve: "):
        cross_entropy(Z, mixed(A, B, LAM), engine="dense", **options)


# --- as they are used


def digits() -> tuple[Tensor, Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    return torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)


def mixup(x: Tensor, order: Tensor, g: torch.Generator) -> tuple[Tensor, float]:
    lam = torch.rand((), generator=g).item()
    return lam * x + (1 - lam) * x[order], lam


def mixup_of_each(x: Tensor, order: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    lam = torch.rand(len(x), generator=g)
    share = lam[:, None, None]
    return share * x + (1 - share) * x[order], lam


def cutmix(x: Tensor, order: Tensor, g: torch.Generator) -> tuple[Tensor, float]:
    """A rectangle of the other image, whose area is the other label's share."""
    top, left = torch.randint(8, (2,), generator=g).tolist()
    height, width = torch.randint(1, 6, (2,), generator=g).tolist()
    x = x.clone()
    x[:, top : top + height, left : left + width] = x[order, top : top + height, left : left + width]
    return x, 1 - (min(8, top + height) - top) * (min(8, left + width) - left) / 64


@pytest.mark.parametrize(("mix", "fused"), [(mixup, False), (mixup_of_each, True), (cutmix, False)])
def test_learns_from_mixed_images(mix: Callable[..., tuple[Tensor, Any]], fused: bool) -> None:
    images, labels = digits()
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU())
        head = LinearCrossEntropyLoss(64, 10, bias=True, label_smoothing=0.1)
    criterion = CrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(3):
        for batch in torch.randperm(1200, generator=g).split(100):
            x, y = images[batch], labels[batch]
            order = torch.randperm(len(batch), generator=g)
            x, lam = mix(x, order, g)
            target = mixed(y, y[order], lam)
            loss = head(body(x), target) if fused else criterion(head.linear(body(x)), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    right = head.linear(body(images[1200:])).argmax(-1) == labels[1200:]
    assert right.float().mean() > 0.8
