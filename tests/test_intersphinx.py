"""The switch for links into the documentation of others, with inventories of theirs that are made here."""

import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from tests.test_site import DOCS, needs_sphinx


def built(place: Path, switch: str) -> str:
    """A page that names one class of each project of the mapping, built with the project's settings."""
    for part in ("_static", "_templates"):
        shutil.copytree(DOCS / part, place / part)
    conf = (DOCS / "conf.py").read_text(encoding="utf-8")
    local, number = re.subn(r'"(\w+)": \("(https://[^"]+)", None\)', r'"\1": ("\2", "\1.inv")', conf)
    assert number == 5
    local = local.replace('    "sphinx_gallery.gen_gallery",\n', "")  # whose scripts are not copied
    (place / "conf.py").write_text(local, encoding="utf-8")
    names = re.findall(r'"(\w+)\.inv"', local)
    head = (
        "# Sphinx inventory version 2\n# Project: it\n# Version: 1\n"
        "# The remainder of this file is compressed using zlib.\n"
    )
    for name in names:
        entry = zlib.compress(f"{name}.Thing py:class 1 page.html#$ -\n".encode())
        (place / f"{name}.inv").write_bytes(head.encode() + entry)
    (place / "index.md").write_text("# It\n\n" + " ".join(f"{{py:class}}`{name}.Thing`" for name in names))
    command = [sys.executable, "-m", "sphinx", "-q", str(place), str(place / "site")]
    done = subprocess.run(
        command, env=os.environ | {"LABELSMOOTH_INTERSPHINX": switch}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (place / "site" / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
@needs_sphinx
def test_a_name_of_another_project_is_a_link(tmp_path: Path) -> None:
    page = built(tmp_path, "1")
    for url in (
        "https://docs.python.org/3/page.html#python.Thing",
        "https://docs.pytorch.org/docs/stable/page.html#torch.Thing",
        "https://huggingface.co/docs/transformers/main/en/page.html#transformers.Thing",
        "https://scikit-learn.org/stable/page.html#sklearn.Thing",
        "https://optuna.readthedocs.io/en/stable/page.html#optuna.Thing",
    ):
        assert f'href="{url}"' in page


@pytest.mark.slow
@needs_sphinx
def test_without_the_switch_it_is_none(tmp_path: Path) -> None:
    page = built(tmp_path, "0")
    assert "torch.Thing" in page
    assert "page.html" not in page
