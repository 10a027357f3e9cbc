"""Every arm of the table computes what it says, and is pasted as what it is."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

import labelsmooth
from labelsmooth.study import Criterion
from labelsmooth.study.arms.specs import by_epoch, parse
from labelsmooth.study.arms.table import ARMS

K = 4
FACTS: dict[str, Any] = {
    "num_classes": K,
    "epochs": 8,
    "counts": torch.tensor([40, 20, 10, 5]),
    "embeddings": torch.tensor([[1.0, 0.0], [1.0, 0.5], [-1.0, 0.3], [0.2, -1.0]], dtype=torch.float64),
}
Z = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.3, 0.1, 4.0, -8.0], [1.0, 2.0, 0.0, 0.5]], dtype=torch.float64)
Y = torch.tensor([0, 2, 3])


# From the definitions, in the first epoch unless said.


def softmax(z: list[float]) -> list[float]:
    powers = [math.exp(v) for v in z]
    return [p / sum(powers) for p in powers]


def mean_loss(loss: Callable[[list[float], int], float]) -> float:
    """``loss(z, y)`` of a row, over the rows."""
    return sum(loss(z, y) for z, y in zip(Z.tolist(), Y.tolist(), strict=True)) / len(Y)


def mixed(eps: float, prior: Callable[[int], list[float]]) -> float:
    """(1 - eps) CE + eps <prior of y, -log q>."""

    def loss(z: list[float], y: int) -> float:
        log_q = [math.log(p) for p in softmax(z)]
        toward = sum(a * b for a, b in zip(prior(y), log_q, strict=True))
        return -(1 - eps) * log_q[y] - eps * toward

    return mean_loss(loss)


def normalised(weights: list[float]) -> list[float]:
    return [w / sum(weights) for w in weights]


def uniform(y: int) -> list[float]:
    return [1 / K] * K


def penalised(penalty: Callable[[list[float], int], float]) -> float:
    return mean_loss(lambda z, y: -math.log(softmax(z)[y]) + penalty(z, y))


def mean(z: list[float]) -> float:
    return sum(z) / len(z)


def entropy(z: list[float]) -> float:
    return -sum(p * math.log(p) for p in softmax(z))


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def alike(y: int) -> list[float]:
    e = FACTS["embeddings"].tolist()
    return normalised([0.0 if k == y else math.exp(cosine(e[y], e[k]) / 0.1) for k in range(K)])


def near(y: int) -> list[float]:
    e = FACTS["embeddings"].tolist()
    d = [[math.dist(a, b) for b in e] for a in e]
    return normalised([math.exp(-10 * d[y][k] / max(map(max, d))) for k in range(K)])


def relaxed(z: list[float], y: int) -> float:
    p = softmax(z)[y]
    return 0.0 if p >= 0.9 else 0.9 * math.log(0.9 / p) + 0.1 * math.log(0.1 / (1 - p))


def graduated(z: list[float], y: int) -> float:
    sure = max(softmax(z))
    eps = 0.0 if sure < 0.3 else 0.3 if sure > 0.7 else 0.1
    return -math.log(softmax(z)[y]) + eps * (z[y] - mean(z))


def by_class(z: list[float], y: int) -> float:
    r = (FACTS["counts"][y].item() - 5) / (40 - 5)
    return -math.log(softmax(z)[y]) + 0.2 * math.sin(math.pi / 2 * r) * (z[y] - mean(z))


def divergence(z: list[float], y: int) -> float:
    p = [0.9 * (k == y) + 0.1 / K for k in range(K)]
    return sum(a * math.log(a / b) for a, b in zip(p, softmax(z), strict=True))


def excess(z: list[float], margin: float, power: int) -> float:
    return mean([max(0.0, max(z) - v - margin) ** power for v in z])


HARD = mixed(0.0, uniform)
SMOOTH = mixed(0.1, uniform)
VALUES: dict[str, float] = {
    "hard": HARD,
    "ls": SMOOTH,
    "others": mixed(0.1, lambda y: [(k != y) / (K - 1) for k in range(K)]),
    "kl": mean_loss(divergence),
    "linear": SMOOTH,
    "cosine": mixed(0.2, uniform),
    "warmup": HARD,
    "droplate": SMOOTH,
    "unigram": mixed(0.1, lambda y: [40 / 75, 20 / 75, 10 / 75, 5 / 75]),
    "unigram:temperature=2": mixed(0.1, lambda y: normalised([n**0.5 for n in (40, 20, 10, 5)])),
    "ordinal": mixed(1.0, lambda y: normalised([math.exp(-abs(k - y)) for k in range(K)])),
    "ordinal:eps=0.3,kind=squared": mixed(
        0.3, lambda y: normalised([math.exp(-((k - y) ** 2)) for k in range(K)])
    ),
    "ordinal:kind=exponential": mixed(1.0, lambda y: normalised([math.exp(-abs(k - y)) for k in range(K)])),
    "hierarchy": mixed(1.0, near),
    "similarity": mixed(0.1, alike),
    "bootstrap": penalised(
        lambda z, y: 0.05 * (z[y] - sum(p * v for p, v in zip(softmax(z), z, strict=True)))
    ),
    "ols": mixed(0.5, uniform),
    "byclass": mean_loss(by_class),
    "graduated": mean_loss(graduated),
    "negative": HARD,
    "negative:share=0,clip=2": penalised(lambda z, y: -0.4 * min(z[y] - mean(z), 2.0)),
    "maxsup": penalised(lambda z, y: 0.1 * (max(z) - mean(z))),
    "maxsup:eps=0.3,end=0.2": penalised(lambda z, y: 0.3 * (max(z) - mean(z))),
    "mbls": penalised(lambda z, y: 0.1 * excess(z, 10, 1)),
    "mbls2:margin=1": penalised(lambda z, y: 0.1 * excess(z, 1, 2)),
    "mbls2": penalised(lambda z, y: 0.1 * excess(z, 10, 2)),
    "cp": penalised(lambda z, y: -0.1 * entropy(z)),
    "cp:eps=2,threshold=0.7": penalised(lambda z, y: 2 * max(0.0, 0.7 - entropy(z))),
    "relaxation": mean_loss(relaxed),
    "focal": mean_loss(lambda z, y: (1 - softmax(z)[y]) ** 3 * -math.log(softmax(z)[y])),
    "forward": mean_loss(lambda z, y: -math.log(0.9 * softmax(z)[y] + 0.1 / K)),
    "backward": penalised(lambda z, y: -0.1 / 0.9 * (z[y] - mean(z))),
}


def test_every_arm_has_its_value_below():
    assert {parse(text).method for text in VALUES} == ARMS.keys()


@pytest.mark.parametrize("text", VALUES)
def test_arms_compute_what_they_say(text: str):
    loss = parse(text).loss(FACTS)
    # Priors and schedules are kept in float32.
    assert float(loss(Z, Y)) == pytest.approx(VALUES[text], rel=2e-6)


@pytest.mark.parametrize("text", VALUES)
def test_what_is_pasted_builds_the_same_loss(text: str):
    names = {name: getattr(labelsmooth, name) for name in labelsmooth.__all__}
    pasted = eval(str(parse(text).loss), {**names, **FACTS, "torch": torch, "labelsmooth": labelsmooth})
    assert isinstance(pasted, torch.nn.Module)
    built, pasted = Criterion(parse(text).loss(FACTS)), Criterion(pasted)
    assert type(built.loss) is type(pasted.loss)
    for _ in range(9):
        assert float(pasted(Z, Y)) == float(built(Z, Y))
        pasted.end_epoch()
        built.end_epoch()


# Over time. The strength at the beginning of each of 8 epochs, in closed form.
WHEN: dict[str, Callable[[int], float]] = {
    "linear": lambda t: 0.1 + 0.1 * t / 8,
    "cosine": lambda t: 0.2 * (1 + math.cos(math.pi * t / 8)) / 2,
    "warmup": lambda t: 0.1 * min(t / 2, 1),
    "droplate": lambda t: 0.1 if t < 4 else 0.0,
}


@pytest.mark.parametrize("name", WHEN)
def test_schedules_follow_the_epochs(name: str):
    criterion = Criterion(parse(name).loss(FACTS))
    for epoch in range(10):
        expected = mixed(WHEN[name](min(epoch, 8)), uniform)
        assert float(criterion(Z, Y)) == pytest.approx(expected, rel=2e-6)
        criterion.end_epoch()
    assert criterion.epochs == 10


def test_negative_smoothing_begins_after_its_share_of_the_epochs():
    criterion = Criterion(parse("negative:clip=2").loss(FACTS))
    sharper = VALUES["negative:share=0,clip=2"]
    for epoch in range(8):
        assert float(criterion(Z, Y)) == pytest.approx(HARD if epoch < 4 else sharper, rel=2e-6)
        criterion.end_epoch()


def test_online_smoothing_takes_the_means_of_the_epoch_before():
    criterion = Criterion(parse("ols").loss(FACTS))
    criterion(Z, Y)  # rows 0 and 2 of the batch: classes 0 and 2 are right, class 3 is wrong
    criterion.end_epoch()
    means = {0: softmax(Z[0].tolist()), 2: softmax(Z[1].tolist())}
    assert float(criterion(Z, Y)) == pytest.approx(mixed(0.5, lambda y: means.get(y, uniform(y))), rel=2e-6)


@pytest.mark.parametrize("name", [*ARMS, "maxsup:end=0.2"])
def test_the_arms_that_need_the_end_of_an_epoch_are_those_that_change_then(name: str):
    criterion = Criterion(parse(name).loss(FACTS))
    losses = []
    for _ in range(6):
        losses.append(float(criterion(Z, Y)))
        criterion.end_epoch()
    assert by_epoch(criterion.loss) == (len(set(losses)) > 1)
