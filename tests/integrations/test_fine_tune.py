"""The example that compares plain and smoothed training prints what formulas of their own give in float64."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

EXAMPLE = Path(__file__).parents[2] / "examples" / "fine_tune.py"
ROW = r"^(plain|smoothed) +([\d.]+) +([\d.]+)% +([\d.]+) +([\d.]+) +([\d.]+)$"
STEPS = 3


def test_fine_tune(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--steps", str(STEPS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    found = {arm: list(map(float, figures)) for arm, *figures in re.findall(ROW, done.stdout, re.MULTILINE)}
    example = runpy.run_path(str(EXAMPLE))
    assert list(found) == list(example["ARMS"])
    assert found["plain"] != found["smoothed"]

    text = (EXAMPLE.parents[1] / "LICENSE").read_text(encoding="utf-8")
    rows, validation, test = example["blocks"](text)
    assert (len(rows) + len(validation) + len(test)) * example["LENGTH"] <= len(text)
    for arm, eps in example["ARMS"].items():
        model = example["train"](rows, len(set(text)), eps, STEPS, 0)
        (z, y), (of_validation, labels) = (
            (model(input_ids=part).logits[:, :-1].detach().double().flatten(0, 1), part[:, 1:].flatten())
            for part in (test, validation)
        )
        nll, accuracy, error, temperature, after = found[arm]
        confidence, prediction = z.softmax(-1).max(-1)
        right, bins = (prediction == y).double(), (confidence * 15).ceil()
        gaps = [(confidence - right)[bins == b].sum().abs().item() for b in bins.unique()]
        assert nll == pytest.approx(F.cross_entropy(z, y).item(), abs=2e-4)
        assert accuracy == pytest.approx(100 * right.mean().item(), abs=0.1)
        assert error == pytest.approx(sum(gaps) / len(y), abs=1e-3)
        assert after == pytest.approx(F.cross_entropy(z / temperature, y).item(), abs=2e-3)
        below, best, above = (
            F.cross_entropy(of_validation / (factor * temperature), labels) for factor in (0.98, 1.0, 1.02)
        )
        assert torch.stack([below, above]).min() > best
