"""The table of cases: what a cross entropy is called with. It equals ``oracle.cross_entropy`` of the same.

A new option is a new row here, and every battery of ``test_batteries`` runs over it, on every engine.
"""

import random as pick_at
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor

from labelsmooth import by_class, mixed, priors, schedules
from labelsmooth.priors import PerSample
from tests.cases import (
    CLASSES,
    EPS,
    FEW,
    FORMULAS,
    HARD,
    HEAD,
    INF,
    LAM,
    MASKED,
    MASKED_MIXED,
    MASKED_SOFT,
    MIXED,
    NAN,
    PRIORS,
    REDUCTIONS,
    SAMPLE_WEIGHT,
    SECOND,
    SHARES,
    SOFT,
    VECTOR,
    WEIGHT,
    WEIGHTS,
    Case,
    D,
    Head,
    K,
    N,
    Z,
    distribution,
    random,
)  # fmt: skip


def smoothing() -> Iterator[Case]:
    """The product of all that meets in a row, with masks in every case: no smoothing, some and nothing but
    smoothing, by row and by class; priors with and without mass where it is looked for; a weight of 0."""
    targets = {"hard": HARD, "soft": MASKED_SOFT, "mixed": MASKED_MIXED}
    strengths = {"0": 0.0, ".1": 0.1, "1": 1.0, "row": EPS, "class": by_class(EPS[:K])}
    for t, e, p, off, w, everything in product(
        targets, strengths, PRIORS, ("all", "others"), WEIGHTS, (False, True)
    ):
        if e == "class" and t != "hard":
            continue
        options = {"label_smoothing": strengths[e], "prior": PRIORS[p], "off_target": off, **WEIGHTS[w]}
        if everything:
            options |= {"sample_weight": SAMPLE_WEIGHT, "denominator": 7.0}
            options |= {"ignore_index": 0} if t == "hard" else {}
        yield Case(f"{t}-{e}-{p}-{off}-{w}{'-rows' * everything}", MASKED, targets[t], options)


def heads() -> Iterator[Case]:
    """Every kind of target, prior and weight in every reduction."""
    targets = {"hard": HARD.masked_fill(torch.arange(N) == 4, -100), "soft": SOFT, "mixed": MIXED}
    for t, p, w, reduction in product(targets, PRIORS, WEIGHTS, REDUCTIONS):
        options = {"label_smoothing": EPS, "prior": PRIORS[p], "reduction": reduction, **WEIGHTS[w]}
        yield Case(f"head-{t}-{p}-{w}-{reduction}", Z, targets[t], options, HEAD)
    for cap, scale, bias, reduction in product((None, 2.0), (0.3, 5.0), (HEAD.bias, None), REDUCTIONS):
        head = Head(HEAD.input, HEAD.weight, bias, cap, scale)
        z = head.logits(HEAD.input, HEAD.weight, bias)
        options = {"label_smoothing": EPS, "reduction": reduction, "z_loss": 0.01}
        name = f"head-scaled {scale}-{cap}-{bias is not None}-{reduction}"
        yield Case(name, z, targets["hard"], options, head)


def formulas() -> Iterator[Case]:
    """Every formula with each kind of target and option; and with a masked class, to which no label goes."""
    weights = {"weight": WEIGHT + 0.5}
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "none": {"reduction": "none"},
        "vector": {"prior": distribution(K), "reduction": "sum"},
        "matrix": {"prior": distribution(K, K)},
        "rows": {"prior": priors.per_sample(distribution(N, K)), "z_loss": 0.01, **weights},
        "few": {"prior": FEW, **weights},
        "others": {"off_target": "others"},
        "others-matrix": {"off_target": "others", "prior": distribution(K, K), **weights},
        "others-few": {"off_target": "others", "prior": FEW},
        "weight": {"z_loss": 0.01, **weights},
        "by sample": {"weighting": "sample", "sample_weight": SAMPLE_WEIGHT, "prior": VECTOR, **weights},
        "sample-weight": {"sample_weight": SAMPLE_WEIGHT, **weights},
    }
    hard = HARD.masked_fill(HARD == 2, 4)
    soft = SOFT.index_fill(1, torch.tensor([2]), 0.0)
    soft = soft / soft.sum(-1, keepdim=True)
    assert HEAD.bias is not None
    bias = HEAD.bias.index_fill(0, torch.tensor([2]), -INF)
    masked = Head(HEAD.input, HEAD.weight, bias)
    z = masked.logits(masked.input, masked.weight, bias)
    two = mixed(hard, SECOND.masked_fill(SECOND == 2, 0), LAM)
    ignoring = hard.masked_fill(torch.tensor([0, 0, 1, 0, 0, 1, 0], dtype=torch.bool), -100)
    for name, (formula, eps) in FORMULAS.items():
        given = {"formula": formula, "label_smoothing": eps}
        for t, target in {"hard": hard, "soft": soft, "mixed": two, "ignoring": ignoring}.items():
            for o, chosen in options.items():
                if t != "ignoring" or o in ("plain", "none", "weight"):
                    yield Case(f"{name}-{t}-{o}", Z, target, given | chosen, HEAD)
                if t != "ignoring":
                    yield Case(f"{name}-{t}-{o}-masked", z, target, given | chosen, masked)
        schedule = schedules.linear(eps, eps / 2, steps=2)
        schedule.step()
        factors = eps * torch.linspace(0.5, 1.0, N, dtype=torch.float64)
        for e, strength in {
            "row": factors,
            "class": by_class(factors[:K]),
            "schedule": schedule,
            "0": 0.0,
        }.items():
            chosen = {"prior": VECTOR, "formula": formula, "label_smoothing": strength}
            yield Case(f"{name}-of {e}", Z, hard, chosen, HEAD)


