"""What the terminal shows: all of it, within 30 lines of 80 columns."""

import io
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from labelsmooth.study.analysis.figures import Difference, Estimate, Setting
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.results import Results
from labelsmooth.study.analysis.verdict import answer
from labelsmooth.study.arms.specs import parse
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.report.terminal import change, number, render

from . import made_up
from .made_up import Interval

EXTRAS: dict[str, float | Interval] = {"train_gap": 0.33, "memorised": 1.0}
HELPS: dict[str, Interval] = {
    "accuracy": (0.017, 0.008, 0.027),
    "nll": (0.2, 0.1, 0.3),
    "nll_scaled": (-0.05, -0.07, -0.03),
    "ece": (0.2, 0.1, 0.3),
    "confidence_gap": (-0.2, -0.3, -0.1),
    "memorised": (-0.008, -0.1, 0.1),
}
HARMS: dict[str, Interval] = {"accuracy": (-0.017, -0.027, -0.008), "nll_scaled": (0.05, 0.03, 0.07)}


def settings() -> list[Setting]:
    return [
        made_up.setting("plenty, clean", changes=HELPS, hard={"train_gap": 0.04}),
        made_up.setting("plenty, noisy", changes=HARMS, hard=EXTRAS, flipped=0.2),
        made_up.setting("scarce, noisy", hard=EXTRAS, flipped=0.2, chosen=0.2),
    ]


def shown(results: Results, width: int = 80) -> list[str]:
    file = io.StringIO()
    Console(width=width, file=file, highlight=False).print(render(results), crop=False)  # as the command does
    return file.getvalue().splitlines()


def longest() -> list[Setting]:
    """Three settings whose every number is as long as it can be, with the longest sentence."""
    long: dict[str, float | Interval] = {
        "accuracy": (1.0, 1.0, 1.0),
        "nll": 12.345,
        "nll_scaled": 10.345,
        "ece": 0.999,
        "ece_scaled": 0.888,
        "confidence_gap": -1.0,
        "train_gap": -1.0,
        "memorised": 1.0,
    }
    mixed: dict[str, Interval] = {
        "accuracy": (-0.999, -1.0, -0.998),
        "nll": (-12.345, -22.345, -11.345),
        "nll_scaled": (-10.345, -20.345, -10.0),
        "ece": (-0.5, -0.6, -0.4),
        "ece_scaled": (-0.5, -0.6, -0.4),
        "memorised": (-0.01, -0.02, -0.005),
    }
    base = made_up.setting(hard=long, changes=mixed, chosen=0.125, tried=(0.125,), flipped=0.2)
    arms = [replace(arm, temperature=100.0) for arm in base.arms]
    return [
        replace(base, name=name, arms=arms) for name in ("plenty, clean", "plenty, noisy", "scarce, noisy")
    ]


@pytest.mark.parametrize("three", [settings(), longest()], ids=["usual", "longest"])
def test_three_settings_fit_into_30_lines_of_80_columns(three: Sequence[Setting]):
    lines = shown(made_up.results(*three, folder=Path("labelsmooth-study")))
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    # Nothing was cut for it.
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("three", [settings(), longest()], ids=["usual", "longest"])
def test_the_answers_come_first_and_whole(three: Sequence[Setting]):
    text = " ".join(shown(made_up.results(*three)))
    place = 0
    for setting in three:
        said = f"{setting.name}: {answer(setting)}"
        assert re.sub(r"\s+", " ", text).find(said) >= place
        place = re.sub(r"\s+", " ", text).find(said)
    assert text.startswith(f"{three[0].name}: ")


def rows(lines: Sequence[str]) -> list[list[str]]:
    """The table's rows, a setting's name left out."""
    start = next(i for i, line in enumerate(lines) if line.startswith("setting "))
    end = next(i for i, line in enumerate(lines) if line.startswith("▲"))
    return [line[13:].split() for line in lines[start + 1 : end]]


