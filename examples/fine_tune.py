"""Train a small Llama on a text with transformers' Trainer, plainly and with smoothed labels, and compare.

The model has about a million parameters and predicts characters. Its figures are of the last tenth of the
text, in nats, and the temperature is fitted on the tenth before. Run it with

    python examples/fine_tune.py [TEXT] [--steps 300]
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PrinterCallback, Trainer, TrainingArguments
from transformers.utils import logging

from labelsmooth.calibration import accuracy, expected_calibration_error, fit_temperature
from labelsmooth.functional import cross_entropy
from labelsmooth.integrations.transformers import smooth

LENGTH = 64
SIZES: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4}
ARMS = {"plain": 0.0, "smoothed": 0.1}


def blocks(text: str) -> tuple[Tensor, ...]:
    """Training, validation and test blocks of the text, (N, LENGTH), each character a class."""
    vocabulary = {character: i for i, character in enumerate(sorted(set(text)))}
    rows = torch.tensor([vocabulary[character] for character in text])
    rows = rows[: len(rows) // LENGTH * LENGTH].view(-1, LENGTH)
    tenth = max(1, len(rows) // 10)
    return rows.split([len(rows) - 2 * tenth, tenth, tenth])


def train(rows: Tensor, classes: int, eps: float, steps: int, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=classes, intermediate_size=384, **SIZES))
    if eps:
        smooth(model, eps)
    quiet = {"report_to": "none", "disable_tqdm": True, "logging_strategy": "no", "save_strategy": "no"}
    with tempfile.TemporaryDirectory() as folder:
        schedule = {"learning_rate": 2e-3, "warmup_steps": 20, "lr_scheduler_type": "cosine"}
        sizes = {"max_steps": steps, "per_device_train_batch_size": 16, "seed": seed}
        args = TrainingArguments(folder, use_cpu=True, **sizes, **schedule, **quiet)
        examples: Any = [{"input_ids": row, "labels": row} for row in rows]
        trainer = Trainer(model, args, train_dataset=examples)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.eval()


@torch.no_grad()
def predict(model: LlamaForCausalLM, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of each character after the first of a block, and the character."""
    logits = torch.cat([model(input_ids=some).logits[:, :-1] for some in rows.split(64)])
    return logits.flatten(0, 1), rows[:, 1:].flatten()


def main(text: str, steps: int, seed: int) -> None:
    logging.set_verbosity_error()
    rows, validation, test = blocks(text)
    print(
        f"{len(rows) * LENGTH:,} characters to train on, {test.numel():,} to test, {steps} steps, seed {seed}"
    )
    print(f"{'labels':<9} {'NLL':>6} {'accuracy':>9} {'ECE':>7} {'temperature':>12} {'NLL after it':>13}")
    for arm, eps in ARMS.items():
        model = train(rows, len(set(text)), eps, steps, seed)
        temperature = fit_temperature(*predict(model, validation))
        logits, labels = predict(model, test)
        nll, after = cross_entropy(logits, labels), cross_entropy(logits / temperature, labels)
        correct, error = accuracy(logits, labels), expected_calibration_error(logits, labels)
        print(f"{arm:<9} {nll:6.4f} {correct:9.2%} {error:7.4f} {temperature:12.3f} {after:13.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("text", nargs="?", type=Path, default=Path(__file__).parents[1] / "LICENSE")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    main(args.text.read_text(encoding="utf-8"), args.steps, args.seed)
