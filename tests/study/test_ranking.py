"""The report of many arms: all of them ranked, a few of them drawn one by one."""

import re
import xml.etree.ElementTree as ET

import pytest

from labelsmooth.study import Results
from labelsmooth.study.analysis.figures import FEW
from labelsmooth.study.analysis.verdict import Effect, effect
from labelsmooth.study.arms.table import ARMS
from labelsmooth.study.report.charts import _span, against_eps, against_hard, arm_name, featured
from labelsmooth.study.report.terminal import interval, number

from . import made_up
from .made_up import LinearFit, study
from .test_report import Page

pytestmark = pytest.mark.slow

NAMES = ["0.1", "0.3", "kl", "maxsup", "focal:gamma=2", "cp:eps=0.3", "bootstrap:eps=0.2"]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Results:
    fits = {"short": LinearFit(steps=2), "<long>": LinearFit(steps=5)}
    return study(fits, tmp_path_factory.mktemp("many"), eps=None, arms=NAMES)


@pytest.fixture(scope="module")
def text(many: Results) -> str:
    return (many.folder / "report.html").read_text(encoding="utf-8")


def test_every_arm_is_in_the_table_in_its_place_with_its_numbers(many: Results, text: str):
    tables = re.findall(r'<table class="ranking">(.*?)</table>', text, re.DOTALL)
    assert len(tables) == len(many.settings)
    for setting, table in zip(many.settings, tables, strict=True):
        rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr")[2:]]
        assert len(rows) == len(NAMES) + 1
        nlls = [arm.values["nll_scaled"].mean for arm in setting.ranking]
        assert nlls == sorted(nlls)
        for arm, cells in zip(setting.ranking, rows, strict=True):
            assert arm.spec is not None
            method = ARMS[arm.spec.method]
            chosen = " (chosen)" if arm is setting.chosen else ""
            assert cells[0] == f"{arm_name(arm)}{chosen}"
            assert cells[1] == number("accuracy", arm.values["accuracy"].mean)
            assert cells[3] == number("nll_scaled", arm.values["nll_scaled"].mean)
            assert cells[5] == number("ece_scaled", arm.values["ece_scaled"].mean)
            assert method.source in cells[7]
            for cell, metric in zip(cells[2:5:2], setting.judged, strict=True):
                if arm is setting.hard:
                    assert cell == ""
                else:
                    mark = effect(setting, arm, metric)
                    assert cell == f'<span class="{mark}">{interval(arm.differences[metric], metric)}</span>'


def test_a_few_are_drawn_one_by_one(many: Results, text: str):
    page = Page(text)
    shown = featured(many)
    assert len(shown) == FEW < len(many.settings[0].arms)
    labels = [arm_name(many.settings[0].arms[j]) for j in shown]
    assert page.text_of("label") == ["short", "<long>", *labels, "off", "on"]
    # Two settings, with and without temperature; the forest, three against eps, confusion, risk, the
    # curves, the projections.
    assert len(page.all("svg")) == len(shown) * 2 * 2 + 8
    curves = text.split("<h2>Training curves</h2>")[1].split("<h2>")[0]
    ET.fromstring(curves[curves.index("<svg") : curves.index("</svg>") + 6])


def test_the_few_are_hard_targets_the_chosen_and_the_best(many: Results):
    shown = featured(many)
    assert shown == sorted(set(shown))
    assert shown[0] == 0
    for setting in many.settings:
        assert setting.arms.index(setting.chosen) in shown
    ranks = {
        j: sum(setting.ranking.index(setting.arms[j]) for setting in many.settings)
        for j in range(1, len(many.settings[0].arms))
    }
    chosen = {setting.arms.index(setting.chosen) for setting in many.settings}
    best = [j for j in shown[1:] if j not in chosen]
    left = [j for j in ranks if j not in shown]
    assert max(ranks[j] for j in best) <= min(ranks[j] for j in left)


def test_all_of_few_are_drawn():
    assert featured(made_up.results(made_up.setting(tried=["kl:eps=0.1", 0.1, 0.2]))) == [0, 1, 2, 3]


def test_the_forest_holds_every_difference(many: Results):
    picture = against_hard(many)
    assert picture is not None
    assert len(picture.rows) == len(many.settings) * 2 * len(NAMES)
    for setting in many.settings:
        for arm in setting.arms[1:]:
            rows = [row for row in picture.rows if row[:2] == [setting.name, arm_name(arm)]]
            for row, metric in zip(rows, setting.judged, strict=True):
                d, factor = arm.differences[metric], {"accuracy": 100, "nll_scaled": 1}[metric]
                assert row[3:6] == [f"{v * factor:+.3f}" for v in (d.mean, d.low, d.high)]
    drawn = "".join(ET.fromstring(picture.svg).itertext())
    for arm in many.settings[0].arms[1:]:
        assert drawn.count(arm_name(arm)) >= len(many.settings)


def test_one_arm_far_out_does_not_flatten_the_others():
    def span(*pairs: tuple[float, float]) -> tuple[float, float]:
        return _span([made_up.difference((low + high) / 2, low, high) for low, high in pairs])

    margin = 0.04 * 0.3
    assert span((-0.1, 0.2), (-0.05, 0.1)) == pytest.approx((-0.1 - margin, 0.2 + margin))
    # 0 is in the picture, wherever the arms lie.
    assert span((0.1, 0.2), (0.1, 0.2))[0] < 0
    # The fourth reaches 9; the others 0.2 in the middle, four times that is the end.
    low, high = span((-0.1, 0.2), (-0.2, 0.1), (-0.2, 0.1), (3.0, 9.0))
    assert (low, high) == pytest.approx((-0.2 - 0.04, 0.8 + 0.04))
    assert span((0.0, 0.0), (0.0, 0.0)) == (-1.0, 1.0)


def test_a_forest_is_for_more_than_strengths_and_eps_for_two_of_them_at_least():
    def pictures(*tried: float | str) -> tuple[bool, bool]:
        results = made_up.results(made_up.setting(tried=tried, chosen=tried[0]))
        return against_hard(results) is not None, against_eps(results, "accuracy") is not None

    assert pictures(0.1) == (False, True)
    assert pictures(0.1, 0.2) == (False, True)
    assert pictures(0.1, "kl:eps=0.1") == (True, False)
    assert pictures(0.1, 0.2, "kl:eps=0.1") == (True, True)
    assert pictures("kl:eps=0.1") == (True, False)


def test_strengths_stand_in_order_against_eps():
    picture = against_eps(made_up.results(made_up.setting(tried=[0.3, "kl:eps=0.1", 0.1])), "accuracy")
    assert picture is not None
    assert [row[1] for row in picture.rows] == ["0", "0.1", "0.3"]


def test_colours_tell_what_is_sure():
    better = made_up.setting(changes={"accuracy": (0.02, 0.01, 0.03)}, tried=[0.1, "kl:eps=0.1"])
    picture = against_hard(made_up.results(better))
    assert picture is not None
    assert effect(better, better.chosen, "accuracy") is Effect.BETTER
    assert "#1a7f37" in picture.svg
    neither = against_hard(made_up.results(made_up.setting(tried=[0.1, "kl:eps=0.1"])))
    assert neither is not None
    assert "#1a7f37" not in neither.svg
