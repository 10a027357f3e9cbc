"""The examples run and print what they promise, and the code on the pages runs as it stands there."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="the digits come with scikit-learn"
)


def run_example(name: str, folder: Path) -> str:
    """What ``examples/name`` prints, run in an empty folder."""
    command = [sys.executable, ROOT / "examples" / name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def python_blocks(page: Path) -> list[str]:
    """The page's python blocks, each moved down to the line it has there, as a traceback shows it."""
    text = page.read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in blocks]


@pytest.fixture
def one_thread():
    """Networks this small lose more to a second thread than they gain, on a busy machine a lot."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_train(printed: str):
    line = r"epoch +(\d+): test accuracy ([\d.]+)%, mean confidence ([\d.]+)%"
    rows = [tuple(map(float, match.groups())) for match in re.finditer(line, printed)]
    assert len(rows) == len(printed.splitlines())
    assert [epoch for epoch, _, _ in rows] == [5, 10, 15, 20]
    _, accuracy, confidence = rows[-1]
    assert accuracy > 95
    # With certain labels, a perfect fit of the smoothed targets is 1 - 0.1 + 0.1 / 10 sure.
    assert 70 < confidence < 91


# The examples that need nothing from an earlier run, and what they print.
EXAMPLES = {"train.py": check_train}


@needs_digits
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path):
    EXAMPLES[name](run_example(name, tmp_path))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", [pytest.param("theory.md", marks=needs_digits), "semantics.md"])
def test_page(page: str):
    path = ROOT / "docs" / page
    blocks = python_blocks(path)
    assert len(blocks) == path.read_text(encoding="utf-8").count("```python") > 0
    namespace = {"__name__": path.stem}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, path, "exec"), namespace)
