"""Memory and time of a training step of a language model in Trainer: python -m benchmarks.trainer

Llama-like, 128,256 classes, two rows of 512 tokens, float32. The peak is what a step needs beyond weights and
gradients, of the process (Linux); each way has a process of its own, and all run in turn.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import torch
import transformers

from labelsmooth.integrations.transformers import SmoothedLoss, smooth

WAYS: Final = ("the model's own loss", "label_smoothing_factor", "SmoothedLoss", "smooth")
ROUNDS, STEPS = 2, 3
MIB = 1 << 20


class Timed(transformers.Trainer):
    """Measures its steps; the gradients of the first stay."""

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        Path("/proc/self/clear_refs").write_text("5")  # begins a new peak
        before, start = _status("VmRSS"), time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        self.model.zero_grad = _keep  # pyright: ignore[reportOptionalMemberAccess]
        self.measured.append((_status("VmHWM") - before, time.perf_counter() - start, loss.item()))
        return loss

    measured: list[tuple[float, float, float]]


def _keep(set_to_none: bool = True) -> None:
    """Gradients that were there before do not count."""


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / MIB


def measured(way: str) -> tuple[float, float, float]:
    """Peak in MiB, the best time in seconds and the loss."""
    hf: Any = transformers
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=128256, hidden_size=256, intermediate_size=688, num_hidden_layers=2, num_attention_heads=4
    )
    model = hf.LlamaForCausalLM(config)
    tokens = torch.randint(128256, (2 * (STEPS + 1), 512))
    rows: Any = [{"input_ids": row, "labels": row} for row in tokens]
    options: dict[str, Any] = {}
    if way == "SmoothedLoss":
        options["compute_loss_func"] = SmoothedLoss(model, 0.1)
    elif way == "smooth":
        smooth(model, 0.1)
    with tempfile.TemporaryDirectory() as folder:
        args = transformers.TrainingArguments(
            folder, report_to=[], disable_tqdm=True, use_cpu=True, per_device_train_batch_size=2,
            max_grad_norm=0.0, max_steps=STEPS + 1, learning_rate=0.0, save_strategy="no",
            logging_strategy="no", optim="sgd",
            label_smoothing_factor=0.1 if way == "label_smoothing_factor" else 0.0,
        )  # fmt: skip
        trainer = Timed(model, args, train_dataset=rows, **options)
        trainer.measured = []
        trainer.train()
    later = trainer.measured[1:]  # without the step that makes the gradients
    return max(peak for peak, _, _ in later), min(seconds for _, seconds, _ in later), later[-1][2]


def main() -> None:
    if len(sys.argv) > 1:
        print("measured", *measured(sys.argv[1]))
        return
    found: dict[str, list[tuple[float, ...]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in WAYS:
            run = [sys.executable, "-m", "benchmarks.trainer", way]
            out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
            line = next(line for line in out.splitlines() if line.startswith("measured"))
            found[way].append(tuple(map(float, line.split()[1:])))
    for way, runs in found.items():
        peaks, times, losses = zip(*runs, strict=True)
        print(f"{way:24} {min(peaks):8.0f} MiB {min(times):8.2f} s   loss {losses[0]:.5f}")


if __name__ == "__main__":
    main()
