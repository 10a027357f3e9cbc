"""A prior for each sample, whole or of a few classes: the loss of a target nobody makes."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.testing import assert_close

from labelsmooth import CrossEntropyLoss, LinearCrossEntropyLoss, by_class, functional, priors
from labelsmooth._engines import linear
from labelsmooth.formulas import Formula, ForwardCorrection
from labelsmooth.priors import PerSample
from tests.test_mixed import ENGINES, FORMULAS, PRECISE, gradients, kernel, largest, random, textbook

cross_entropy: Any = functional.cross_entropy  # which take options from dictionaries here
linear_cross_entropy: Any = functional.linear_cross_entropy

INF, NAN = math.inf, math.nan
N, K, FEW = 7, 6, 4
Z = 2 * random(N, K)
TARGET = torch.tensor([0, 1, 2, 3, 4, 5, 0])
SOFT = random(N, K + 1)[:, :K].softmax(-1)
WHOLE = random(N, K + 2)[:, :K].softmax(-1)
# Some classes twice or more, and the target's own; nothing but that in the last row.
CLASSES = torch.tensor(
    [[0, 1, 4, 2], [3, 3, 0, 3], [2, 1, 2, 5], [4, 4, 4, 4], [0, 2, 1, 4], [1, 0, 0, 5], [0, 0, 0, 0]]
)
SHARES = random(N, FEW).softmax(-1)
WEIGHT = torch.tensor([0.5, 2.0, 0.0, 1.5, 1.0, 0.7], dtype=torch.float64)
EPS = torch.tensor([0.0, 0.1, 0.5, 1.0, 0.2, 0.3, 0.7], dtype=torch.float64)
# Row 3 loses all of its prior; the others some of it, or nothing, and no label.
MASKED = torch.zeros(N, K, dtype=torch.bool)
MASKED[0, 1] = MASKED[1, 0] = MASKED[3, 4] = MASKED[5, [0, 2]] = True


def all_classes(shares: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """What a few classes have, over all of them, last."""
    rows = torch.zeros(*shares.shape[:-1], num_classes, dtype=torch.float64)
    for place, share in zip(
        torch.cartesian_prod(*map(torch.arange, shares.shape)).reshape(-1, shares.dim()).tolist(),
        shares.flatten().tolist(),
        strict=True,
    ):
        rows[(*place[:-1], int(classes[tuple(place)]))] += share
    return rows


ROWS = all_classes(SHARES, CLASSES, K)
PRIORS = {"whole": (priors.per_sample(WHOLE), WHOLE), "few": (priors.per_sample(SHARES, CLASSES), ROWS)}


def one_hot(target: Tensor) -> Tensor:
    """Nothing for an ignored one."""
    return F.one_hot(target.clamp(min=0), K).double() * (target >= 0).unsqueeze(-1)


def assert_is_textbook(
    z: Tensor,
    target: Tensor,
    prior: PerSample,
    rows: Tensor,
    weight: Tensor | None = None,
    *,
    engine: str | None = None,
    **options: Any,
) -> None:
    """For logits, rows and class probabilities whose classes are last."""
    soft = target.is_floating_point()
    t = target if soft else one_hot(target)
    counted = torch.ones(z.shape[:-1], dtype=torch.bool) if soft else target >= 0
    class_dim = min(1, z.dim() - 1)
    leaf, again = (z.detach().clone().requires_grad_() for _ in range(2))
    given = target.movedim(-1, class_dim) if soft else target
    ours = cross_entropy(
        leaf.movedim(-1, class_dim), given, weight, prior=prior, engine=engine, return_nll=True, **options
    )
    theirs = textbook(again, t, counted, weight, prior=rows, per_row=True, hard=not soft, **options)
    assert_close(ours, tuple(theirs), **PRECISE)
    assert_close(gradients(ours[0], [leaf]), gradients(theirs[0], [again]), **PRECISE)


def served(engine: str | None, prior: str, target: Tensor, options: dict[str, Any]) -> bool:
    """The kernel finds no hinge of a few classes, and mixes no priors of the classes themselves."""
    formula = options.get("formula")
    hinges = formula is not None and formula.hinge is not None and prior == "few"
    mixes = target.is_floating_point() and options.get("off_target") == "others"
    return engine != "dense" or not (hinges or mixes)


# All that meets in one formula, masks included.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("weighting", ["torch", "sample"])
@pytest.mark.parametrize("eps", [0.3, EPS, by_class(EPS[:K])], ids=["all", "rows", "class"])
def test_options(eps: Any, weighting: str, prior: str, off_target: str, engine: str | None) -> None:
    options: dict[str, Any] = {
        "label_smoothing": eps,
        "off_target": off_target,
        "weighting": weighting,
        "sample_weight": torch.tensor([1.0, 0.5, 2.0, 1.0, 0.0, 3.0, 1.0], dtype=torch.float64),
    }
    target = TARGET.clone()
    target[5] = -100
    z = Z.masked_fill(MASKED, -INF)
    given, rows = PRIORS[prior]
    if eps is not EPS and eps != 0.3:
        loss = cross_entropy(z, target, WEIGHT, prior=given, engine=engine, **options)
        options["label_smoothing"] = EPS[target.clamp(min=0)]
        assert_close(loss, cross_entropy(z, target, WEIGHT, prior=given, engine=engine, **options))
    assert_is_textbook(z, target, given, rows, WEIGHT, engine=engine, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(
    ("weight", "weighting"),
    [(None, "torch"), (WEIGHT, "torch"), (WEIGHT, "sample")],
    ids=["unweighted", "torch", "sample"],
)
@pytest.mark.parametrize("off_target", ["all", "others"])
def test_class_probabilities(
    off_target: str, weight: Tensor | None, weighting: str, prior: str, engine: str | None
) -> None:
    options = {"off_target": off_target, "weighting": weighting, "label_smoothing": EPS}
    given, rows = PRIORS[prior]
    if off_target == "others" and prior == "few":
        with pytest.raises(ValueError, match=r'^off_target="others" takes one label for each row'):
            cross_entropy(Z, SOFT, weight, prior=given, engine=engine, **options)
    elif served(engine, prior, SOFT, options):
        z = Z.masked_fill(MASKED, -INF)
        soft = SOFT.masked_fill(MASKED, 0.0)
        soft /= soft.sum(-1, keepdim=True)
        assert_is_textbook(z, soft, given, rows, weight, engine=engine, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_reductions(weight: Tensor | None, reduction: str, prior: str, engine: str | None) -> None:
    options: dict[str, Any] = {"label_smoothing": 0.3, "reduction": reduction}
    assert_is_textbook(Z, TARGET, *PRIORS[prior], weight, engine=engine, **options)
    if reduction == "mean":
        assert_is_textbook(Z, TARGET, *PRIORS[prior], weight, engine=engine, denominator=3.0, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("target", [TARGET, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("weight", [None, WEIGHT + 0.5], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(("formula", "eps"), FORMULAS, ids=str)
def test_formulas(
    formula: Formula, eps: float, weight: Tensor | None, target: Tensor, prior: str, engine: str | None
) -> None:
    options: dict[str, Any] = {"label_smoothing": eps, "formula": formula, "z_loss": 0.01}
    given, rows = PRIORS[prior]
    few_soft = target.is_floating_point() and prior == "few"
    if not served(engine, prior, target, options):
        with pytest.raises(ValueError, match="it has no hinge over a prior of a few classes"):
            cross_entropy(Z, target, prior=given, engine=engine, **options)
        return
    if formula.overlap and few_soft:
        with pytest.raises(ValueError, match="this formula takes one label for each row with such"):
            cross_entropy(Z, target, prior=given, **options)
        return
    assert_is_textbook(Z, target, given, rows, weight, engine=engine, **options)


# Without masks a prior of no class at all is the label itself.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("off_target", ["all", "others"])
@pytest.mark.parametrize("target", [TARGET, SOFT], ids=["hard", "soft"])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_rows_of_nothing(weight: Tensor | None, target: Tensor, off_target: str, engine: str | None) -> None:
    shares = SHARES * (torch.arange(N) % 2).unsqueeze(-1)
    prior = PerSample(shares, CLASSES)
    options: dict[str, Any] = {"label_smoothing": 0.4, "off_target": off_target, "reduction": "none"}
    if off_target == "others" and target is SOFT:
        with pytest.raises(ValueError, match="takes one label for each row"):
            cross_entropy(Z, target, weight, prior=prior, engine=engine, **options)
        return
    assert_is_textbook(Z, target, prior, all_classes(shares, CLASSES, K), weight, engine=engine, **options)
    found = cross_entropy(Z, target, weight, prior=prior, engine=engine, **options)
    assert_close(found[::2], cross_entropy(Z, target, weight, reduction="none")[::2], **PRECISE)


# A sure teacher's other classes have next to nothing, too little to divide by.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["whole", "few", "vector"])
@pytest.mark.parametrize("by", ["mask", "others"])
@pytest.mark.parametrize("left", [1e-37, 1e-40])
def test_next_to_nothing(left: float, by: str, kind: str, engine: str | None) -> None:
    z, other = (random(1, 3).float().requires_grad_() for _ in range(2))
    row, classes = torch.tensor([[1.0, left, 0.0]]), torch.tensor([[0, 1, 2]])
    prior = {"whole": PerSample(row), "few": PerSample(row, classes), "vector": row[0]}[kind]
    if by == "others":
        if kind == "vector":
            with pytest.raises(ValueError, match="leaves nothing for the others of class 0"):
                cross_entropy(z, torch.tensor([0]), prior=prior, engine=engine, off_target="others")
            return
        target, valid = torch.tensor([0]), torch.tensor([True, True, True])
    else:
        target, valid = torch.tensor([2]), torch.tensor([False, True, True])
    options: dict[str, Any] = {"off_target": "others" if by == "others" else "all"}
    loss = cross_entropy(
        z.masked_fill(~valid, -INF), target, label_smoothing=0.5, prior=prior, engine=engine, **options
    )
    log_q = other.masked_fill(~valid, -INF).log_softmax(-1)
    expected = -0.5 * log_q[0, target[0]] - 0.5 * log_q[0, 1]
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert grad.isfinite().all()
    if left > torch.finfo(torch.float32).tiny:
        assert_close(loss, expected)
        assert_close(grad, torch.autograd.grad(expected, other)[0])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("off_target", ["all", "others"])
def test_few_classes_are_their_rows(off_target: str, engine: str | None) -> None:
    """Float rounding of what was given included: whatever the sum, it is renormalised by the loss."""
    options: dict[str, Any] = {"label_smoothing": 0.4, "off_target": off_target, "reduction": "none"}
    z, other = (Z.masked_fill(MASKED, -INF).requires_grad_() for _ in range(2))
    few = cross_entropy(z, TARGET, prior=PerSample(3 * SHARES, CLASSES), engine=engine, **options)
    whole = cross_entropy(other, TARGET, prior=PerSample(ROWS), engine=engine, **options)
    assert_close(few, whole, **PRECISE)
    assert_close(gradients(few, [z]), gradients(whole, [other]), **PRECISE)


# Whatever they hold, a teacher's NaN on padding, say, reaches nothing.
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("by", ["ignore_index", "sample_weight"])
@pytest.mark.parametrize("formula", [None, ForwardCorrection()], ids=str)
def test_rows_that_do_not_count(formula: Formula | None, by: str, prior: str, engine: str | None) -> None:
    z, target = Z.clone(), TARGET.clone()
    z[2] = NAN
    z[4] = INF
    options: dict[str, Any] = {"label_smoothing": 0.4}
    options |= {} if formula is None else {"formula": formula}
    if by == "ignore_index":
        target[2] = target[4] = -100
    else:
        options["sample_weight"] = torch.tensor([1, 1, 0, 1, 0, 1, 1])
    given, rows = PRIORS[prior]
    shares = given.probabilities.clone()
    shares[4] = NAN
    given = PerSample(shares, given.classes)
    weight = None if formula else WEIGHT
    assert_is_textbook(z, target, given, rows, weight, engine=engine, **options)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", [(), (2, 3), (2, 3, 2), (2, 1, 3, 2)])
def test_maps(shape: tuple[int, ...], engine: str | None) -> None:
    z = random(*shape, K)
    target = random(*shape, K + 1)[..., :K].argmax(-1)
    whole = random(*shape, K + 2)[..., :K].softmax(-1)
    shares, classes = whole.topk(3, -1)
    shares = shares / shares.sum(-1, keepdim=True)
    class_dim = min(1, len(shape))
    for prior, rows in (
        (priors.per_sample(whole.movedim(-1, class_dim)), whole),
        (priors.per_sample(shares, classes), all_classes(shares, classes, K)),
        (priors.teacher(whole.log().movedim(-1, class_dim), k=3), all_classes(shares, classes, K)),
    ):
        assert_is_textbook(z, target, prior, rows, WEIGHT, engine=engine, label_smoothing=0.3)


# --- a linear head

D = 3
HEAD: Any = [random(N, D), random(K, D), random(K)]


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("engine", ["reference", "linear", None])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("target", ["hard", "others", "soft"])
def test_linear_head(target: str, prior: str, reduction: str, engine: str | None) -> None:
    y = SOFT if target == "soft" else TARGET
    options: dict[str, Any] = {
        "label_smoothing": EPS,
        "reduction": reduction,
        "off_target": "others" if target == "others" else "all",
        "sample_weight": torch.arange(N) % 3,
    }
    given, rows = PRIORS[prior]
    leaves, again = ([x.clone().requires_grad_() for x in HEAD] for _ in range(2))
    ours = linear_cross_entropy(
        *leaves[:2], y, linear_bias=leaves[2], weight=WEIGHT, prior=given, engine=engine, **options
    )
    t = y if y is SOFT else one_hot(y)
    counted = torch.ones(N, dtype=torch.bool)
    theirs, _ = textbook(
        F.linear(*again), t, counted, WEIGHT, prior=rows, per_row=True, hard=y is not SOFT, **options
    )
    assert_close(ours, theirs, **PRECISE)
    assert_close(gradients(ours, leaves), gradients(theirs, again), **PRECISE)


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize(("formula", "eps"), FORMULAS, ids=str)
def test_formulas_of_a_linear_head(formula: Formula, eps: float, prior: str, reduction: str) -> None:
    options: dict[str, Any] = {"label_smoothing": eps, "reduction": reduction, "formula": formula}
    given, rows = PRIORS[prior]
    leaves, again = ([x.clone().requires_grad_() for x in HEAD[:2]] for _ in range(2))
    ours = linear_cross_entropy(*leaves, TARGET, prior=given, **options)
    t, counted = one_hot(TARGET), torch.ones(N, dtype=torch.bool)
    theirs, _ = textbook(F.linear(*again), t, counted, prior=rows, per_row=True, hard=True, **options)
    assert_close(ours, theirs, **PRECISE)
    assert_close(gradients(ours, leaves), gradients(theirs, again), **PRECISE)


def test_modules() -> None:
    given, _ = PRIORS["few"]
    options: dict[str, Any] = {"weight": WEIGHT, "label_smoothing": 0.3}
    loss = CrossEntropyLoss(prior=WHOLE[0], **options)
    expected = cross_entropy(Z, TARGET, prior=given, **options)
    assert_close(loss(Z, TARGET, prior=given), expected)
    assert_close(loss(Z, TARGET), cross_entropy(Z, TARGET, prior=WHOLE[0], **options))
    head = LinearCrossEntropyLoss(D, K, dtype=torch.float64, **options)
    expected = cross_entropy(head.linear(HEAD[0]), TARGET, prior=given, **options)
    assert_close(head(HEAD[0], TARGET, prior=given), expected)
    with pytest.raises(ValueError, match=r"^prior of each sample must be given in the call"):
        CrossEntropyLoss(prior=given)  # pyright: ignore[reportArgumentType]


# --- the priors of labelsmooth.priors


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("k", [None, 1, 3, K])
def test_teacher(k: int | None, temperature: float) -> None:
    """Distillation: the cross entropy to (1 - eps) e_y + eps softmax(t / T), over its k largest."""
    t = random(N, K + 3)[:, :K]
    lowest = t.sort(-1, descending=True).values[:, (K if k is None else k) - 1].unsqueeze(-1)
    q = (t / temperature).masked_fill(t < lowest, -INF).softmax(-1)
    expected = F.cross_entropy(Z, 0.6 * one_hot(TARGET) + 0.4 * q)
    prior = priors.teacher(t, temperature, k)
    assert_close(cross_entropy(Z, TARGET, label_smoothing=0.4, prior=prior), expected, **PRECISE)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("ignored", [False, True])
def test_spatially_varying_label_smoothing(ignored: bool, engine: str | None) -> None:
    """SVLS: the one-hot map, padded by replication, convolved with a Gaussian whose centre is replaced by the
    sum of the others, and divided by the kernel's sum."""
    labels = torch.randint(K, (2, 5, 4), generator=torch.Generator().manual_seed(0))
    line = torch.exp(-(torch.arange(-1, 2, dtype=torch.float64) ** 2) / 2)
    weights = line.outer(line)
    weights[1, 1] = 0
    around = weights / weights.sum()
    if ignored:
        labels[0, :3, :3] = -100  # whose centre has no neighbours, and does not count
        labels[1, 2, 2] = -100
    maps = one_hot(labels).movedim(-1, 1)
    padded = F.pad(maps, (1, 1, 1, 1), mode="replicate")
    neighbours = F.conv2d(padded, around.expand(K, 1, 3, 3), groups=K)
    # Where some do not count the others have their share.
    mass = neighbours.sum(1, keepdim=True)
    neighbours = torch.where(mass > 0, neighbours / mass, maps)
    counted = labels >= 0
    target = 0.5 * maps + 0.5 * neighbours
    z, other = (random(2, K, 5, 4).requires_grad_() for _ in range(2))
    expected = -(target * other.log_softmax(1)).sum(1)[counted].mean()
    prior = priors.neighbourhood(labels, sigma=1.0)
    exact = PerSample(weights.flatten()[[0, 1, 2, 3, 5, 6, 7, 8]].expand(2, 5, 4, 8), prior.classes)
    loss = cross_entropy(z, labels, label_smoothing=0.5, prior=prior, engine=engine)
    assert_close(loss, expected, rtol=1e-6, atol=0)
    right = gradients(expected, [other])
    assert_close(gradients(loss, [z]), right, rtol=1e-5, atol=1e-9)
    if not ignored:
        loss = cross_entropy(z, labels, label_smoothing=0.5, prior=exact, engine=engine)
        assert_close(loss, expected, **PRECISE)
        assert_close(gradients(loss, [z]), right, **PRECISE)


