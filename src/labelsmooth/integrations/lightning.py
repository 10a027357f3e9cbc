"""A Lightning callback for criteria that change over time."""

from typing import Any, Literal, get_args

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ModuleNotFoundError as _error:
    _missing = str(_error.name).partition(".")[0]
    raise ModuleNotFoundError(
        f"labelsmooth.integrations.lightning needs {_missing}: pip install 'labelsmooth[lightning]'",
        name=_missing,
    ) from _error

from labelsmooth import BCEWithLogitsLoss, CrossEntropyLoss, LabelSmoothingLoss
from labelsmooth.integrations._strength import strength_of

Each = Literal["epoch", "step"]
Criterion = CrossEntropyLoss | LabelSmoothingLoss | BCEWithLogitsLoss


class SmoothingCallback(Callback):
    r"""Calls ``end_epoch()`` of a criterion, logs its strength and saves its state in checkpoints.

    .. math:: \epsilon(t), \qquad t = 0, 1, 2, \ldots

    The criterion need not be a submodule of the LightningModule: it is moved to its device, put into its mode
    (``train_only=True`` gives the plain loss in validation), and its state is the callback's in the
    checkpoint, so that the model's own state does not depend on it. ``label_smoothing`` is logged, the
    strength that was trained with.

    Args:
        criterion: One of the library's modules.
        each: When ``end_epoch()`` is called: after each "epoch" or each optimizer "step".

    Raises:
        ValueError: if ``criterion`` is none of these, or ``each`` neither.

    Example:
        >>> from labelsmooth import schedules
        >>> falling = schedules.linear(0.2, 0.0, steps=10)
        >>> criterion = CrossEntropyLoss(label_smoothing=falling, train_only=True)
        >>> callback = SmoothingCallback(criterion)
        >>> callback.strength()
        0.20000000298023224

    Reference:
        Zhang et al., *Delving Deep into Label Smoothing*, IEEE Transactions on Image Processing 2021.
    """

    def __init__(self, criterion: Criterion, each: Each = "epoch") -> None:
        if not isinstance(criterion, Criterion):
            raise ValueError(f"criterion must be a module of labelsmooth, got {type(criterion).__name__}")
        if each not in get_args(Each):
            raise ValueError(f"each must be 'epoch' or 'step', got {each!r}")
        self.criterion: Criterion = criterion
        self.each: Each = each
        self.ended: int = 0  # epochs
        self.steps: int = 0  # of the optimizer, that were seen

    def strength(self) -> float | None:
        """The current eps; None if it is not a single number."""
        eps = strength_of(self.criterion)
        return None if eps is None else float(eps)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.criterion.to(pl_module.device)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.criterion.train()
        self.steps = trainer.global_step

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.criterion.to(pl_module.device).eval()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.criterion.train()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.criterion.to(pl_module.device).eval()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (eps := self.strength()) is not None:
            pl_module.log("label_smoothing", eps)
        if self.each == "step" and trainer.global_step > self.steps:
            self.criterion.end_epoch()
        elif trainer.is_last_batch:  # before a checkpoint of this epoch is written
            self._end_epoch(trainer)
        self.steps = trainer.global_step

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end_epoch(trainer)

    def _end_epoch(self, trainer: Trainer) -> None:
        if self.each == "epoch" and self.ended <= trainer.current_epoch:
            self.criterion.end_epoch()
            self.ended = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return {"criterion": self.criterion.state_dict(), "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.criterion.load_state_dict(state_dict["criterion"])
        self.ended = state_dict["ended"]
