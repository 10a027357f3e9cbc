"""The examples run and print what they promise, and the code on the pages runs as it stands there."""

import importlib.util
import math
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from labelsmooth import study
from labelsmooth.calibration import accuracy
from labelsmooth.functional import cross_entropy
from labelsmooth.study.analysis.verdict import recommended
from labelsmooth.study.trials.files import load

ROOT = Path(__file__).parent.parent
needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="the digits come with scikit-learn"
)


def run_example(name: str, folder: Path, *args: str) -> str:
    """What ``examples/name`` prints, run in an empty folder."""
    command = [sys.executable, ROOT / "examples" / name, *args]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    for line in done.stderr.splitlines():  # what a study says of its progress
        assert re.match(r"\d+ of 20 runs done, your data |all 20 runs are done", line), done.stderr
    return done.stdout


def python_blocks(page: Path) -> list[str]:
    """The page's python blocks, each moved down to the line it has there, as a traceback shows it.
    A page that is a script is one block."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        return [text]
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, block.start(1)) + block[1] for block in blocks]


def check_train(printed: str):
    line = r"epoch +(\d+): test accuracy ([\d.]+)%, mean confidence ([\d.]+)%"
    rows = [tuple(map(float, match.groups())) for match in re.finditer(line, printed)]
    assert len(rows) == len(printed.splitlines())
    assert [epoch for epoch, _, _ in rows] == [5, 10, 15, 20]
    _, accuracy, confidence = rows[-1]
    assert accuracy > 95
    # With certain labels, a perfect fit of the smoothed targets is 1 - 0.1 + 0.1 / 10 sure.
    assert 70 < confidence < 91


def check_own_data(printed: str):
    (line,) = printed.splitlines()
    assert line.startswith(
        ("your data: Use eps = ", "your data: Keep hard targets and divide the logits by ")
    )


# The examples that need nothing from an earlier run, and what they print.
EXAMPLES = {"train.py": check_train, "own_data.py": check_own_data}


@pytest.mark.slow
@needs_digits
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str, tmp_path: Path):
    EXAMPLES[name](run_example(name, tmp_path))


@pytest.mark.slow
@needs_digits
def test_a_program_of_ones_own_trains_for_a_study():
    program = shlex.join([sys.executable, str(ROOT / "examples" / "any_trainer.py")])
    command = f"{program} --loss {{criterion}} --seed {{seed}} --out {{out}} --epochs 3"
    criterion = study.Criterion(torch.nn.CrossEntropyLoss(), "ls:eps=0.1")
    result = study.CommandFit(command=command)(criterion, 0)
    evaluation = study.evaluate(result)
    assert (evaluation.test_rows, evaluation.validation_rows, criterion.epochs) == (700, 500, 3)
    assert evaluation.accuracy.mean > 0.8


@pytest.mark.slow
@needs_digits
def test_a_recommended_model_is_loaded_back(tmp_path: Path):
    fit = study.DigitsFit(rows=200, epochs=10, hidden=16)
    results = study.run({"a few rows": fit}, eps=[0.1], seeds=3, output=tmp_path, progress=False)
    arm = recommended(results.settings[0])
    line = run_example("load_model.py", tmp_path, str(tmp_path))
    found = re.fullmatch(r"a few rows: (\S+), T [\d.]+, test accuracy ([\d.]+)%, mean confidence .*\n", line)
    assert found is not None
    assert found[1] == arm.name
    (path,) = tmp_path.glob(f"trials/*/{arm.name.replace(':', '-')}-seed{arm.best_seed}.safetensors")
    assert float(found[2]) == pytest.approx(accuracy(*load(path).test) * 100, abs=0.06)


DOCS = ROOT / "docs"
# Their code needs a framework; tests/integrations runs it.
OF_FRAMEWORKS = {"how_to/transformers.md", "how_to/trl.md", "how_to/lightning.md"}
TESTED_BELOW = {"how_to/your_data.md"}
PAGES = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if "```python" in page.read_text()}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=needs_digits if page == "explanation/theory.md" else ())
        for page in sorted({"../README.md", *PAGES} - OF_FRAMEWORKS - TESTED_BELOW)
    ],
)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run_page(page)


def test_the_code_of_the_pages_is_found():
    assert {"index.md", "faq.md", "how_to/mixup.md", *OF_FRAMEWORKS, *TESTED_BELOW} <= PAGES


@pytest.mark.parametrize(
    "page", sorted(page.name for page in DOCS.glob("how_to/*.md") if "\n## Check\n" in page.read_text())
)
def test_the_check_of_a_page_can_fail(page: str):
    _, check = (DOCS / "how_to" / page).read_text(encoding="utf-8").split("\n## Check\n")
    assert re.search(r"^(assert |torch\.testing\.assert_close\()", check, re.MULTILINE)


@pytest.mark.slow
@needs_digits
def test_the_tutorial_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    plt = pytest.importorskip("matplotlib.pyplot", reason="needs labelsmooth[study]")
    plt.switch_backend("agg")
    monkeypatch.setattr(plt, "show", lambda: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = run_page("tutorial/first_model.py")
    plt.close("all")
    (nll, ece), (scaled_nll, scaled_ece) = names["before_smoothed"], names["after_smoothed"]
    assert (nll, ece, scaled_nll, scaled_ece) == pytest.approx((0.322, 0.146, 0.195, 0.017), abs=0.02)
    assert nll > names["before_hard"][0]
    assert scaled_nll < names["after_hard"][0]
    difference = names["results"].settings[0].arms[1].differences["nll_scaled"]
    assert difference.low < 0 < difference.high
    assert {path.name for path in names["folder"].iterdir()} == {"digits.csv", "model.pt", "study"}


@pytest.mark.slow
@needs_digits
def test_page_of_saved_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    difference = run_page("how_to/your_data.md")["difference"]
    assert difference.low < 0.05 < difference.high
    assert {path.name for path in tmp_path.iterdir()} == {"hard.npz", "smoothed.npz", "labelsmooth-study"}


def run_page(page: str) -> dict[str, Any]:
    """The code of a page, carried out; what it has named is returned."""
    path = DOCS / page
    blocks = python_blocks(path)
    assert len(blocks) == max(1, path.read_text(encoding="utf-8").count("```python"))
    namespace: dict[str, Any] = {"__name__": path.stem}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for block in blocks:
            exec(compile(block, path, "exec"), namespace)
    return namespace


def test_the_method_of_the_page_is_what_it_says():
    """Of its own, in float64: the sum over a loop, and gradients by differences."""
    poly = run_page("how_to/extending.md")["Poly1"]()
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(7, 4, dtype=torch.float64, generator=generator) * 3
    y = torch.randint(4, (7,), generator=generator)
    y[3] = -100
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    for eps in (-1.0, 0.0, 0.3, 5.0):
        total = 0.0
        for row, label in zip(z.tolist(), y.tolist(), strict=True):
            if label >= 0:
                q = math.exp(row[label]) / sum(map(math.exp, row))
                total += weight[label].item() * (-math.log(q) + eps * (1 - q))
        options = {"label_smoothing": eps, "formula": poly, "reduction": "sum"}
        loss = cross_entropy(z, y, weight, **options)
        torch.testing.assert_close(loss.item(), total, rtol=1e-12, atol=1e-12)
        short = cross_entropy(z.float(), y, weight, **options)
        torch.testing.assert_close(short.item(), total, rtol=1e-5, atol=1e-5)
        leaf = z.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda z, o=options: cross_entropy(z, y, weight, **o), leaf)
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[-1, inf\), got -1\.5"):
        cross_entropy(z, y, label_smoothing=-1.5, formula=poly)
