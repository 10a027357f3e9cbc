"""The examples of training loops end where descent in float64, on whole batches and all logits, does."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

import labelsmooth

from .descent import EXAMPLES, check_training, names_of, run, smoothed, steps_of_texts

needs_gloo = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available()), reason="this torch has no gloo"
)


def test_torchtune_style(tmp_path: Path) -> None:
    """The output head is in the loss, and a step has four micro-batches of different numbers of tokens."""
    printed = run("torchtune_style.py", str(tmp_path / "model.pt"))
    example = names_of("torchtune_style.py")
    torch.manual_seed(0)
    steps = steps_of_texts(example["paragraphs"](), lambda texts: example["collate"](texts).values())
    check_training(example["Model"](), steps * 5, 1.0, tmp_path / "model.pt", printed)


class AllLogits(nn.Module):
    """A head and its loss written out, with the parameters of labelsmooth's."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, hidden: Tensor, target: Tensor, denominator: Any) -> Tensor:
        return smoothed(self.linear(hidden), target)


@needs_gloo
def test_fsdp2(tmp_path: Path) -> None:
    """Two processes, whose rows have different numbers of tokens."""
    printed = run("fsdp2.py", str(tmp_path / "model.pt"), processes=2)
    example = names_of("fsdp2.py")
    torch.manual_seed(0)
    model = example["Model"]()
    model.loss = AllLogits(model.loss.linear)
    tokens, labels = example["rows"]()
    assert (labels[::2] >= 0).sum() != (labels[1::2] >= 0).sum()
    check_training(model, [lambda m: m(tokens, labels, None)] * 20, 0.2, tmp_path / "model.pt", printed)


@needs_gloo
def test_tensor_parallel(tmp_path: Path) -> None:
    printed = run("tensor_parallel.py", str(tmp_path / "model.pt"), processes=2)
    example = names_of("tensor_parallel.py")
    torch.manual_seed(0)
    context, label = example["rows"]()

    def loss(model: Any) -> Tensor:
        return smoothed(model.head(model(context)), label)

    check_training(example["Model"](), [loss] * 20, 0.5, tmp_path / "model.pt", printed)


def test_timm_style() -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    command = [sys.executable, "-W", "error", str(EXAMPLES / "timm_style.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    line = r"epoch +(\d+): validation loss ([\d.]+), accuracy ([\d.]+)%\n"
    rows = [tuple(map(float, found)) for found in re.findall(line, done.stdout)]
    assert [epoch for epoch, _, _ in rows] == [5, 10, 15]
    assert len(rows) == len(done.stdout.splitlines())
    _, loss, accuracy = rows[-1]
    assert accuracy > 95
    # The smoothed loss is never below the entropy of its targets, 0.5; this is the plain one.
    assert loss < 0.4


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_shares_of_mixed_images(name: str) -> None:
    """The share of a label is that of its image, and the loss is that of timm's class probabilities."""
    mix = names_of("timm_style.py")[name]
    labels = torch.arange(6)
    images = labels.float().reshape(-1, 1, 1, 1).expand(-1, 1, 8, 12)
    z = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares: set[float] = set()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(100):
            found, lam = mix(images)
            assert 0 <= lam <= 1
            torch.testing.assert_close(found.mean((1, 2, 3)), lam * labels + (1 - lam) * labels.flip(0))
            shares.add(lam)
            one, other = (
                torch.full((6, 6), 0.1 / 6).double().scatter(1, y[:, None], 1 - 0.1 + 0.1 / 6)
                for y in (labels, labels.flip(0))
            )
            soft_target = -((lam * one + (1 - lam) * other) * z.log_softmax(-1)).sum(-1).mean()
            pairs = labelsmooth.mixed(labels, labels.flip(0), lam)
            loss = labelsmooth.CrossEntropyLoss(label_smoothing=0.1)(z, pairs)
            torch.testing.assert_close(loss, soft_target)
    assert len(shares) > 20
    assert min(shares) < 0.2
    assert max(shares) > 0.8