def test_the_table_shows_hard_targets_and_the_chosen_eps_with_marks():
    lines = shown(made_up.results(*settings()))
    # better ▲, worse ▼, and nothing where it is undecided or, as for a gap, no direction is better
    assert rows(lines) == [
        ["hard", "90.0", "0.500", "0.400", "10.0", "2.0", "+5", "+4", "-"],
        ["0.1", "91.7▲", "0.700▼", "0.350▲", "30.0▼", "2.0", "-15", "+4", "-"],
        ["hard", "90.0", "0.500", "0.400", "10.0", "2.0", "+5", "+33", "100.0"],
        ["0.1", "88.3▼", "0.500", "0.450▼", "10.0", "2.0", "+5", "+33", "100.0"],
        ["hard", "90.0", "0.500", "0.400", "10.0", "2.0", "+5", "+33", "100.0"],
        ["0.2", "90.0", "0.500", "0.400", "10.0", "2.0", "+5", "+33", "100.0"],
    ]
    assert any(line.startswith("▲ better, ▼ worse than hard targets.") for line in lines)
    assert any(
        line.startswith("Judged: accuracy by 0.2 points, NLL at T by 0.002; at 95 %") for line in lines
    )


def test_marks_do_not_move_the_digits():
    lines = [line for line in shown(made_up.results(*settings())) if re.search("^.{13} (hard|0)", line)]
    for column in ((" 90.0", " 91.7", " 88.3"), (" 0.500", " 0.700"), (" 0.400", " 0.350", " 0.450")):
        places = [line.index(n) for line in lines for n in column if n in line]
        assert len(places) == 6
        assert len(set(places)) == 1


def test_each_promise_has_a_word_for_each_setting():
    lines = shown(made_up.results(*settings()))
    table = {cells[0]: cells[1:] for line in lines if len(cells := re.split(r"\s{2,}", line.strip())) == 4}
    assert table == {
        "promised effect": ["plenty, clean", "plenty, noisy", "scarce, noisy"],
        "less over-confidence": ["held", "undecided", "undecided"],
        "better generalisation": ["held", "not held", "undecided"],
        "resilience to noise": ["not tested", "not held", "undecided"],
    }


def test_what_to_paste_is_on_a_line_of_its_own():
    lines = [re.sub(r"\s+", " ", line).strip() for line in shown(made_up.results(*settings()))]
    assert lines[-4:] == [
        "plenty, clean CrossEntropyLoss(label_smoothing=0.1) (logits / 0.50).softmax(-1)",
        "plenty, noisy CrossEntropyLoss(label_smoothing=0) (logits / 2.00).softmax(-1)",
        "scarce, noisy CrossEntropyLoss(label_smoothing=0) (logits / 2.00).softmax(-1)",
        "report: made-up/report.html",
    ]


def test_what_to_paste_is_not_broken_for_eps_of_two_digits():
    three = [made_up.setting(name, changes=HELPS, chosen=0.05) for name in ("plenty, clean",) * 3]
    lines = shown(made_up.results(*three))
    line = "plenty, clean CrossEntropyLoss(label_smoothing=0.05) (logits / 0.50).softmax(-1)"
    assert lines[-4:-1] == [line] * 3


def test_columns_of_what_no_fit_returned_are_left_out():
    lines = "\n".join(shown(made_up.results(made_up.setting("bare"))))
    assert "learnt" not in lines
    assert "train" not in lines
    assert "conf." in lines


# Arms for a ranking.

MANY = ["ls:eps=0.1", "maxsup:eps=0.1", "mbls:eps=0.1,margin=6", "cp:eps=0.1", "focal:gamma=3", "kl:eps=0.1"]


def many() -> Setting:
    """One that helps and is chosen, one that harms, one that only seems better; the others do nothing."""
    base = made_up.setting("many", changes=HELPS, chosen="maxsup:eps=0.1", tried=MANY)
    arms = {arm.name: arm for arm in base.arms}
    for name, by, p in (("focal:gamma=3", 0.05, 1e-6), ("cp:eps=0.1", -0.02, 0.03)):
        arm = arms[name]
        nll = Difference(by, by - 0.01, by + 0.01, p, adjusted=min(1.0, 12 * p))
        values = {**arm.values, "nll_scaled": Estimate(0.4 + by, 0.39 + by, 0.41 + by)}
        arms[name] = replace(arm, differences={**arm.differences, "nll_scaled": nll}, values=values)
    return replace(base, arms=list(arms.values()))


