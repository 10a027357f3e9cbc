"""The report stands alone, holds its numbers twice, and shows the one figure that was asked for."""

import html
import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth.study import Results
from labelsmooth.study.analysis.advice import next_steps
from labelsmooth.study.analysis.metrics import METRICS
from labelsmooth.study.analysis.summary import analyse
from labelsmooth.study.analysis.verdict import PROMISES, answer, criteria, recommended
from labelsmooth.study.report.changes import by_class, changed_rows
from labelsmooth.study.report.page import write_report
from labelsmooth.study.report.pictures import arm_name
from labelsmooth.study.report.terminal import number
from labelsmooth.study.trials.files import Job, Outcome, load
from tests import browser
from tests.browser import needs_browser

from .made_up import HOSTILE_NAMES, outcomes

pytestmark = pytest.mark.slow

VOID = {"br", "hr", "img", "input", "link", "meta"}
PICTURES = [
    "Accuracy against eps",
    "NLL against eps, after temperature",
    "NLL against eps, before temperature",
    "Confusion of classes",
    "Risk and coverage",
    "Training curves",
    "Penultimate layer",
]


class Page(HTMLParser):
    """What a page is made of: its elements, with their text, and whether they were closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []  # of the innermost element
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs)
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.append((self._open[-1], data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.texts if name == tag]


@pytest.fixture(scope="module")
def text(finished: Results) -> str:
    return (finished.folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def combinations(results: Results) -> list[tuple[int, int, int]]:
    """(setting, arm, temperature on)"""
    arms = range(len(results.settings[0].arms))
    return list(itertools.product(range(len(results.settings)), arms, range(2)))


def caption(results: Results, i: int, j: int, t: int) -> str:
    """How the caption of that figure starts."""
    setting = results.settings[i]
    when = "after" if t else "before"
    return f"{setting.name}, {arm_name(setting.arms[j])}, {when} temperature: "


def test_it_needs_no_script_and_no_network(text: str, page: Page):
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "img", "object", "embed", "base", "video"}
    for _, attrs in page.elements:
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert (attrs.get(name) or "#").startswith("#")
    assert [url for url in re.findall(r"url\(\s*[\"']?([^)]*)\)", text) if not url.startswith("#")] == []
    assert "@import" not in text
    # Namespaces are names, and not fetched.
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<)]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_identifiers_are_valid_and_unique_and_what_refers_to_them_finds_them(text: str, page: Page):
    ids = [name for _, attrs in page.elements if (name := attrs.get("id")) is not None]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    assert all(name and not re.search(r"\s", name) for name in ids)
    referred = {attrs.get("for") for attrs in page.all("label")}
    referred |= {(attrs.get("xlink:href") or "#")[1:] for attrs in page.all("use")}
    referred |= set(re.findall(r"url\(#([^)]*)\)", text))
    assert referred - set(ids) == set()
    assert len(referred) > 20


def test_every_control_has_a_label_and_the_first_of_each_is_on(finished: Results, page: Page):
    inputs = page.all("input")
    assert {attrs["type"] for attrs in inputs} == {"radio"}
    assert Counter(attrs["name"] for attrs in inputs) == {"setting": 3, "arm": 3, "temperature": 2}
    assert sorted(attrs["id"] or "" for attrs in inputs) == sorted(
        attrs["for"] or "" for attrs in page.all("label")
    )
    assert [attrs["id"] for attrs in inputs if "checked" in attrs] == ["s0", "e0", "t0"]
    assert page.text_of("label") == [
        *HOSTILE_NAMES,
        *(arm_name(arm) for arm in finished.settings[0].arms),
        "off",
        "on",
    ]


def test_every_picture_has_a_caption_and_a_table(finished: Results, page: Page):
    count = len(combinations(finished))
    headings = page.text_of("h2")
    assert [heading for heading in headings if heading in PICTURES] == PICTURES
    assert len(page.all("svg")) == count + len(PICTURES) == len(page.text_of("figcaption"))
    summaries = page.text_of("summary")
    assert summaries.count("its numbers") == len(PICTURES)
    plain = [
        s
        for s in summaries
        if s
        in (
            "rows that change in the most seeds",
            "accuracy of each class",
            "most frequent errors",
        )
    ]
    assert plain.count("accuracy of each class") == len(finished.settings)
    assert len(page.all("details")) == count + len(PICTURES) + len(plain) == len(summaries)
    # A reliability diagram's table carries its caption, which the figure ends with a full stop.
    tabled = [summary for summary in summaries if summary not in ("its numbers", *plain)]
    assert [f"{summary}." for summary in tabled] == page.text_of("figcaption")[:count]
    for combination in combinations(finished):
        assert len([said for said in tabled if said.startswith(caption(finished, *combination))]) == 1


def test_the_tables_of_the_diagrams_count_every_row(finished: Results, text: str):
    tables = text.split("<h2>Numbers of the reliability diagrams</h2>")[1].split("</details>")[:-1]
    assert len(tables) == len(combinations(finished))
    for table in tables:
        rows = [re.findall("<td>(.*?)</td>", row) for row in table.split("<tr>")[2:]]
        assert sum(int(row[1]) for row in rows) == 2 * 50  # seeds times test rows
        for edges, _, confidence, accuracy in rows:
            low, high = map(float, edges.split(" to "))
            assert low - 0.0051 <= float(confidence) <= high + 0.0051
            assert 0 <= float(accuracy) <= 1


def test_svgs_are_well_formed_and_carry_names_as_text(finished: Results, text: str):
    svgs = [ET.fromstring(svg) for svg in re.findall("<svg .*?</svg>", text, re.DOTALL)]
    for svg in svgs:
        assert svg.get("viewBox")
        assert "width" not in svg.attrib  # as wide as the page lets it be
    for title, svg in zip(PICTURES, svgs[-len(PICTURES) :], strict=True):
        drawn = ["".join(element.itertext()) for element in svg.iter("{http://www.w3.org/2000/svg}text")]
        for setting in finished.settings:
            # Over a projection stands what was trained on, too.
            assert any(name.startswith(setting.name) for name in drawn), (title, setting.name)


def test_names_are_text_and_never_markup(finished: Results, text: str, page: Page):
    assert "<b>" not in text
    assert page.all("b") == []
    assert page.text_of("strong") == [
        *(f"{name} (made-up rows)." for name in HOSTILE_NAMES),
        *HOSTILE_NAMES,  # what to do next
        *HOSTILE_NAMES,  # every figure
        *HOSTILE_NAMES,  # which rows changed
    ]
    for name in HOSTILE_NAMES:
        assert page.text_of("th").count(name) == 1


def test_the_answers_the_promises_and_every_number_are_there(finished: Results, page: Page):
    paragraphs, cells = page.text_of("p"), page.text_of("td")
    spans = page.text_of("span")
    for setting in finished.settings:
        assert f" {answer(setting)}" in paragraphs
        for judge in PROMISES.values():
            judgement = judge(setting)
            assert judgement.promise in spans
            assert f": {judgement.evidence}" in cells
        for arm in setting.arms:
            assert f"{arm.temperature:.2f}" in cells
            assert arm.values.keys() <= METRICS.keys()
            for metric, e in arm.values.items():
                assert number(metric, e.mean) in spans
                low, high = (number(metric, edge) for edge in (e.low, e.high))
                # Of hard targets their own interval, of the others that of the difference.
                assert arm.differences or f"[{low}, {high}]" in spans
    assert cells.count("resilience to noise") == 1


def test_it_is_the_same_each_time(finished: Results, text: str, tmp_path: Path):
    runs: dict[str, dict[Job, Outcome]] = {}
    for setting in finished.settings:
        jobs = [Job(arm.name, seed) for arm in setting.arms for seed in range(setting.seeds)]
        (folder,) = (path for path in finished.folder.glob("trials/*") if _is_of(path, setting.name))
        runs[setting.name] = {
            job: load(folder / f"{job.arm.replace(':', '-')}-seed{job.seed}.safetensors") for job in jobs
        }
    analyses = [
        analyse(s.name, s.description, runs[s.name], [arm.name for arm in s.arms], range(s.seeds))
        for s in finished.settings
    ]
    write_report(Results(finished.settings, "", tmp_path), analyses, runs, seconds=3.0)
    took, day = re.compile(r"Total time of the runs: (.*)\."), re.compile(r"\d{4}-\d\d-\d\d")
    again = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert took.findall(again) == ["3 s"]
    assert took.sub("", day.sub("", again)) == took.sub("", day.sub("", text))  # midnight may lie between
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_it_says_what_to_do_what_was_compared_and_how_to_do_it_again(
    finished: Results, text: str, page: Page
):
    for setting in finished.settings:
        assert f"criterion = {recommended(setting).code}" in html.unescape(text)
        for step in next_steps(setting):
            assert step in page.text_of("li")
        size = f"{setting.seeds} seeds, 4 classes, 30 validation rows, 50 test rows."
        assert sum(size in said for said in page.text_of("p")) >= 1
    made = next(said for said in page.text_of("li") if said.startswith("Made on 2"))
    assert f"torch {torch.__version__}" in made
    assert criteria(finished.settings[0]) in " ".join(page.text_of("p"))


def test_rows_and_classes_that_changed_equal_a_loop():
    arms, seeds = ["hard", "ls:eps=0.3"], [0, 1, 2]
    runs = outcomes([0.0, 0.3], seeds, rows=40)
    analysis = analyse("", "", runs, arms, seeds)
    found = [[str(cell) for cell in row] for row in changed_rows(analysis).rows]
    assert found
    for what, row, label, before, after, count in found:
        is_right = what == "wrong to right"
        right = {
            (arm, s): int(runs[Job(arm, s)].test[0][int(row)].argmax())
            == int(runs[Job(arm, s)].test[1][int(row)])
            for arm in arms
            for s in seeds
        }
        changed = [s for s in seeds if right[arms[1], s] == is_right and right[arms[0], s] != is_right]
        assert count == f"{len(changed)} of 3"
        assert label == f"class {int(row) % 4}"
        assert before.startswith("class ")
        assert after.startswith("class ")
    classes = [[str(cell) for cell in row] for row in by_class(analysis).rows]
    assert [(name, count) for name, count, *_ in classes] == [(f"class {k}", "10") for k in range(4)]
    for k, (_, _, hard, chosen, change) in enumerate(classes):
        assert (float(hard), float(chosen)) == pytest.approx(
            [100 * (arm.recall[k] or 0.0) for arm in analysis.setting.arms], abs=0.051
        )
        assert float(change) == pytest.approx(float(chosen) - float(hard), abs=0.11)


def test_classes_have_their_names():
    runs = outcomes([0.0, 0.3], [0, 1], rows=40)
    analysis = analyse("", "", runs, ["hard", "ls:eps=0.3"], [0, 1], {}, ["a", "b", "c", "d"])
    assert [row[0] for row in by_class(analysis).rows] == ["a", "b", "c", "d"]


def _is_of(folder: Path, name: str) -> bool:
    letters = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return re.fullmatch(re.escape(letters) + "-[0-9a-f]{12}", folder.name) is not None


# In a browser.

# A reader's hand: choose by the labels, and note which figures are then to be seen. What it notes it leaves
# in the page, which is all of it that comes back.
HAND = """
<script>
const seen = () => [...document.querySelectorAll(".shown figure")]
  .filter(f => getComputedStyle(f).display !== "none" && f.getBoundingClientRect().height > 50)
  .map(f => f.querySelector("figcaption").textContent);
