"""Examples of training, and the same training written out: whole batches, all logits, float64."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Step = Callable[[nn.Module], Tensor]  # the loss of a model
EXAMPLES = Path(__file__).parents[1] / "examples"


def names_of(example: str) -> dict[str, Any]:
    """What an example defines."""
    return runpy.run_path(str(EXAMPLES / example), run_name="example")


def run(example: str, *args: str, processes: int = 1) -> list[float]:
    """The losses that an example prints, run alone or by torchrun."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(torchrun if processes > 1 else []), str(EXAMPLES / example), *args]
    environment = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr, done.stderr
    lines = [re.match(r"(?:epoch|step) +\d+: loss ([\d.]+)", line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    return [float(line[1]) for line in lines if line]


def smoothed(z: Tensor, y: Tensor, eps: float = 0.1) -> Tensor:
    """The mean over the rows that count."""
    q = z.log_softmax(-1)[y >= 0]
    return -(1 - eps) * q[torch.arange(len(q)), y[y >= 0]].mean() - eps * q.mean()


def steps_of_texts(texts: list[Tensor], collate: Callable[[list[Tensor]], Iterable[Tensor]]) -> list[Step]:
    """The loss by the next token of all texts of a step: eight, two for each of four micro-batches."""

    def step(part: list[Tensor]) -> Step:
        tokens, labels = collate(part)
        return lambda model: smoothed(model(tokens)[:, :-1], labels[:, 1:])

    counts = [sum(len(text) - 1 for text in texts[i : i + 2]) for i in range(0, len(texts), 2)]
    assert len(set(counts[:4])) == 4  # a mean of the micro-batches' means would be another loss
    return [step(texts[i : i + 8]) for i in range(0, len(texts), 8)]


def check_training(
    model: nn.Module,
    losses: Sequence[Step],
    rate: float,
    path: Path,
    printed: list[float],
) -> None:
    """Whether the saved parameters, and the losses on the way, are those of descent in float64."""
    model.double()
    parameters = dict(model.named_parameters())
    before = {name: p.detach().clone() for name, p in parameters.items()}
    values: list[float] = []
    for loss in losses:
        value = loss(model)
        values.append(value.item())
        gradients = torch.autograd.grad(value, list(parameters.values()))
        with torch.no_grad():
            for p, gradient in zip(parameters.values(), gradients, strict=True):
                p -= rate * gradient
    every = len(values) // len(printed)
    torch.testing.assert_close(printed, values[every - 1 :: every], rtol=0, atol=6e-5)  # 4 digits are printed

    found = torch.load(path, weights_only=True)
    assert found.keys() == parameters.keys()
    moved = torch.cat([(found[name].double() - before[name]).flatten() for name in parameters])
    expected = torch.cat([(p.detach() - before[name]).flatten() for name, p in parameters.items()])
    error = torch.linalg.vector_norm(moved - expected) / torch.linalg.vector_norm(expected)
    # Rounding alone is 1.5e-6, in one process and on whole batches too; a wrong divisor is more than 1e-3.
    assert error < 1e-5, f"what training changed is off by {error:.1e}"
