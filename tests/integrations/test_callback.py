"""Over time: what moves, what is logged, what is kept and resumed; and what evaluation reports."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

hf = pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

import labelsmooth as ls
from labelsmooth import schedules
from labelsmooth.integrations.transformers import SmoothedLoss, SmoothingCallback, smooth

from . import models
from .training import arguments, trained

WAYS = pytest.mark.parametrize("way", ["SmoothedLoss", "smooth"])
ROWS = 4


def falling() -> schedules.Schedule:
    """From 0.5 to 0.1 in four epochs."""
    return schedules.linear(0.5, 0.1, steps=4)


def train(
    folder: Path,
    criterion: Any,
    way: str = "SmoothedLoss",
    each: Any = "epoch",
    resume: Any = None,
    **options: Any,
) -> tuple[Any, SmoothingCallback]:
    model = models.make("llama")
    smoothed = smooth(model, criterion) if way == "smooth" else SmoothedLoss(model, criterion)
    callback = SmoothingCallback(smoothed, each)
    args = arguments(folder, per_device_train_batch_size=2, **options)
    trainer = hf.Trainer(
        model, args, train_dataset=models.samples("llama", ROWS), data_collator=models.collate,
        eval_dataset=models.samples("llama", 3, seed=7), callbacks=[callback],
        compute_loss_func=smoothed if way == "SmoothedLoss" else None,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer, callback


def logged(trainer: Any, key: str) -> list[float]:
    return [entry[key] for entry in trainer.state.log_history if key in entry]


@WAYS
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_what_is_logged_is_what_was_trained_with(way: str, strategy: str, tmp_path: Path) -> None:
    trainer, callback = train(tmp_path, falling(), way, num_train_epochs=3, logging_strategy=strategy)
    each = 2 if strategy == "steps" else 1  # entries an epoch
    assert logged(trainer, "label_smoothing") == pytest.approx(
        [e for e in (0.5, 0.4, 0.3) for _ in range(each)]
    )
    assert callback.strength() == pytest.approx(0.2)
    # The model does not change, so that every epoch has the NLL of all rows.
    model, batch = models.make("llama"), models.collate(models.samples("llama", ROWS))
    z, y = model(**batch).logits[:, :-1].double(), batch["labels"][:, 1:]
    losses = nn.functional.cross_entropy(z[y != -100], y[y != -100], reduction="none")
    found = logged(trainer, "nll")
    if strategy == "epoch":
        assert found == pytest.approx([losses.mean().item()] * 3, rel=1e-5)
    else:
        rows = [(y[:2] != -100).sum().item(), (y[2:] != -100).sum().item()]
        parts = [part.mean().item() for part in losses.split(rows)]
        assert found == pytest.approx(parts * 3, rel=1e-5)


def test_moved_by_the_step(tmp_path: Path) -> None:
    trainer, _ = train(tmp_path, falling(), each="step", max_steps=3)
    assert logged(trainer, "label_smoothing") == pytest.approx([0.5, 0.4, 0.3])


def test_other_callbacks_see_it(tmp_path: Path) -> None:
    seen: list[dict[str, float]] = []

    class Board(hf.TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            seen.append(dict(logs))

    model = models.make("llama")
    smoothed = SmoothedLoss(model)
    callbacks = [Board(), SmoothingCallback(smoothed)]
    rows, args = models.samples("llama", 2), arguments(tmp_path, max_steps=1)
    trained(model, rows, args, callbacks=callbacks, compute_loss_func=smoothed)
    assert {"nll", "label_smoothing"} <= seen[0].keys()


@WAYS
@pytest.mark.parametrize(
    ("strategy", "options"),
    [("epoch", {}), ("steps", {"save_steps": 2}), ("steps", {"save_steps": 3})],
    ids=["after an epoch", "with its last step", "within it"],
)
def test_resumed(way: str, strategy: str, options: dict[str, Any], tmp_path: Path) -> None:
    """Two steps an epoch: the strength of each step is what it would have been."""
    whole, _ = train(tmp_path / "whole", falling(), way, num_train_epochs=4)
    first, _ = train(tmp_path / "part", falling(), way, max_steps=4, save_strategy=strategy, **options)
    checkpoint = str(sorted((tmp_path / "part").glob("checkpoint-*"))[-1])
    # The folder that is resumed from need not be that which is written to.
    then, _ = train(tmp_path / "then", falling(), way, resume=checkpoint, num_train_epochs=4)
    step = int(checkpoint.rpartition("-")[2])
    right = logged(whole, "label_smoothing")
    assert logged(first, "label_smoothing") == right[:4]
    assert logged(then, "label_smoothing")[step:] == right[step:]


def test_online_smoothing_learns_and_resumes(tmp_path: Path) -> None:
    def online() -> ls.OnlineLabelSmoothing:
        return ls.OnlineLabelSmoothing(models.V)

    # Trained until something is right, of which the prior then is.
    options: dict[str, Any] = {"learning_rate": 3e-3, "save_strategy": "steps", "save_steps": 15}
    first, callback = train(tmp_path, online(), num_train_epochs=10, **options)
    criterion: Any = callback.criterion
    prior = criterion.prior.probabilities
    assert not torch.allclose(prior, torch.full_like(prior, 1 / models.V))
    assert len(logged(first, "nll")) == 20
    _, again = train(tmp_path, online(), resume=True, num_train_epochs=10, **options)
    for name, value in callback.criterion.state_dict().items():
        torch.testing.assert_close(again.criterion.state_dict()[name], value)


def test_a_checkpoint_without_a_state(tmp_path: Path) -> None:
    train(tmp_path, falling(), max_steps=2, save_strategy="epoch")
    (state,) = tmp_path.glob("*/label_smoothing_0.pt")
    state.unlink()
    with pytest.raises(ValueError, match=r"checkpoint-2 has no label_smoothing_0.pt, .* would start again"):
        train(tmp_path, falling(), max_steps=4, resume=True)
    train(tmp_path, 0.1, max_steps=4, resume=True)  # a constant has none to miss


@WAYS
@pytest.mark.parametrize("kind", ["llama", "t5", "bert token", "bert several", "mixtral"])
@pytest.mark.parametrize("smoothed", [False, True], ids=["plain", "smoothed"])
def test_evaluation_reports_the_plain_loss(kind: str, way: str, smoothed: bool, tmp_path: Path) -> None:
    """That of the model itself; unless it is asked otherwise."""
    from . import oracle

    model, rows = models.make(kind), models.samples(kind, 3)
    batch = models.collate(rows)
    eps = 0.2 if smoothed else 0.0
    expected = oracle.step(models.make(kind).eval(), kind, [batch], eps).item()
    loss: Any = None
    if way == "smooth":
        smooth(model, 0.2, smooth_evaluation=smoothed)
    else:
        loss = SmoothedLoss(model, 0.2, smooth_evaluation=smoothed)
    args = arguments(tmp_path, per_device_eval_batch_size=3)
    trainer = hf.Trainer(model, args, data_collator=models.collator(model), compute_loss_func=loss)
    found = trainer.evaluate(rows)
    assert found["eval_loss"] == pytest.approx(expected, rel=1e-6)


GENERATOR = torch.Generator().manual_seed(4)
PRIOR = torch.rand(models.V, generator=GENERATOR).softmax(0)


def toward(z: Tensor, y: Tensor, eps: Tensor | float, prior: Tensor) -> Tensor:
    """The losses of rows, each toward a prior."""
    q = z - torch.logsumexp(z, -1, keepdim=True)
    return -(1 - eps) * q[torch.arange(len(y)), y] - eps * (q * prior.double()).sum(-1)


def divergence(z: Tensor, y: Tensor) -> Tensor:
    p = torch.full_like(z, 0.1 / z.size(-1))
    p[torch.arange(len(y)), y] += 0.9
    return nn.functional.kl_div(z.log_softmax(-1), p, reduction="none").sum(-1)


STRENGTHS = torch.linspace(0, 0.5, models.V)
UNIFORM = torch.full((models.V,), 1 / models.V)
CRITERIA: dict[str, tuple[Any, Any]] = {
    "a prior": (
        lambda: ls.CrossEntropyLoss(label_smoothing=0.1, prior=PRIOR),
        lambda z, y: toward(z, y, 0.1, PRIOR),
    ),
    "a strength by class": (
        lambda: ls.by_class(STRENGTHS),
        lambda z, y: toward(z, y, STRENGTHS[y].double(), UNIFORM),
    ),
    "a divergence": (lambda: ls.LabelSmoothingLoss(0.1), divergence),
    "online": (lambda: ls.OnlineLabelSmoothing(models.V), lambda z, y: toward(z, y, 0.5, UNIFORM)),
    "a schedule": (falling, lambda z, y: toward(z, y, 0.5, UNIFORM)),
    "z-loss": (
        lambda: ls.CrossEntropyLoss(label_smoothing=0.1, z_loss=0.01),
        lambda z, y: toward(z, y, 0.1, UNIFORM) + 0.01 * torch.logsumexp(z, -1) ** 2,
    ),
}


@WAYS
@pytest.mark.parametrize("name", CRITERIA)
@pytest.mark.parametrize("count", [None, 40])
def test_any_criterion(name: str, way: str, count: int | None) -> None:
    make, losses = CRITERIA[name]
    model, batch = models.make("llama").train(), models.collate(models.samples("llama", 2))
    z, y = model(**batch).logits[:, :-1].double(), batch["labels"][:, 1:]
    rows = losses(z[y != -100], y[y != -100])
    expected = rows.sum() / (len(rows) if count is None else count)
    if way == "smooth":
        found = smooth(model, make())(**batch, num_items_in_batch=count).loss
    else:
        smoothed = SmoothedLoss(model, make())
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        found = smoothed(model(**inputs), batch["labels"], count)
    assert found.item() == pytest.approx(expected.item(), rel=2e-6)
    assert math.isfinite(found.item())
