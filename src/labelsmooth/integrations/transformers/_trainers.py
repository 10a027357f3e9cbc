"""The running Trainer, found on the call stack, as it passes nothing of itself to its loss function."""

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from transformers import Trainer

from labelsmooth import LabelSmoothingLoss, OnlineLabelSmoothing
from labelsmooth.schedules import Schedule


class Running(NamedTuple):
    trainer: Trainer
    frames: list[FrameType]  # of its methods, innermost first


def running() -> Running | None:
    """The Trainer on the call stack."""
    trainer: Trainer | None = None
    frames: list[FrameType] = []
    for caller, frame in _callers():
        if isinstance(caller, Trainer) and trainer in (None, caller):
            trainer = caller
            frames.append(frame)
    return None if trainer is None else Running(trainer, frames)


def compiled(model: nn.Module) -> bool:
    """Whether the model's forward runs under torch.compile."""
    called = model._compiled_call_impl is not None
    return called or any(isinstance(caller, OptimizedModule) for caller, _ in _callers())


def _callers() -> Iterator[tuple[object, FrameType]]:
    """The objects whose methods are on the call stack, innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_varnames[:1] == ("self",):
            yield frame.f_locals.get("self"), frame
        frame = frame.f_back


def processes(trainer: Trainer) -> int:
    """The factor by which Trainer multiplies a loss that is divided by the labels of all processes."""
    args = trainer.args
    if not args.average_tokens_across_devices:
        return 1
    return args.n_gpu if args.n_gpu > 1 else trainer.accelerator.num_processes // trainer.get_tp_size()


def schedule_of(criterion: nn.Module) -> Schedule | None:
    """The strength of a criterion, if it changes over time."""
    eps = (
        criterion.smoothing
        if isinstance(criterion, LabelSmoothingLoss)
        else getattr(criterion, "label_smoothing", 0)
    )
    return eps if isinstance(eps, Schedule) and eps.extremes[0] != eps.extremes[1] else None


def moves(criterion: nn.Module) -> bool:
    """Whether the criterion needs calls of ``end_epoch()``."""
    return isinstance(criterion, OnlineLabelSmoothing) or schedule_of(criterion) is not None


def check_factor(args: Any) -> None:
    if args.label_smoothing_factor:
        raise ValueError(
            f"label_smoothing_factor={args.label_smoothing_factor} of the training arguments is ignored "
            "beside SmoothedLoss, and removes the labels that smooth needs: leave it at 0"
        )


def check_moved(criterion: nn.Module, callback: object, trainer: Trainer) -> None:
    """Raise an error if nothing calls ``end_epoch()`` of a criterion that needs it."""
    if moves(criterion) and callback not in trainer.callback_handler.callbacks:
        what = "its prior" if schedule_of(criterion) is None else "its strength"
        raise ValueError(
            f"nothing calls end_epoch() of {type(criterion).__name__}, so {what} never changes: give "
            "Trainer callbacks=[SmoothingCallback(...)], with each=None if you call end_epoch() yourself"
        )


def who_took_the_labels(trainer: Trainer) -> str:
    """Why the Trainer does not use the loss inside the model."""
    args: Any = trainer.args
    name = type(trainer).__name__
    if args.label_smoothing_factor:
        return f"label_smoothing_factor={args.label_smoothing_factor} removes the labels: leave it at 0"
    if trainer.compute_loss_func is not None:
        return f"{name} has a compute_loss_func, which removes the labels: leave out one of the two"
    if args.use_liger_kernel:
        return "use_liger_kernel=True has put another forward in its place: leave it out"
    if isinstance(loss_type := getattr(args, "loss_type", None), str):
        return (
            f"{name} computes its own loss (loss_type={loss_type!r}): take SmoothedSFTTrainer of "
            "labelsmooth.integrations.trl for loss_type='nll'; the others have no smoothing"
        )
    return f"{name} computes its own loss: take the loss that the model returns, or call SmoothedLoss there"