# --- memory

WIDE = 100_000


def wide() -> tuple[Tensor, PerSample]:
    """Logits, and 8 classes of each row."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, WIDE, generator=generator).requires_grad_()
    classes = torch.randint(WIDE, (4, 8), generator=generator)
    return z, priors.per_sample(torch.rand(4, 8, generator=generator), classes)


@kernel
@pytest.mark.parametrize("reduction", ["none", "mean"])
@pytest.mark.parametrize(
    "options",
    [{}, {"off_target": "others"}, {"weight": torch.ones(WIDE)}, {"z_loss": 0.1}],
    ids=["plain", "others", "weight", "z_loss"],
)
def test_few_of_many_classes(options: dict[str, Any], reduction: str) -> None:
    """Nothing is made of all rows and classes but the gradient."""
    z, prior = wide()
    target = torch.tensor([0, 5, WIDE - 1, 7])

    def step() -> tuple[Tensor, Tensor]:
        loss = cross_entropy(z, target, label_smoothing=0.3, prior=prior, reduction=reduction, **options)
        return loss, torch.autograd.grad(loss.sum(), z)[0]

    first, second, *_ = largest(step)
    assert first == z.nbytes
    assert second < z.nbytes / 8
    assert prior.classes is not None
    rows = torch.zeros(4, WIDE, dtype=torch.float64).scatter_add(
        -1, prior.classes, prior.probabilities.double()
    )
    if "off_target" in options:
        rows[torch.arange(4), target] = 0
        rows /= rows.sum(-1, keepdim=True)
    exact = z.detach().double().requires_grad_()
    p = 0.7 * F.one_hot(target, WIDE) + 0.3 * rows
    expected = F.cross_entropy(exact, p, reduction=reduction)
    expected = expected + options.get("z_loss", 0.0) * (
        exact.logsumexp(-1).square() if reduction == "none" else exact.logsumexp(-1).square().mean()
    )
    loss, grad = step()
    assert_close(loss, expected.float())
    assert_close(grad, gradients(expected.sum() * 2, [exact])[0].float())


@kernel
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_few_of_many_classes_of_a_linear_head(reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, num_classes = 256, 4000
    monkeypatch.setattr(linear, "BUDGET", 16 * num_classes * 4)
    monkeypatch.setattr(linear, "LEAST", 1)
    leaves = [torch.zeros(rows, 4, requires_grad=True), torch.zeros(num_classes, 4, requires_grad=True)]
    prior = priors.per_sample(torch.ones(rows, 8), torch.randint(num_classes, (rows, 8)))
    target = torch.arange(rows)

    def step() -> object:
        loss = linear_cross_entropy(*leaves, target, label_smoothing=0.1, prior=prior, reduction=reduction)
        return torch.autograd.grad(loss.sum(), leaves)

    assert largest(step)[0] <= linear.BUDGET


# --- derivatives, transforms and the compiler


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("prior", PRIORS)
def test_gradcheck(prior: str, engine: str | None) -> None:
    def loss(z: Tensor) -> Tensor:
        return cross_entropy(
            z, TARGET, WEIGHT, label_smoothing=0.2, prior=PRIORS[prior][0], engine=engine, reduction="none"
        )

    z = Z.clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, z)
    assert torch.autograd.gradgradcheck(loss, z)


def test_no_gradient_reaches_a_prior() -> None:
    logits = Z.clone().requires_grad_()
    for prior in (
        priors.teacher(logits),
        priors.teacher(logits, k=2),
        priors.per_sample(logits.softmax(-1)),
    ):
        assert not cross_entropy(Z, TARGET, label_smoothing=0.3, prior=prior).requires_grad


@pytest.mark.parametrize("few", [False, True], ids=["whole", "few"])
def test_samples_may_be_mapped(few: bool) -> None:
    def loss(z: Tensor, y: Tensor, shares: Tensor, classes: Tensor) -> Tensor:
        prior = PerSample(shares, classes if few else None)
        return cross_entropy(z, y, label_smoothing=0.2, prior=prior)

    shares = SHARES if few else WHOLE
    found = torch.func.vmap(torch.func.grad(loss))(Z, TARGET, shares, CLASSES)
    leaf = Z.clone().requires_grad_()
    prior = PRIORS["few" if few else "whole"][0]
    total = cross_entropy(leaf, TARGET, label_smoothing=0.2, prior=prior, reduction="sum")
    assert_close(found, torch.autograd.grad(total, leaf)[0], **PRECISE)


def test_compiles_once() -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    @torch.compile(backend=counter, fullgraph=True)
    def loss(z: Tensor, y: Tensor, t: Tensor) -> Tensor:
        return cross_entropy(z, y, label_smoothing=0.2, prior=priors.teacher(t, 2.0, k=3))

    for t in (Z + 1, -Z, Z.flip(0)):
        expected = cross_entropy(Z, TARGET, label_smoothing=0.2, prior=priors.teacher(t, 2.0, k=3))
        assert_close(loss(Z, TARGET, t), expected)
    assert counter.frame_count == 1


def test_compiled_maps() -> None:
    torch.compiler.reset()
    labels = torch.randint(K, (2, 5, 4), generator=torch.Generator().manual_seed(0))

    def loss(z: Tensor) -> Tensor:
        return cross_entropy(z, labels, label_smoothing=0.5, prior=priors.neighbourhood(labels))

    z, other = (random(2, K, 5, 4).requires_grad_() for _ in range(2))
    compiled: Any = torch.compile(loss, backend="aot_eager", fullgraph=True)
    ours, theirs = compiled(z), loss(other)
    assert_close(ours, theirs)
    assert_close(gradients(ours, [z]), gradients(theirs, [other]))


# --- bad input


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (
            PerSample(WHOLE[:-1]),
            r"prior of each sample must have the input's shape \(7, 6\), got \(6, 6\)",
        ),
        (PerSample(SHARES), r"prior of each sample must have the input's shape \(7, 6\), got \(7, 4\)"),
        (
            PerSample(SHARES[:-1], CLASSES[:-1]),
            r"prior of each sample must have its classes, .* in shape \(7, k\), got \(6, 4\) and \(6, 4\)",
        ),
        (
            PerSample(SHARES, CLASSES[:, :2]),
            r"prior of each sample must have its classes, .* in shape \(7, k\), got \(7, 2\) and \(7, 4\)",
        ),
        (
            PerSample(SHARES[0], CLASSES[0]),
            r"prior of each sample must have its classes, .* in shape \(7, k\), got \(4,\) and \(4,\)",
        ),
        (PerSample(SHARES, CLASSES + 1), r"prior of each sample must have classes in \[0, 6\), got 6"),
        (PerSample(SHARES, CLASSES - 1), r"prior of each sample must have classes in \[0, 6\), got -1"),
        (PerSample(WHOLE.to("meta")), "prior must be on input's device cpu, got meta"),
        (PerSample(SHARES.to("meta"), CLASSES.to("meta")), "prior must be on input's device cpu, got meta"),
        (PerSample(SHARES, CLASSES.to("meta")), "prior must be on input's device cpu, got meta"),
    ],
)
@pytest.mark.parametrize("head", [False, True])
def test_bad_priors(head: bool, prior: PerSample, words: str) -> None:
    loss, given = (linear_cross_entropy, HEAD[:2]) if head else (cross_entropy, [Z])
    with pytest.raises(ValueError, match=f"^{words}"):
        loss(*given, TARGET, label_smoothing=0.1, prior=prior)


def test_no_rows_and_no_classes_named() -> None:
    empty = torch.zeros(0, K, dtype=torch.float64)
    prior = PerSample(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.long))
    none = torch.zeros(0, dtype=torch.long)
    assert cross_entropy(empty, none, label_smoothing=0.1, prior=prior, reduction="sum") == 0
    nothing = PerSample(torch.zeros(N, 0), torch.zeros(N, 0, dtype=torch.long))
    assert_close(cross_entropy(Z, TARGET, label_smoothing=0.5, prior=nothing), F.cross_entropy(Z, TARGET))
