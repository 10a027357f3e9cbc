"""The site of the documentation builds without a warning, needs no network, and has each public name."""

import ast
import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NEEDED = (
    "sphinx",
    "furo",
    "myst_parser",
    "sphinx_copybutton",
    "sphinx_gallery",
    "sphinx-mathjax-offline",
    "sklearn",
)
missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needs_sphinx = pytest.mark.skipif(bool(missing), reason=f"needs labelsmooth[docs]: {', '.join(missing)}")
MODULES = ("", ".functional", ".priors", ".schedules", ".formulas", ".engines", ".calibration", ".study")
SCRIPTS = sorted(path for part in ("gallery", "tutorial") for path in (DOCS / part).glob("*.py"))
TYPES = {"Distance", "Shape", "Tree"}  # of arguments, explained on the page of all names


def listed() -> list[str]:
    """The names on the page of all names, each with its module."""
    names, module = [], ""
    for line in (DOCS / "reference" / "api.md").read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"\.\. (?:auto|current)module:: (\S+)", line):
            module = found[1]
        elif found := re.fullmatch(r"   (\w+)", line):
            names.append(f"{module}.{found[1]}")
    return names


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_a_page(module: str):
    if module in (".calibration", ".study"):
        pytest.importorskip("sklearn", reason="needs labelsmooth[study]")
    offered = importlib.import_module(f"labelsmooth{module}")
    names = {name for name in offered.__all__ if not isinstance(getattr(offered, name), ModuleType)}
    on_pages = [name.rpartition(".") for name in listed()]
    here = {name for place, _, name in on_pages if place == f"labelsmooth{module}"}
    if module == ".schedules":
        here |= {"by_class"}  # which is labelsmooth.by_class
    assert names - TYPES == here - {"load_criterion"}


def test_each_name_is_listed_once():
    assert len(listed()) == len(set(listed())) > 80


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_asserts_what_it_says(script: Path):
    """The build runs it, and ends if an assertion fails."""
    assert any(
        isinstance(node, ast.Assert) for node in ast.walk(ast.parse(script.read_text(encoding="utf-8")))
    )


def built(place: Path) -> Path:
    """The site, built from a copy, so that nothing is written into the sources."""
    for part in ("docs", "examples"):
        shutil.copytree(ROOT / part, place / part, ignore=shutil.ignore_patterns("generated", "__pycache__"))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", "site"]
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, timeout=550
    )  # it runs the scripts
    assert done.returncode == 0, done.stderr
    return place / "site"


class Links(HTMLParser):
    """What a page loads, where it links to, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        if "id" in given:
            self.places.add(given["id"])
        if "src" in given:
            self.loaded.append(given["src"])
        if "href" in given:
            (self.loaded if tag == "link" else self.links).append(given["href"])


@pytest.mark.slow
@needs_sphinx
def test_the_site(tmp_path: Path):
    """In one test, as the build takes most of the time."""
    site = built(tmp_path)
    check_links(site)
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path
    assert (site / "_static" / "tex-svg.js").stat().st_size > 1e6
    theory = (site / "explanation" / "theory.html").read_text(encoding="utf-8")
    assert re.search(r'<script[^>]* src="\.\./_static/tex-svg\.js', theory)
    assert "mixup" in (site / "searchindex.js").read_text(encoding="utf-8")
    check_scripts(site)
    for name in listed():
        page = site / "reference" / "generated" / f"{name}.html"
        assert f'id="{name}"' in page.read_text(encoding="utf-8")


def check_scripts(site: Path) -> None:
    """Each script is a page with its picture; links to a script lead there."""
    assert len(SCRIPTS) == 8
    for script in SCRIPTS:
        page = site / script.parent.name / "generated" / f"{script.stem}.html"
        shown = Links(page.read_text(encoding="utf-8")).loaded
        assert any(re.search(rf"/sphx_glr_{script.stem}_001\.png$", url) for url in shown), page
    assert "tutorial/generated/first_model.html" in Links((site / "index.html").read_text()).links


def check_links(site: Path) -> None:
    """Pages load nothing from elsewhere, and what they link to on the site is there."""
    pages = {path: Links(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 100
    for path, page in pages.items():
        assert not [url for url in page.loaded if re.match(r"(https?:)?//", url)], path
        for url in (*page.links, *page.loaded):
            if re.match(r"https?:|mailto:|data:", url):
                continue
            name, _, place = url.partition("#")
            target = (path.parent / unquote(name.partition("?")[0])).resolve() if name else path
            assert target.exists(), f"{path}: {url}"
            if place and target.suffix == ".html":
                assert unquote(place) in pages[target].places, f"{path}: {url}"
