"""Lightning: epochs, logs, checkpoints, and two labels for each sample."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning", reason="needs labelsmooth[lightning]")

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

import labelsmooth as ls
from labelsmooth import schedules
from labelsmooth.integrations.lightning import SmoothingCallback

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, of workers, accelerators and its imports
TORCH: Any = nn.CrossEntropyLoss()
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(8, 4, generator=GENERATOR), torch.randint(3, (8,), generator=GENERATOR)


class Model(pl.LightningModule):
    def __init__(self, criterion: nn.Module, mix: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 3)
        self.losses: list[float] = []
        self.strengths: list[float] = []
        self.given, self.mix = [criterion], mix  # no submodule

    def training_step(self, batch: Any, index: int) -> Tensor:
        x, y = batch
        loss = self.given[0](self.linear(x), ls.mixed(y, y.flip(0), 0.3) if self.mix else y)
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch: Any, index: int) -> None:
        x, y = batch
        self.log("val_loss", self.given[0](self.linear(x), y))

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.strengths.append(float(self.trainer.callback_metrics["label_smoothing"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def falling() -> ls.CrossEntropyLoss:
    return ls.CrossEntropyLoss(label_smoothing=schedules.linear(0.5, 0.1, steps=4), train_only=True)


def fitted(
    folder: Path, criterion: Any, epochs: int, each: Any = "epoch", resume: Any = None, **options: Any
) -> tuple[Model, SmoothingCallback, pl.Trainer]:
    model, callback = Model(criterion, options.pop("mix", False)), SmoothingCallback(criterion, each)
    checkpoint = ModelCheckpoint(folder, save_last=True, **options)
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[checkpoint, callback], default_root_dir=folder,
    )  # fmt: skip
    rows = DataLoader(TensorDataset(X, Y), batch_size=4)
    trainer.fit(model, rows, rows, ckpt_path=resume)
    return model, callback, trainer


def test_each_epoch_is_trained_and_logged_with_its_strength(tmp_path: Path) -> None:
    model, callback, trainer = fitted(tmp_path, falling(), 3)
    assert model.strengths == pytest.approx([0.5, 0.5, 0.4, 0.4, 0.3, 0.3])
    z = model.linear(X).detach()
    right = [nn.functional.cross_entropy(z[:4], Y[:4], label_smoothing=eps).item() for eps in (0.5, 0.4, 0.3)]
    assert model.losses[::2] == pytest.approx(right, rel=1e-5)
    assert callback.strength() == pytest.approx(0.2)
    plain = nn.functional.cross_entropy(z, Y).item()
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(plain, rel=1e-5)


def test_moved_by_the_step(tmp_path: Path) -> None:
    assert fitted(tmp_path, falling(), 2, each="step")[0].strengths == pytest.approx([0.5, 0.4, 0.3, 0.2])


@pytest.mark.parametrize(
    "options",
    [{}, {"save_on_train_epoch_end": True}, {"every_n_train_steps": 1}, {"save_on_train_epoch_end": False}],
    ids=["by default", "after the epoch", "after each step", "after validation"],
)
def test_resumed(options: dict[str, Any], tmp_path: Path) -> None:
    fitted(tmp_path, falling(), 2, **options)
    model, callback, _ = fitted(tmp_path, falling(), 4, resume=str(tmp_path / "last.ckpt"), **options)
    assert model.strengths == pytest.approx([0.3, 0.3, 0.2, 0.2])
    assert callback.strength() == pytest.approx(0.1)


def test_a_checkpoint_holds_nothing_of_the_criterion_in_the_model(tmp_path: Path) -> None:
    fitted(tmp_path, ls.OnlineLabelSmoothing(3), 1)
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["state_dict"].keys() == {"linear.weight", "linear.bias"}


def test_online_smoothing_learns_and_resumes(tmp_path: Path) -> None:
    _, callback, _ = fitted(tmp_path, ls.OnlineLabelSmoothing(3), 2)
    prior: Any = callback.criterion.state_dict()["prior.probabilities"]
    assert not torch.allclose(prior, torch.full((3, 3), 1 / 3))
    other = ls.OnlineLabelSmoothing(3)
    fitted(tmp_path, other, 2, resume=str(tmp_path / "last.ckpt"))
    torch.testing.assert_close(other.state_dict()["prior.probabilities"], prior)


def test_mixed_labels(tmp_path: Path) -> None:
    """They are moved to the device as part of a batch, too."""
    criterion = ls.CrossEntropyLoss(label_smoothing=0.1)
    model, _, _ = fitted(tmp_path, criterion, 1, mix=True)
    z, y = model.linear(X[:4]).detach(), Y[:4]
    a, b = (nn.functional.cross_entropy(z, t, label_smoothing=0.1).item() for t in (y, y.flip(0)))
    assert model.losses[0] == pytest.approx(0.3 * a + 0.7 * b, rel=1e-5)
    batch = (X, ls.mixed(Y, Y.flip(0), torch.tensor(0.3)))
    _, moved = model.transfer_batch_to_device(batch, torch.device("meta"), 0)
    assert isinstance(moved, type(batch[1]))
    assert moved.first.is_meta


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: SmoothingCallback(TORCH),
            "criterion must be a module of labelsmooth, got Cross",
        ),  # pyright: ignore
        (lambda: SmoothingCallback(falling(), "batch"), "each must be 'epoch' or 'step', got 'batch'"),  # pyright: ignore
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        call()
