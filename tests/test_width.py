"""The pages can be read on a phone and on a screen without scrolling sideways."""

import json
import re
from pathlib import Path

import pytest

from tests.browser import browse, needs_browser
from tests.test_site import built, needs_sphinx

ROOT = Path(__file__).parent.parent
COLUMNS = 88  # of code that fits the site on a screen of 1400 px
WRITTEN = [
    *(ROOT / "docs").glob("*.md"),
    *(
        page
        for part in ("explanation", "how_to", "reference")
        for page in (ROOT / "docs" / part).glob("*.md")
    ),
]
# Each page in a frame as wide as a phone, one after the other, and how far it scrolls. On a narrow screen
# the theme lets the content scroll in place of the document.
FRAME = """<!doctype html><iframe style="width: 390px; height: 800px; border: 0"></iframe><pre></pre><script>
const [frame, out] = document.querySelectorAll("iframe, pre");
(async () => {
    for (const page of PAGES) {
        await new Promise(loaded => { frame.onload = loaded; frame.src = page; });
        const shown = frame.contentDocument;
        const parts = [shown.documentElement, shown.querySelector(".content")];
        const beyond = Math.max(...parts.map(part => part.scrollWidth - part.clientWidth));
        out.textContent += `${page}: ${beyond} px beyond ${frame.contentWindow.innerWidth}\\n`;
    }
})();
</script>"""


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: page.name)
def test_code_fits_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(.*?)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    code = [line for kind, block in blocks if "{" not in kind for line in block.splitlines()]
    assert [line for line in code if len(line) > COLUMNS] == []


@pytest.mark.slow
@needs_sphinx
@needs_browser
def test_no_page_scrolls_sideways_on_a_phone(tmp_path: Path) -> None:
    """What is too wide, such as a table, scrolls in its box."""
    site = built(tmp_path)
    pages = sorted(page.relative_to(site).as_posix() for page in site.rglob("*.html"))
    frame = site / "frame.html"
    frame.write_text(FRAME.replace("PAGES", json.dumps(pages)), encoding="utf-8")
    options = ("--allow-file-access-from-files", "--virtual-time-budget=600000", "--dump-dom")
    printed = browse(tmp_path / "profile", *options, frame.as_uri())
    lines = re.findall(r"([\w./-]+): (\d+) px beyond 390", printed)
    assert [page for page, _ in lines] == pages
    assert [page for page, beyond in lines if int(beyond) > 0] == []
