"""A step of Trainer, and what it leaves."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments

from . import models
from .oracle import gradient


class Caught(TrainerCallback):
    """The gradient of each step, before it is used up."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.gradients.append(gradient(model))


def arguments(folder: Path, **options: Any) -> Any:
    quiet = {"report_to": [], "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    steady = {"use_cpu": True, "seed": 0, "train_sampling_strategy": "sequential", "max_grad_norm": 0.0}
    sizes = {"per_device_train_batch_size": 1, "learning_rate": 0.0, "lr_scheduler_type": "constant"}
    return TrainingArguments(
        str(folder), **{**quiet, **steady, **sizes, "dataloader_pin_memory": False, **options}
    )


def trained(
    model: Any,
    rows: Sequence[dict[str, Tensor]],
    args: Any,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    collator: Callable[..., Any] | None = None,
    kind: type[Trainer] = Trainer,
    **options: Any,
) -> tuple[Trainer, list[Tensor]]:
    """A Trainer that has trained, and the gradients of its steps."""
    caught = Caught()
    trainer = kind(
        model,
        args,
        train_dataset=rows,  # pyright: ignore[reportArgumentType]
        data_collator=collator or models.collator(model),
        callbacks=[caught, *callbacks],
        **options,
    )
    trainer.train()
    return trainer, caught.gradients


def error(found: Tensor, expected: Tensor) -> float:
    """Relative, of a whole gradient."""
    return float(torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected))
