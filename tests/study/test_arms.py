"""The table of arms, as a person meets it: spellings, mistakes, what a fit has to know and to call."""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from labelsmooth.study import Criterion, DigitsFit, FitResult
from labelsmooth.study.arms.options import Number, spelled
from labelsmooth.study.arms.specs import facts_of, left_out, parse, select
from labelsmooth.study.arms.table import ARMS, GRADES
from labelsmooth.study.commands.arms import catalogue
from labelsmooth.study.data.digits import digits
from labelsmooth.study.trials.identity import identify

from .made_up import LinearFit, bare, study

FACTS: dict[str, Any] = {
    "counts": torch.tensor([40, 20, 10, 5]),
    "embeddings": torch.tensor([[1.0, 0.0], [1.0, 0.5], [-1.0, 0.3], [0.2, -1.0]]),
}


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
    "": r"^no arm is named '' \(labelsmooth arms lists them\)$",
    "label": r"^no arm is named 'label' \(",
    "maxsap": r"^no arm is named 'maxsap': did you mean maxsup\? \(",
    "MaxSup:eps=0.2": r"^no arm is named 'MaxSup': did you mean maxsup\? \(",
    "All": r"^no arm is named 'All': did you mean all\? \(",
    "maxsup,ols": r"^no arm is named 'maxsup,ols': separate arms by spaces, as in maxsup ols \(",
    "ls:": "arm ls:: after the colon must come one of eps=, got ''",
    "ls:0.1": "arm ls:0.1: after the colon must come one of eps=, got '0.1'",
    "mbls:gamma=1": "arm mbls:gamma=1: after the colon must come one of eps=, margin=, got 'gamma=1'",
    "hard:eps=0": "arm hard:eps=0: after the colon must come nothing: it has no options, got 'eps=0'",
    "ls:eps=0.1,eps=0.2": "arm ls:eps=0.1,eps=0.2: eps must be given once, got 0.1 and 0.2",
    "ls:eps=": r"arm ls:eps=: eps must be a number in \[0, 1\], got $",
    "ls:eps=a": r"arm ls:eps=a: eps must be a number in \[0, 1\], got a",
    "ls:eps=-0.1": r"arm ls:eps=-0.1: eps must be a number in \[0, 1\], got -0.1",
    "nan": r"arm ls:eps=nan: eps must be a number in \[0, 1\], got nan",
    "mbls:margin=inf": r"arm mbls:margin=inf: margin must be a number in \[0, inf\), got inf",
    "negative:eps=1.5": r"arm negative:eps=1.5: eps must be a number in \(-inf, 1\], got 1.5",
    "negative:eps=-inf": r"arm negative:eps=-inf: eps must be a number in \(-inf, 1\], got -inf",
    "backward:eps=1": r"arm backward:eps=1: eps must be a number in \[0, 1\), got 1",
    "unigram:temperature=0": r"temperature must be a number in \(0, inf\), got 0",
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
        "unigram": "the fit of 'b' has no attribute counts",
        "byclass": "the fit of 'b' has no attribute counts",
    }


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_what_all_leaves_out_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    fit = Knowing(embeddings=FACTS["embeddings"])
    study({"mine": fit}, tmp_path, eps=None, arms=["all"], progress=True)
    said = capfd.readouterr().err.splitlines()
    why = "is left out: the fit of 'mine' has no attribute counts"
    assert said[:2] == [f"unigram {why}", f"byclass {why}"]
    study({"mine": fit}, tmp_path / "named", eps=None, arms=["ls"], progress=True)
    assert "left out" not in capfd.readouterr().err


