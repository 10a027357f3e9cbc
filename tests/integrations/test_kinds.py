"""A step of Trainer over micro-batches of unequal counts, against float64 with whole logits, of every kind.

The model is float32, so that its gradient is right to a few units of its last place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

from labelsmooth.integrations.transformers import SmoothedLoss, smooth
from labelsmooth.integrations.transformers._lazy import LazyLogits

from . import models, oracle
from .training import arguments, error, trained

EPS = 0.1


def expected(kind: str, rows: list[dict[str, Tensor]]) -> tuple[float, Tensor]:
    """Loss and gradient. A mixture of experts has no float64."""
    model, batches = models.make(kind).train(), [models.collate([row]) for row in rows]
    if kind not in models.ROUTED:
        model = model.double()
        batches = [{k: v.double() if v.is_floating_point() else v for k, v in b.items()} for b in batches]
    loss = oracle.step(model, kind, batches, EPS)
    loss.backward()
    return loss.item(), oracle.gradient(model)


@pytest.mark.parametrize("kind", models.MADE)
@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_a_step_is_that_of_float64(
    kind: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(logits: LazyLogits) -> Tensor:
        raise AssertionError("logits were made")

    monkeypatch.setattr(LazyLogits, "made", never)
    rows, model = models.samples(kind, 3), models.make(kind)
    args = arguments(tmp_path, gradient_accumulation_steps=3, max_steps=1)
    if way == "smooth":  # which needs no collator that makes the decoder's input
        options: dict[str, Any] = {"collator": models.collate}
        smooth(model, EPS)
    else:
        options = {"compute_loss_func": SmoothedLoss(model, EPS)}
    trainer, (gradient,) = trained(model, rows, args, **options)
    loss, right = expected(kind, rows)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-6)
    assert error(gradient, right) < 1e-6


@pytest.mark.parametrize("kind", sorted(models.CAUSAL | models.SEQ2SEQ | {"bert masked"}))
def test_the_logits_of_a_language_model_are_not_made(kind: str) -> None:
    model, batch = models.make(kind).train(), models.collate(models.samples(kind, 2))
    whole = model(**batch).logits
    lazy = smooth(model, EPS)(**batch).logits
    assert isinstance(lazy, LazyLogits)
    assert lazy.shape == whole.shape
    # But are there for whoever looks.
    torch.testing.assert_close(lazy * torch.ones(()), whole)


@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_an_answer_beyond_the_row_does_not_count(way: str) -> None:
    model, batch = models.make("bert questions").train(), models.collate(models.samples("bert questions", 3))
    batch["end_positions"][1] = 50
    loss = oracle.step(model, "bert questions", [batch], EPS)
    if way == "smooth":
        found = smooth(model, EPS)(**batch).loss
    else:
        smoothed = SmoothedLoss(model, EPS)
        found = smoothed(model(**batch), None)
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_labels_that_are_shifted_already(way: str) -> None:
    """As packing and sequence parallelism hand them on, where rows end within the batch's."""
    model, batch = models.make("llama").train(), models.collate(models.samples("llama", 2))
    shifted = torch.nn.functional.pad(batch.pop("labels"), (0, 1), value=-100)[:, 1:]
    shifted[:, 4] = -100
    z, keep = model(**batch).logits.double(), shifted != -100
    loss = oracle.smoothed(z[keep], shifted[keep], EPS).mean().item()
    if way == "smooth":
        found = smooth(model, EPS)(**batch, shift_labels=shifted).loss
    else:
        smoothed = SmoothedLoss(model, EPS)
        found = smoothed(model(**batch, shift_labels=shifted), None)
    assert found.item() == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_packed_rows_are_those_of_a_padded_batch(way: str, tmp_path: Path) -> None:
    from transformers import DataCollatorWithFlattening

    rows = [{k: v.tolist() for k, v in row.items()} for row in models.samples("llama", 4)]
    model = models.make("llama")
    flat = DataCollatorWithFlattening(return_tensors="pt")

    def collate(samples: list[Any]) -> Any:
        return {
            **flat(samples),
            "use_cache": False,
        }  # without which Transformers lets the rows see each other

    options: dict[str, Any] = {} if way == "smooth" else {"compute_loss_func": SmoothedLoss(model, EPS)}
    if way == "smooth":
        smooth(model, EPS)
    args = arguments(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=1)
    trainer, (gradient,) = trained(model, rows, args, collator=collate, **options)  # pyright: ignore
    tensors = [{k: torch.tensor(v) for k, v in row.items()} for row in rows]
    for row in tensors:  # the first label of a row is not predicted by the one before
        row["labels"][0] = -100
    loss, right = expected("llama", tensors)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-6)
    assert error(gradient, right) < 1e-6


@pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
def test_nothing_counts(way: str, tmp_path: Path) -> None:
    model, rows = models.make("llama"), models.samples("llama", 1)
    rows[0]["labels"][:] = -100
    options: dict[str, Any] = {} if way == "smooth" else {"compute_loss_func": SmoothedLoss(model, EPS)}
    if way == "smooth":
        smooth(model, EPS)
    _, (gradient,) = trained(model, rows, arguments(tmp_path, max_steps=1), **options)
    assert not gradient.any()