def test_many_arms_are_ranked_by_nll_at_temperature_with_hard_targets_among_them():
    lines = shown(made_up.results(many()))
    start = next(i for i, line in enumerate(lines) if line.startswith("many ") and "NLL at T" in line)
    end = next(i for i, line in enumerate(lines) if line.startswith("Sorted by"))
    assert [" ".join(line.split()) for line in lines[start + 1 : end]] == [
        "maxsup* +1.7 [+0.8, +2.7] ▲ -0.050 [-0.070, -0.030] ▲ 2.0",
        # Its interval excludes 0, but of six arms it is one by chance.
        "cp +0.0 [-1.0, +1.0] -0.020 [-0.030, -0.010] 2.0",
        "hard 90.0 0.400 2.0",
        *(f"{arm} +0.0 [-1.0, +1.0] +0.000 [-0.010, +0.010] 2.0" for arm in ("0.1", "mbls:margin=6", "kl")),
        "focal +0.0 [-1.0, +1.0] +0.050 [+0.040, +0.060] ▼ 2.0",
    ]
    legend = re.sub(r"\s+", " ", " ".join(lines[end : end + 4]))
    for said in ("Sorted by test NLL", "95 %", "Holm", "* chosen by validation NLL"):
        assert said in legend
    assert max(map(len, lines)) <= 80


def test_neither_marks_nor_long_numbers_move_the_digits_of_a_ranking():
    setting = many()
    wide = replace(setting.arms[4], differences={**setting.arms[4].differences})
    wide.differences["accuracy"] = Difference(-0.25, -0.35, -0.15, 1e-6, adjusted=1e-5)
    lines = shown(made_up.results(replace(setting, arms=[*setting.arms[:4], wide, *setting.arms[5:]])))
    rows = [line for line in lines if line.count("]") == 2 and line.count("[+") + line.count("[-") == 2][-6:]
    assert any("-25.0 [-35.0, -15.0] ▼" in row for row in rows)
    assert len({tuple(m.start() for m in re.finditer("]", row)) for row in rows}) == 1


@pytest.mark.parametrize(
    ("tried", "ranked"),
    [
        ((0.05, 0.1, 0.2), False),
        ((0.05, 0.1, 0.2, 0.3, 0.4), False),
        ((0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), False),
        (("kl:eps=0.1", 0.1), True),
    ],
)
def test_strengths_alone_are_no_ranking(tried: tuple[float | str, ...], ranked: bool):
    lines = shown(made_up.results(made_up.setting(tried=tried)))
    assert any(line.startswith("Sorted by") for line in lines) == ranked
    assert any(line.startswith("setting ") for line in lines) != ranked


def test_what_is_long_is_pasted_from_lines_of_its_own():
    arm = "graduated:eps=0.1,sure=0.3,low=0.3,high=0.7"
    lines = shown(made_up.results(made_up.setting("a", changes=HELPS, chosen=arm, tried=[arm])))
    assert lines[-4:-1] == [
        "a",
        "  labelsmooth.study.Graduated(eps=0.1, sure=0.3, low=0.3, high=0.7)",
        "  (logits / 0.50).softmax(-1)",
    ]


def test_every_arm_is_pasted_unbroken():
    for name in ARMS:
        arm = str(parse(name))
        if arm == "hard":
            continue
        three = [made_up.setting("plenty, noisy", changes=HELPS, chosen=arm, tried=[arm])] * 3
        text = "\n".join(shown(made_up.results(*three)))
        assert text.count(str(parse(name).loss)) == 3, name


def test_a_long_folder_is_not_cut():
    folder = Path("/tmp") / ("long" * 30)
    assert shown(made_up.results(made_up.setting(), folder=folder))[-1] == f"report: {folder}/report.html"


def test_names_are_not_taken_for_markup():
    name = "[red]x[/red] [/]"
    text = re.sub(r"\s+", " ", " ".join(shown(made_up.results(made_up.setting(name)), width=120)))
    assert text.count(name) == 4  # before the answer, in both tables, and before what to paste


@pytest.mark.parametrize(
    ("metric", "value", "shown", "changed"),
    [
        ("accuracy", 0.98765, "98.8", "+98.8"),
        ("ece", 0.0, "0.0", "+0.0"),
        ("nll", 0.12345, "0.123", "+0.123"),
        ("confidence_gap", -0.146, "-15", "-14.6"),
        ("train_gap", 0.004, "+0", "+0.4"),
        ("memorised", 1.0, "100.0", "+100.0"),
    ],
)
def test_numbers_are_in_their_units(metric: str, value: float, shown: str, changed: str):
    assert number(metric, value) == shown
    assert change(metric, value) == changed


def test_every_metric_has_a_number():
    assert all(number(metric, 0.5) for metric in METRICS)