def z_losses() -> Iterator[Case]:
    """Weighted as its row, under every way to weight rows."""
    targets = {"hard": HARD.masked_fill(torch.arange(N) == 2, -100), "soft": SOFT, "mixed": MIXED}
    rows: dict[str, dict[str, Any]] = {"rows": {}, "sample-weight": {"sample_weight": SAMPLE_WEIGHT}}
    by: list[dict[str, Any]] = [{"reduction": r} for r in REDUCTIONS]
    for t, w, r, f, how in product(
        targets, WEIGHTS, rows, ("smoothing", "confidence"), [*by, {"denominator": 7.0}]
    ):
        options = {"formula": FORMULAS[f][0], "label_smoothing": 0.1, "z_loss": 0.03}
        name = f"z_loss-{t}-{w}-{r}-{f}-{'-'.join(map(str, how.values()))}"
        yield Case(name, Z, targets[t], {**options, **WEIGHTS[w], **rows[r], **how}, HEAD)
    for t, offset, reduction in product(targets, (-7.0, 300.0), REDUCTIONS):
        options = {"label_smoothing": 0.1, "z_loss": 0.01, "reduction": reduction}
        yield Case(f"z_loss-{t}-{offset}-{reduction}", Z + offset, targets[t], options)


def shapes() -> Iterator[Case]:
    """Every rank that torch takes, an odd number of everything, and strengths and shares that broadcast."""
    for shape, soft, reduction in product(
        [(5,), (7, 5), (3, 5, 2), (2, 5, 3, 1), (2, 5, 1, 3, 2), (1, 1)], (False, True), REDUCTIONS
    ):
        class_dim, classes = min(1, len(shape) - 1), shape[min(1, len(shape) - 1)]
        z = 3 * random(*shape)
        target = z.flip(class_dim).softmax(class_dim)
        rows = target.select(class_dim, 0).shape
        eps = torch.linspace(0, 1, rows.numel(), dtype=torch.float64).reshape(rows)
        options = {"weight": random(classes).abs(), "label_smoothing": eps, "reduction": reduction}
        name = f"{'x'.join(map(str, shape))}-{reduction}"
        hard = target.argmax(class_dim)
        if soft:
            yield Case(f"soft-{name}", z, target, options)
            continue
        yield Case(f"hard-{name}", z, hard, options | {"ignore_index": 2})
        second = torch.where(torch.arange(hard.numel()).reshape(rows) % 3 == 0, hard, z.argmin(class_dim))
        lam = torch.rand(rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        yield Case(f"mixed-{name}", z, mixed(hard, second, lam), options)
        if len(rows) > 1:
            by_map = lam.flatten(1)[:, 0].reshape(-1, *[1] * (len(rows) - 1))
            yield Case(f"mixed-by map-{name}", z, mixed(hard, second, by_map), options)
        whole = random(*rows, classes).softmax(-1)
        shares, at = whole.topk(min(3, classes), -1)
        few = priors.per_sample(shares / shares.sum(-1, keepdim=True), at)
        teacher = priors.teacher(whole.log().movedim(-1, class_dim), k=min(3, classes))
        of_rows = {"whole": priors.per_sample(whole.movedim(-1, class_dim)), "few": few, "teacher": teacher}
        for kind, prior in of_rows.items():
            yield Case(f"{kind}-{name}", z, hard, options | {"prior": prior})
    z, target = 3 * random(2, 4, 3), torch.tensor([[0, 1, 2], [3, 0, 1]])
    for eps in (torch.tensor(0.3), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([[0.1], [0.9]])):
        options = {"label_smoothing": eps.double(), "reduction": "none"}
        yield Case(f"strengths of {tuple(eps.shape)}", z, target, options)


def drawn(seed: int) -> Case:
    """Any options that go together."""
    pick = pick_at.Random(seed)
    generator = torch.Generator().manual_seed(seed)

    def positive(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1

    hidden, weight, bias = (torch.randn_like(positive(*s)) for s in ((N, D), (K, D), (K,)))
    head = Head(hidden, weight, pick.choice([None, bias]), pick.choice([None, 2.0]))
    soft = pick.random() < 0.4
    target = positive(N, K) if soft else torch.randint(K, (N,), generator=generator)
    options: dict[str, Any] = {"reduction": pick.choice(REDUCTIONS)}
    if soft:
        target = target / target.sum(-1, keepdim=True)
    elif pick.random() < 0.6:
        options["ignore_index"] = pick.choice([-100, 2])
        target[pick.randrange(N)] = options["ignore_index"]
    strengths = [0.0, 0.1, 1.0, torch.tensor(0.3), torch.linspace(0, 1, N)]
    options["label_smoothing"] = pick.choice(
        [*strengths, torch.tensor([0.2])] if soft else [*strengths, by_class(torch.linspace(0, 1, K))]
    )
    prior = pick.choice([None, positive(K), positive(K, K)])
    options["prior"] = prior if prior is None else prior / prior.sum(-1, keepdim=True)
    options["off_target"] = pick.choice(["all", "others"])
    options["weight"] = pick.choice([None, positive(K)])
    options["weighting"] = pick.choice(["torch", "torch" if options["weight"] is None else "sample"])
    options["sample_weight"] = pick.choice([None, positive(N) * (positive(N) > 0.4), torch.tensor(2.0)])
    if options["reduction"] == "mean":
        options["denominator"] = pick.choice([None, 11.0, torch.tensor(3)])
    options["z_loss"] = 0.3 if seed >= 60 else 0.0
    z = head.logits(hidden, weight, head.bias)
    return Case(f"drawn {seed}", z, target, options, head, chunk=(1, 2, 3, N)[seed % 4])


def labels() -> Iterator[Case]:
    """Two labels with no share, all of it, a part, for all rows and for each; and labels that are ignored,
    the first, the second and both, where those without a share may be anything."""
    third = torch.tensor(0.3, dtype=torch.float64)
    shares = {"0": 0, "1": 1, "0.0": 0.0, "1.0": 1.0, ".3": 0.3, "scalar": third, "vector": third.reshape(1)}
    for (name, lam), reduction in product(shares.items(), REDUCTIONS):
        options = {"label_smoothing": 0.2, "reduction": reduction}
        yield Case(f"share {name}-{reduction}", Z, mixed(HARD, SECOND, lam), options, HEAD)
    for ignore_index, reduction, p in product([-100, 2], REDUCTIONS, ("uniform", "vector", "matrix")):
        first, second = HARD.clone(), SECOND.clone()
        first[0], second[1], first[5], second[5] = [ignore_index] * 4
        second[2] = first[3] = ignore_index  # whose shares are 0
        z = Z.clone()
        z[5] = NAN
        z[3, 0] = -INF  # which a blanked label would mean
        options = {"prior": PRIORS[p], "ignore_index": ignore_index, "reduction": reduction}
        target = mixed(first, second, LAM)
        yield Case(
            f"mixed-ignoring {ignore_index}-{reduction}-{p}", z, target, options | {"label_smoothing": 0.2}
        )


def priors_of_rows() -> Iterator[Case]:
    """Of nothing, which is the label itself; and of rows that do not count, which may hold anything."""
    nothing = PerSample(SHARES * (torch.arange(N) % 2).unsqueeze(-1), CLASSES)
    for t, w, off in product(("hard", "soft"), ("unweighted", "weight"), ("all", "others")):
        options = {"label_smoothing": 0.4, "off_target": off, "prior": nothing, **WEIGHTS[w]}
        yield Case(f"nothing-{t}-{w}-{off}", Z, HARD if t == "hard" else SOFT, options, HEAD)
    z = Z.clone()
    z[2], z[4] = NAN, INF
    out = torch.tensor([0, 0, 1, 0, 1, 0, 0], dtype=torch.bool)
    for p, by, f in product(("rows", "few"), ("ignore_index", "sample_weight"), ("smoothing", "forward")):
        shares = PRIORS[p].probabilities.clone()
        shares[4] = NAN
        options = {"prior": PerSample(shares, PRIORS[p].classes), "formula": FORMULAS[f][0]}
        options |= {"label_smoothing": 0.4} | (WEIGHTS["weight"] if f == "smoothing" else {})
        options |= {"sample_weight": 1.0 - out.double()} if by == "sample_weight" else {}
        target = HARD.masked_fill(out, -100) if by == "ignore_index" else HARD
        yield Case(f"not counted-{p}-{by}-{f}", z, target, options)


CASES = [*smoothing(), *heads(), *formulas(), *z_losses(), *shapes(), *labels(), *priors_of_rows()]
CASES += map(drawn, range(80))
SERVED = [case for case in CASES if case.refused is None]
HEADS = [case for case in SERVED if case.name.startswith(("head", "drawn"))]
