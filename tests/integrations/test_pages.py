"""The code of the pages on frameworks runs as it stands there."""

import re
from pathlib import Path
from typing import Any

import pytest

PAGES = Path(__file__).parents[2] / "docs" / "how_to"


def run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(folder)
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, page, "exec"), names)
    return names


def test_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
    pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")
    names = run("transformers", tmp_path, monkeypatch)
    assert names["first"]["label_smoothing"] == pytest.approx(0.2)
    assert names["callbacks"][0].strength() == 0


@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_trl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("transformers", "trl", "datasets", "pyarrow", "tokenizers"):
        pytest.importorskip(name, reason="needs labelsmooth[trl]")
    names = run("trl", tmp_path, monkeypatch)
    assert names["trainer"].state.global_step == 1


@pytest.mark.filterwarnings("ignore")  # Lightning's own, of workers and accelerators
def test_lightning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lightning", reason="needs labelsmooth[lightning]")
    names = run("lightning", tmp_path, monkeypatch)
    assert names["criterion"].label_smoothing.eps == 0