const count = name => document.querySelectorAll(`input[name=${name}]`).length;
const notes = {first: seen(), chosen: [], width: [document.documentElement.scrollWidth, innerWidth]};
for (let i = count("setting"); i-- > 0;)
  for (let t = count("temperature"); t-- > 0;)
    for (let j = count("arm"); j-- > 0;) {
      for (const id of [`s${i}`, `e${j}`, `t${t}`]) document.querySelector(`label[for=${id}]`).click();
      notes.chosen.push([i, j, t, seen()]);
    }
const print = [...document.styleSheets[0].cssRules].filter(rule => rule.conditionText === "print");
const style = document.createElement("style");
style.textContent = print.flatMap(rule => [...rule.cssRules].map(inner => inner.cssText)).join("\\n");
document.head.append(style);
notes.paper = seen();
notes.controls = getComputedStyle(document.querySelector(".controls")).display;
const left = document.createElement("pre");
left.id = "notes";
left.textContent = JSON.stringify(notes);
document.body.append(left);
</script>
"""


@pytest.fixture(scope="module")
def browse(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    return lambda *args: browser.browse(tmp_path_factory.mktemp("profile"), *args)


@pytest.fixture(scope="module")
def notes(text: str, browse: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was seen in a window of 500 pixels."""
    copy = tmp_path_factory.mktemp("copy") / "report.html"
    copy.write_text(text.replace("</body>", HAND + "</body>"), encoding="utf-8")
    dom = browse("--window-size=500,900", "--dump-dom", copy.as_uri())
    return json.loads(html.unescape(dom.split('<pre id="notes">')[1].split("</pre>")[0]))