@pytest.mark.parametrize("name", [name for name in ARMS if parse(name).loss.facts])
def test_what_a_fit_does_not_know_is_named_before_anything_is_trained(name: str, tmp_path: Path):
    (fact, *_) = sorted(parse(name).loss.facts)
    message = rf"^arm {name} needs .*: set it on the fit of 'mine', as in fit.{fact} = \.\.\.$"
    with pytest.raises(ValueError, match=message):
        study({"yours": KNOWING, "mine": bare}, tmp_path / "new", eps=None, arms=[name])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fit", "arm", "message"),
    [
        (Knowing(epochs=2.5), "cosine", "mine: epochs must be an integer, got 2.5"),  # pyright: ignore
        (
            Knowing(counts=torch.ones(2, 3)),
            "byclass",
            r"mine: counts must be a tensor \(K,\), got torch.float32 of shape \(2, 3\)",
        ),
        (
            Knowing(embeddings=torch.ones(2, 3).long()),
            "hierarchy",
            r"mine: embeddings must be a floating-point tensor \(K, D\), got torch.int64 of shape \(2, 3\)",
        ),
        (
            Knowing(),
            "all:eps=1",
            "arm all takes no options, since every arm has its defaults, got 'all:",
        ),
        (Knowing(num_classes=1), "ordinal", "arm ordinal of mine: num_classes must be"),
        (Knowing(counts=torch.tensor([0, 0])), "unigram", "arm unigram of mine: counts must"),
        (Knowing(embeddings=torch.zeros(3)), "similarity", "mine: embeddings must be a floating"),
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


@pytest.mark.slow
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
        ("ls", r"arms must be a list of names, or \[\"all\"\], got 'ls'"),
        (5, r"arms must be a list of names, or .*, got 5"),
        ((arm for arm in ["ls"]), r"arms must be a list of names, or .*, got <generator"),
        ([0.1], r"arms must be a list of names, or .*, got \[0.1\]"),
    ],
)
def test_arms_that_are_none_are_named(arms: Any, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        study(bare, tmp_path / "new", eps=None, arms=arms)


# The end of an epoch.


@dataclass(frozen=True)
class Ending:
    """A fit of three epochs that says of so many that they are over."""

    calls: int
    num_classes: int = 4
    epochs: int | None = 3

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        criterion(torch.zeros(1, 4), torch.tensor([0]))
        for _ in range(self.calls):
            criterion.end_epoch()
        return bare(Criterion(criterion.loss), seed)


MUST_END = r"changes from epoch to epoch, so fit must call criterion.end_epoch\(\) after each"


@pytest.mark.parametrize("arm", ["cosine", "ols", "negative:eps=-0.1", "maxsup:end=0.2"])
def test_a_fit_that_ends_no_epoch_is_told_what_to_call(arm: str, tmp_path: Path):
    with pytest.raises(ValueError, match=f"^mine: arm {arm} {MUST_END}, which it never did$"):
        study({"mine": Ending(0)}, tmp_path, eps=None, arms=[arm])


@pytest.mark.slow
def test_a_fit_that_ends_no_epoch_is_told_by_workers_too(tmp_path: Path):
    with pytest.raises(ValueError, match=f"arm cosine {MUST_END}, which it never did"):
        study({"mine": Ending(0)}, tmp_path, eps=None, arms=["cosine"], workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("calls", [1, 2, 4, 30])
@pytest.mark.parametrize("arm", ["cosine", "maxsup:end=0.2"])
def test_a_fit_that_ends_more_or_fewer_epochs_than_it_has_is_told_both(arm: str, calls: int, tmp_path: Path):
    message = f"^mine: arm {arm} {MUST_END} of fit.epochs = 3, got {calls} calls$"
    with pytest.raises(ValueError, match=message):
        study({"mine": Ending(calls)}, tmp_path, eps=None, arms=[arm])


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize(("fit", "arm"), [(Ending(0), "maxsup"), (Ending(2), "maxsup"), (Ending(2), "ols")])
def test_the_ends_of_epochs_are_counted_only_where_they_matter(fit: Ending, arm: str, tmp_path: Path):
    results = study({"mine": fit}, tmp_path, eps=None, arms=[arm])
    assert results.settings[0].chosen.label == arm


# In a study.


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_every_arm_is_trained_and_no_two_alike(tmp_path: Path):
    results = study({"mine": KNOWING}, tmp_path, eps=None, arms=["all"])
    (setting,) = results.settings
    assert [arm.name for arm in setting.arms] == [str(parse(name)) for name in ARMS]
    assert setting.ranked
    values = [(arm.values["nll"].mean, arm.values["accuracy"].mean) for arm in setting.arms]
    same = {"mbls", "mbls2"}  # no logit leaves the margin in three steps
    different = {
        v for arm, v in zip(setting.arms, values, strict=True) if arm.spec and arm.spec.method not in same
    }
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
    facts = facts_of(DigitsFit(epochs=7))
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


LOWEST = [
    (name, option)
    for name, method in ARMS.items()
    for option, rule in method.options.items()
    # One that is bounded by another option besides.
    if isinstance(rule, Number) and rule.within.low > -math.inf and (name, option) != ("graduated", "high")
]


@pytest.mark.parametrize(("name", "option"), LOWEST)
def test_an_option_may_be_the_lowest_of_its_range_where_the_loss_can_be_made_with_it(name: str, option: str):
    rule = ARMS[name].options[option]
    assert isinstance(rule, Number)
    options = {o: other.default for o, other in ARMS[name].options.items()} | {option: rule.within.low}
    try:
        ARMS[name].loss(**options)(facts_of(KNOWING))
    except ValueError:
        assert not rule.within.has(rule.within.low)
    else:
        assert rule.within.has(rule.within.low)


def test_the_catalogue_names_every_arm_option_and_source():
    file = io.StringIO()
    Console(file=file, width=300).print(catalogue())
    text = file.getvalue()
    for name, method in ARMS.items():
        assert f"\n{name} " in text
        assert method.formula in text
        assert f"Evidence {method.grade}: {method.source}." in text
        for option, rule in method.options.items():
            default = " (optional)" if rule.default is None else f"={spelled(rule.default)}"
            assert f" {option}{default}, {rule}" in text
    for said in ("eps=0.1, in [0, 1]", "temperature=1, in (0, inf)", "kind=absolute, or squared, log,"):
        assert said in text
