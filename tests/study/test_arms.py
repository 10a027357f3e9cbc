"""The table of arms: each is read, spelled, built and pasted as one thing, and computes what it says."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import labelsmooth
from labelsmooth import study as study_module
from labelsmooth.study import Criterion, FitResult
from labelsmooth.study.arms import ARMS, GRADES
from labelsmooth.study.catalogue import catalogue
from labelsmooth.study.data import digits
from labelsmooth.study.identity import identify
from labelsmooth.study.options import Number
from labelsmooth.study.specs import by_epoch, facts_of, left_out, parse, select

from .made_up import LinearFit, bare, study

K = 4
FACTS: dict[str, Any] = {
    "num_classes": K,
    "epochs": 8,
    "counts": torch.tensor([40, 20, 10, 5]),
    "embeddings": torch.tensor([[1.0, 0.0], [1.0, 0.5], [-1.0, 0.3], [0.2, -1.0]], dtype=torch.float64),
}
Z = torch.tensor([[2.0, 0.5, -1.0, 0.0], [0.3, 0.1, 4.0, -8.0], [1.0, 2.0, 0.0, 0.5]], dtype=torch.float64)
Y = torch.tensor([0, 2, 3])


@dataclass(frozen=True, kw_only=True)
class Knowing(LinearFit):
    """A fit that knows all that an arm may ask."""

    num_classes: int = 4
    epochs: int = 3
    counts: Tensor | None = None
    embeddings: Tensor | None = None


KNOWING = Knowing(counts=FACTS["counts"], embeddings=FACTS["embeddings"])


# Reading and spelling.


@pytest.mark.parametrize(
    ("text", "spelled", "label"),
    [
        ("hard", "hard", "hard"),
        ("ls", "ls:eps=0.1", "0.1"),
        ("0.10", "ls:eps=0.1", "0.1"),
        ("ls:eps=1", "ls:eps=1", "1"),
        ("ls:eps=1e-3", "ls:eps=0.001", "0.001"),
        ("mbls:margin=6", "mbls:eps=0.1,margin=6", "mbls:margin=6"),
        ("mbls:margin=6.0,eps=.2", "mbls:eps=0.2,margin=6", "mbls:eps=0.2,margin=6"),
        ("mbls:eps=0.1,margin=10", "mbls:eps=0.1,margin=10", "mbls"),
        # What may be left out is in no spelling, unless it is given.
        ("maxsup", "maxsup:eps=0.1", "maxsup"),
        ("maxsup:eps=0.1,end=0.2", "maxsup:eps=0.1,end=0.2", "maxsup:end=0.2"),
        ("negative:eps=-0.4,clip=5", "negative:eps=-0.4,clip=5,share=0.5", "negative"),
        ("ordinal:kind=squared", "ordinal:eps=1,kind=squared", "ordinal:kind=squared"),
    ],
)
def test_an_arm_has_one_spelling_and_a_label_and_both_are_read_back(text: str, spelled: str, label: str):
    spec = parse(text)
    assert (str(spec), spec.label) == (spelled, label)
    assert str(parse(spelled)) == str(parse(label)) == spelled


def test_only_plain_smoothings_have_an_eps():
    assert [parse(text).eps for text in ("hard", "ls:eps=0.3", "others:eps=0.3", "maxsup")] == [
        0,
        0.3,
        None,
        None,
    ]


MISTAKES = {
    "": "arms must be among hard, ls, others, .* got ''",
    "label": "arms must be among hard, .* got 'label'",
    "LS": "arms must be among .* got 'LS'",
    "ls:": "arm ls:: after the colon must come one of eps=, got ''",
    "ls:0.1": "arm ls:0.1: after the colon must come one of eps=, got '0.1'",
    "mbls:gamma=1": "arm mbls:gamma=1: after the colon must come one of eps=, margin=, got 'gamma=1'",
    "hard:eps=0": "arm hard:eps=0: after the colon must come nothing: it has no options, got 'eps=0'",
    "ls:eps=0.1,eps=0.2": "arm ls:eps=0.1,eps=0.2: eps must be given once, got 0.1 and 0.2",
    "ls:eps=": r"arm ls:eps=: eps must lie in \[0, 1\], got $",
    "ls:eps=a": r"arm ls:eps=a: eps must lie in \[0, 1\], got a",
    "ls:eps=-0.1": r"arm ls:eps=-0.1: eps must lie in \[0, 1\], got -0.1",
    "nan": r"arm ls:eps=nan: eps must lie in \[0, 1\], got nan",
    "mbls:margin=inf": r"arm mbls:margin=inf: margin must lie in \[0, inf\), got inf",
    "negative:eps=1.5": r"arm negative:eps=1.5: eps must lie in \(-inf, 1\], got 1.5",
    "negative:eps=-inf": r"arm negative:eps=-inf: eps must lie in \(-inf, 1\], got -inf",
    "backward:eps=1": r"arm backward:eps=1: eps must lie in \[0, 1\), got 1",
    "ordinal:kind=cubic": "arm ordinal:kind=cubic: kind must be one of absolute, squared, .* got cubic",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_an_arm_is_named_before_anything_is_trained(text: str, tmp_path: Path):
    with pytest.raises(ValueError, match=MISTAKES[text]):
        study(KNOWING, tmp_path / "new", eps=None, arms=[text])
    assert not (tmp_path / "new").exists()


# Which are compared.


def test_hard_targets_are_first_and_each_arm_is_there_once_in_its_order():
    fits = {"a": bare}
    arms = ["kl", "ls:eps=0.3", "hard", "0.30", "kl:eps=0.1", "ls:eps=0", "others"]
    assert select(arms, fits) == ["hard", "kl:eps=0.1", "ls:eps=0.3", "others:eps=0.1"]


def test_all_is_what_every_fit_can_serve():
    everything = select(["all"], {"a": KNOWING})
    assert everything == [str(parse(name)) for name in ARMS]
    some = select(["all", "0.3"], {"a": KNOWING, "b": Knowing(counts=FACTS["counts"])})
    assert [parse(arm).method for arm in some] == [
        name for name in ARMS if name not in ("hierarchy", "similarity")
    ] + ["ls"]
    # Of a fit that knows nothing of itself, those remain that need nothing.
    assert set(select(["all"], {"a": bare})) == {
        str(parse(name)) for name in ARMS if not parse(name).loss.facts
    }


def test_what_is_left_out_has_a_reason():
    assert left_out({"a": KNOWING}) == {}
    fit = Knowing(embeddings=FACTS["embeddings"])
    assert left_out({"a": KNOWING, "b": fit}) == {
        "unigram": "b has no attribute counts",
        "byclass": "b has no attribute counts",
    }


@pytest.mark.usefixtures("no_report")
def test_what_all_leaves_out_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    fit = Knowing(embeddings=FACTS["embeddings"])
    study({"mine": fit}, tmp_path, eps=None, arms=["all"], progress=True)
    said = capfd.readouterr().err.splitlines()
    assert said[:2] == [f"{arm} is left out: mine has no attribute counts" for arm in ("unigram", "byclass")]
    study({"mine": fit}, tmp_path / "named", eps=None, arms=["ls"], progress=True)
    assert "left out" not in capfd.readouterr().err


@pytest.mark.parametrize("name", [name for name in ARMS if parse(name).loss.facts])
def test_what_a_fit_does_not_know_is_named_before_anything_is_trained(name: str, tmp_path: Path):
    (fact, *_) = sorted(parse(name).loss.facts)
    with pytest.raises(
        ValueError, match=f"^arm {name} needs to know .*: mine must have an attribute {fact}, got"
    ):
        study({"yours": KNOWING, "mine": bare}, tmp_path / "new", eps=None, arms=[name])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fit", "arm", "message"),
    [
        (Knowing(epochs=2.5), "cosine", "mine: epochs must be a whole number, got 2.5"),  # pyright: ignore
        (Knowing(num_classes=1), "ordinal", "arm ordinal of mine: num_classes must be"),
        (Knowing(counts=torch.tensor([0, 0])), "unigram", "arm unigram of mine: counts must"),
        (Knowing(embeddings=torch.zeros(3)), "similarity", "arm similarity of mine: embeddings must"),
        (KNOWING, "negative:clip=0", "arm negative:clip=0 of mine: clip must be above 0"),
        (
            KNOWING,
            "graduated:low=0.9",
            "of mine: high must be at least low=0.9, got 0.7",
        ),
    ],
)
def test_facts_and_options_that_do_not_fit_are_named(fit: Knowing, arm: str, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        study({"mine": fit}, tmp_path / "new", eps=None, arms=[arm])
    assert not (tmp_path / "new").exists()


def test_eps_and_arms_go_together(tmp_path: Path):
    def names(**options: Any) -> list[str]:
        results = study(bare, tmp_path, **options)
        return [arm.label for arm in results.settings[0].arms]

    assert names(eps=None, arms=["kl"]) == ["hard", "kl"]
    assert names(eps=[0.3, 0.2], arms=["kl"]) == ["hard", "0.2", "0.3", "kl"]
    assert names(eps=None, arms=None) == ["hard", "0.05", "0.1", "0.2"]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ([], r"arms must name at least one besides hard, got \[\]"),
        (["hard", "0"], r"arms must name at least one besides hard, got \['hard', '0'\]"),
        ("ls", "arms must be a list of names, got 'ls'"),
        ([0.1], r"arms must be a list of names, got \[0.1\]"),
    ],
)
def test_arms_that_are_none_are_named(arms: Any, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        study(bare, tmp_path / "new", eps=None, arms=arms)


# What they compute, from the definitions, in the first epoch unless said.


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
    pasted = eval(str(parse(text).loss), {**names, **FACTS, "torch": torch, "study": study_module})
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


def silent(criterion: Criterion, seed: int) -> FitResult:
    """A fit that never says that an epoch is over."""
    return LinearFit()(Criterion(criterion.loss), seed)


def test_a_fit_that_ends_no_epoch_is_told_what_to_call(tmp_path: Path):
    fit: Any = lambda criterion, seed: silent(criterion, seed)  # noqa: E731, a function of its own to write on
    fit.num_classes, fit.epochs = 4, 3
    for arm in ("cosine", "ols", "negative:eps=-0.1", "maxsup:end=0.2"):
        message = (
            f"^mine: arm {arm} changes from epoch to epoch, so fit must call "
            r"criterion.end_epoch\(\) after each, which it never did$"
        )
        with pytest.raises(ValueError, match=message):
            study({"mine": fit}, tmp_path, eps=None, arms=[arm])
    # Others need not be told.
    assert (
        study({"mine": fit}, tmp_path, eps=None, arms=["maxsup"]).settings[0].chosen.name == "maxsup:eps=0.1"
    )


def test_a_fit_that_ends_no_epoch_is_told_by_workers_too(tmp_path: Path):
    with pytest.raises(ValueError, match=r"arm cosine changes .* criterion.end_epoch\(\)"):
        study({"mine": Silent()}, tmp_path, eps=None, arms=["cosine"], workers=1)


@dataclass(frozen=True)
class Silent:
    epochs: int = 3

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        return silent(criterion, seed)


# In a study.


@pytest.mark.usefixtures("no_report")
def test_every_arm_is_trained_and_no_two_alike(tmp_path: Path):
    results = study({"mine": KNOWING}, tmp_path, eps=None, arms=["all"])
    (setting,) = results.settings
    assert [arm.name for arm in setting.arms] == [str(parse(name)) for name in ARMS]
    assert setting.ranked
    values = [(arm.values["nll"].mean, arm.values["accuracy"].mean) for arm in setting.arms]
    same = {"mbls", "mbls2"}  # no logit leaves the margin in three steps
    different = {v for arm, v in zip(setting.arms, values, strict=True) if arm.spec.method not in same}
    # kl has the gradient of ls.
    assert len(different) >= len(ARMS) - len(same) - 1
    assert len(list(tmp_path.glob("trials/*/*.safetensors"))) == 2 * len(ARMS)


def test_what_a_function_knows_tells_it_from_others():
    def fit(epochs: int) -> Any:
        def train(criterion: Criterion, seed: int) -> FitResult:
            return bare(criterion, seed)

        train.epochs = epochs  # pyright: ignore[reportFunctionMemberAccess]
        return train

    assert identify(fit(2)) == identify(fit(2)) != identify(fit(3))
    assert facts_of(fit(2)) == {"epochs": 2}


def test_digits_know_what_arms_ask():
    facts = facts_of(study_module.DigitsFit(epochs=7))
    x, labels = digits().pool
    assert (facts["num_classes"], facts["epochs"]) == (10, 7)
    assert isinstance(facts["counts"], Tensor)
    assert isinstance(facts["embeddings"], Tensor)
    for k in range(10):
        rows = [row for row, label in zip(x, labels.tolist(), strict=True) if label == k]
        assert facts["counts"][k] == len(rows)
        torch.testing.assert_close(facts["embeddings"][k], sum(rows) / len(rows) - x.mean(0))


# The table itself.


@pytest.mark.parametrize("name", ARMS)
def test_every_row_is_complete_and_its_defaults_are_within_its_rules(name: str):
    method = ARMS[name]
    assert method.grade in GRADES
    assert all((method.formula, method.purpose, method.source))
    assert len(method.formula) < 80
    for option in method.options.values():
        if not isinstance(option, Number) or option.default is not None:
            assert option.read(str(option.default)) == option.default
    # A file's name begins with it, and ends at a dash.
    assert name.isalnum()
    assert name.islower()


def test_the_catalogue_names_every_arm_option_and_source():
    import io

    from rich.console import Console

    file = io.StringIO()
    Console(file=file, width=300).print(catalogue())
    text = file.getvalue()
    for name, method in ARMS.items():
        assert f"\n{name} " in text
        assert method.formula in text
        assert f"Evidence {method.grade}: {method.source}." in text
        for option, rule in method.options.items():
            assert f"{option}=" in text or f"{option} (may be left out)" in text
            assert rule.rule in text
