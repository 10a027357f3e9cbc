"""SmoothingCallback: schedules, logs and checkpoints in Trainer."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from labelsmooth.integrations._strength import strength_of
from labelsmooth.integrations.transformers._measures import Criterion
from labelsmooth.integrations.transformers._models import base_of, name_of
from labelsmooth.integrations.transformers._smoothing import Smoothing
from labelsmooth.integrations.transformers._trainers import check_factor, moves, running

Each = Literal["epoch", "step"]


class SmoothingCallback(TrainerCallback):
    r"""Calls ``end_epoch()`` of a criterion, logs its strength and the plain NLL, and saves its state.

    .. math:: \mathrm{NLL} = -\frac{1}{N} \sum_i \log q_\theta(y_i)

    Logs and ``log_history`` get ``nll``, the mean over the labels since the last entry, and
    ``label_smoothing``, the strength of the last step. Each checkpoint holds the state of the criterion,
    which resumed training loads.

    Args:
        smoothed: A :class:`SmoothedLoss`, or a model that was given to :func:`smooth`.
        each: When ``end_epoch()`` is called: after each "epoch" or each optimizer "step"; None leaves it to
            you.

    Raises:
        ValueError: if ``smoothed`` is neither; in training, if the first step did not ask for the loss, or if
            a checkpoint has no state to resume with.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> from labelsmooth import schedules
        >>> from labelsmooth.integrations.transformers import SmoothedLoss
        >>> model = LlamaForCausalLM(LlamaConfig(
        ...     vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        ... ))
        >>> callback = SmoothingCallback(SmoothedLoss(model, schedules.linear(0.2, 0.0, steps=2)))
        >>> callback.criterion.end_epoch()
        >>> callback.strength()
        tensor(0.1000)

    Reference:
        Zhang et al., *Delving Deep into Label Smoothing*, IEEE Transactions on Image Processing 2021.
    """

    def __init__(self, smoothed: Smoothing | nn.Module, each: Each | None = "epoch") -> None:
        if each is not None and each not in get_args(Each):
            raise ValueError(f"each must be 'epoch', 'step' or None, got {each!r}")
        found: Any = smoothed
        if isinstance(smoothed, nn.Module):
            found = getattr(base_of(smoothed), "_label_smoothing", None)
        if not isinstance(found, Smoothing):
            raise ValueError(
                "smoothed must be a SmoothedLoss, or a model that was given to smooth, "
                f"got {type(smoothed).__name__}"
            )
        self.smoothing: Smoothing = found
        self.criterion: Criterion = found.criterion
        self.each: Each | None = each
        self.moved: bool = True  # whether end_epoch() was called for this epoch
        self.last: Tensor | None = None  # the strength of the last step
        found.callback = self

    def strength(self) -> Tensor | None:
        """The current eps; None if it is not a single number."""
        eps = strength_of(self.criterion)
        return None if eps is None else torch.as_tensor(eps).detach().clone().reshape(())

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        check_factor(args)
        self.smoothing.clear()
        found = running()
        if found is not None:  # the others, such as TensorBoard's, shall see what this one adds
            callbacks = found.trainer.callback_handler.callbacks
            callbacks.insert(0, callbacks.pop(callbacks.index(self)))
        if state.global_step:
            paths = [
                frame.f_locals.get("resume_from_checkpoint") for frame in (found.frames if found else ())
            ]
            path = next((path for path in paths if isinstance(path, str)), None)
            self._load(Path(path) if path else _checkpoint(args, state), args.process_index)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.moved = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.smoothing.asked:
            raise ValueError(
                f"this step trained {name_of(self.smoothing.model)} without asking for the smoothed loss: "
                "give Trainer compute_loss_func=SmoothedLoss(...), or the model that was given to smooth"
            )
        self.last = self.strength()
        if self.each == "step":
            self.criterion.end_epoch()
        elif float(state.epoch).is_integer():  # before a checkpoint of this step is written
            self._end_epoch()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._end_epoch()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        added = {"nll": self.smoothing.taken_nll()}
        if self.last is not None:
            added["label_smoothing"] = float(self.last)
        logs.update(added)
        state.log_history[-1].update(added)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not state.is_hyper_param_search:  # whose runs have folders of their own, and are not resumed
            folder = _checkpoint(args, state)
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.criterion.state_dict(), folder / _file(args.process_index))

    def _end_epoch(self) -> None:
        if self.each == "epoch" and not self.moved:
            self.criterion.end_epoch()
            self.moved = True

    def _load(self, folder: Path, process: int) -> None:
        own, first = folder / _file(process), folder / _file(0)
        path = own if own.exists() else first
        if path.exists():
            self.criterion.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        elif moves(self.criterion):
            raise ValueError(
                f"{folder} has no {first.name}, as it was written without SmoothingCallback, so that the "
                f"criterion would start again: {self.criterion}. Save its state_dict under that name"
            )


def _checkpoint(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"


def _file(process: int) -> str:
    """Each process has predictions of its own to average."""
    return f"label_smoothing_{process}.pt"