@needs_browser
def test_each_choice_shows_one_figure_and_the_right_one(finished: Results, notes: dict[str, Any]):
    (first,) = notes["first"]
    assert first.startswith(caption(finished, 0, 0, 0))
    assert sorted((i, j, t) for i, j, t, _ in notes["chosen"]) == combinations(finished)
    for i, j, t, seen in notes["chosen"]:
        (shown,) = seen
        assert shown.startswith(caption(finished, i, j, t))


@needs_browser
def test_a_narrow_window_needs_no_scrolling_to_the_side(notes: dict[str, Any]):
    page, window = notes["width"]
    assert window <= 500
    assert page <= window


@needs_browser
def test_on_paper_all_figures_are_there_and_no_controls(finished: Results, notes: dict[str, Any]):
    assert len(notes["paper"]) == len(combinations(finished))
    assert notes["controls"] == "none"


@needs_browser
def test_it_prints_to_several_pages(finished: Results, browse: Callable[..., str], tmp_path: Path):
    paper = tmp_path / "report.pdf"
    browse("--no-pdf-header-footer", f"--print-to-pdf={paper}", (finished.folder / "report.html").as_uri())
    content = paper.read_bytes()
    assert content.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", content)) >= 2
    # Eighteen diagrams and five pictures, in curves and text; a page without them has a tenth of it.
    assert len(content) > 50_000
