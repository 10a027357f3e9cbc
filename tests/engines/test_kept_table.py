"""The page on engines names tests that exist for each way in which kept memory could leak or alias."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "explanation" / "engines.md"


def test_each_line_of_the_table_names_tests_that_exist() -> None:
    section = (
        PAGE.read_text(encoding="utf-8").partition("### Who may hold a gradient")[2].partition("\n## ")[0]
    )
    lines = [line for line in section.splitlines() if line.startswith("| ")][1:]  # without the head
    named = [re.findall(r"`(test_\w+)`", line.split("|")[3]) for line in lines]
    files = sorted(HERE.glob("test_kept*.py"))
    there = {
        test for file in files for test in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert lines
    assert all(named), "a line names no test"
    assert {test for tests in named for test in tests} <= there
