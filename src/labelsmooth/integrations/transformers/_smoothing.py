"""The smoothed loss of a model's outputs, with the divisor of a step of several micro-batches."""

import functools
import inspect
import math
from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from labelsmooth import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    LabelSmoothingLoss,
    LinearCrossEntropyLoss,
    OnlineLabelSmoothing,
)
from labelsmooth._targets.options import Strength
from labelsmooth.functional import next_tokens
from labelsmooth.integrations.transformers._measures import IGNORED, Count, Criterion, measured
from labelsmooth.integrations.transformers._models import (
    base_of,
    check_model,
    count_alike,
    name_of,
    router_coefficient,
    shifts,
)
from labelsmooth.integrations.transformers._trainers import Running, check_factor, check_moved, processes
from labelsmooth.schedules import ByClass, Schedule

KINDS = (CrossEntropyLoss, LabelSmoothingLoss, OnlineLabelSmoothing, BCEWithLogitsLoss)


class Targets(NamedTuple):
    """The labels of a batch, by the argument names of models."""

    labels: Tensor | None = None
    shift_labels: Tensor | None = None
    start_positions: Tensor | None = None
    end_positions: Tensor | None = None


class Smoothing:
    """A criterion for a model: the common part of SmoothedLoss and smooth."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Strength | Criterion,
        smooth_evaluation: bool,
        micro_batches: int | None,
    ) -> None:
        self.model: Any = base_of(model)
        check_model(self.model)
        self.criterion: Criterion = _criterion(criterion, self.model)
        self.smooth_evaluation = smooth_evaluation
        self.micro_batches = micro_batches
        self.shifts: bool = shifts(self.model)
        count_alike(self.model)
        self.callback: object = None  # the SmoothingCallback that belongs to it
        self.checked: object = None  # the Trainer that is known to fit
        self.asked: bool = False
        self.plain: Tensor
        self.rows: Tensor
        self.clear()
        self._enter()

    def clear(self) -> None:
        """Reset the mean NLL."""
        self.plain, self.rows = (
            torch.zeros(()),
            torch.zeros(()),
        )  # the summed NLL, and the number of its labels

    def taken_nll(self) -> float:
        """The mean NLL of the training labels since the last call, over all processes."""
        both = torch.stack([self.plain, self.rows])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(both)
        self.clear()
        total, rows = both.tolist()
        return total / rows if rows else math.nan

    def forward(self, inner: Any, kwargs: dict[str, Any]) -> Any:
        """The model's forward; ``inner`` is the original one."""
        raise NotImplementedError

    def _enter(self) -> None:
        """Wrap the model's forward, or replace an earlier wrapper."""
        if not hasattr(self.model, "_label_smoothing"):
            inner = self.model.forward
            inner = getattr(inner, "__func__", inner)
            names = list(inspect.signature(inner).parameters)[1:]

            @functools.wraps(inner)
            def forward(model: Any, *args: Any, **kwargs: Any) -> Any:
                named = dict(zip(names, args, strict=False))
                return model._label_smoothing.forward(functools.partial(inner, model), {**named, **kwargs})

            # Bound, so that a copy of the model has its own.
            self.model.forward = MethodType(forward, self.model)
        self.model._label_smoothing = self

    def check(self, found: Running | None) -> None:
        """Check that the Trainer smooths, once for each Trainer."""
        if found is not None and self.checked is not found.trainer:
            check_factor(found.trainer.args)
            check_moved(self.criterion, self.callback, found.trainer)
            self.checked = found.trainer

    def loss(
        self,
        outputs: Any,
        targets: Targets,
        count: Count,
        smooths: bool,
        parts: int,
        found: Running | None,
    ) -> Tensor:
        """The loss of a micro-batch.

        Args:
            outputs: The outputs of the model, which was given no labels.
            targets: The labels.
            count: The number of labels of all micro-batches of the step; None for the mean of this one.
            smooths: Whether this is training.
            parts: A further divisor of the loss of this micro-batch.
            found: The running Trainer.
        """
        losses: list[Tensor] = []
        for z, y in self._pairs(outputs, targets):
            self.criterion.to(z.device).train(smooths)
            loss, nll = measured(self.criterion, z, y, count)
            losses.append(loss if smooths or self.smooth_evaluation else nll)
            if smooths:
                self._add(nll, y, count)
        total = sum(losses[1:], losses[0]) / (len(losses) * parts)
        router = self._router_loss(outputs)
        if router is None:
            return total
        return total + router.to(total.device) / (parts * self._micro_batches(count, smooths, found))

    def _micro_batches(self, count: Count, smooths: bool, found: Running | None) -> int:
        """The number of micro-batches, over all processes, that share the count."""
        if count is None:
            return 1
        if found is not None:
            steps = found.trainer.current_gradient_accumulation_steps if smooths else 1
            return steps * processes(found.trainer)
        if self.micro_batches is None:
            raise ValueError(
                f"{name_of(self.model)} has a router loss, a mean over the micro-batches that "
                "num_items_in_batch counts: without a Trainer to ask, give their number, over all processes, "
                "as micro_batches="
            )
        return self.micro_batches

    def _pairs(self, outputs: Any, targets: Targets) -> Iterable[tuple[Tensor, Tensor]]:
        """Pairs of logits and labels."""
        labels, shifted, start, end = targets
        if labels is None and start is not None and end is not None:
            for name, position in (("start_logits", start), ("end_logits", end)):
                z = _output(outputs, name, self.model)
                # As in the models, positions beyond the row are ignored.
                y = position.to(z.device).reshape(-1).clamp(min=0)
                yield z, y.masked_fill(y >= z.size(-1), IGNORED)
            return
        z = _output(outputs, "logits", self.model)
        y = labels if shifted is None else shifted
        assert y is not None
        if self.shifts and shifted is None:
            y = next_tokens(y, IGNORED)
        self._check(z, y)
        yield z, y.to(z.device)

    def _check(self, z: Tensor, y: Tensor) -> None:
        name, binary = name_of(self.model), isinstance(self.criterion, BCEWithLogitsLoss)
        if z.size(-1) < 2 and not binary:
            raise ValueError(f"{name} has one output, and so no classes to smooth: logits {tuple(z.shape)}")
        if y.is_floating_point() and not binary:
            raise ValueError(
                f"labels must hold class indices, got {y.dtype}: of a multilabel problem, set "
                "problem_type='multi_label_classification' in the model's config, or pass a BCEWithLogitsLoss"
            )
        if y.shape != (z.shape if binary else z.shape[:-1]):
            raise ValueError(
                f"labels of shape {tuple(y.shape)} do not fit the logits of {name}, {tuple(z.shape)}: its "
                "own loss is more than a cross entropy; call labelsmooth.CrossEntropyLoss in a loop of yours"
            )

    def _router_loss(self, outputs: Any) -> Tensor | None:
        if not isinstance(outputs, Mapping):
            return None
        unknown = [name for name in outputs if name.endswith(("_z_loss", "_aux_loss", "_router_logits"))]
        if unknown:
            raise ValueError(
                f"{name_of(self.model)} adds router losses that would be lost, {', '.join(unknown)}: "
                "leave out output_router_logits"
            )
        aux, coefficient = outputs.get("aux_loss"), router_coefficient(self.model)
        return coefficient * aux if isinstance(aux, Tensor) and coefficient else None

    @torch.no_grad()
    def _add(self, nll: Tensor, y: Tensor, count: Count) -> None:
        self.asked = True
        rows = (y != IGNORED).sum().to(nll)
        by = rows if count is None else torch.as_tensor(count, device=nll.device).reshape(())
        self.plain = self.plain.to(nll.device) + torch.where(rows > 0, nll * by, 0.0)
        self.rows = self.rows.to(nll.device) + rows


def _output(outputs: Any, name: str, model: nn.Module) -> Tensor:
    if not isinstance(outputs, Mapping):
        if name != "logits":
            raise ValueError("return_dict must not be False for question answering")
        return outputs[0]
    if not isinstance(found := outputs.get(name), Tensor):
        raise ValueError(
            f"{name_of(model)} returns no {name}, but {', '.join(outputs)}: smoothing needs an output head"
        )
    return found


def _criterion(given: Strength | nn.Module, model: Any) -> Criterion:
    """The criterion for a strength or module, which must fit the model."""
    if not isinstance(given, nn.Module) or isinstance(given, (Schedule, ByClass)):
        strength: Any = given
        if getattr(model.config, "problem_type", None) == "multi_label_classification":
            return BCEWithLogitsLoss(label_smoothing=strength)
        return CrossEntropyLoss(label_smoothing=strength)
    if isinstance(given, LinearCrossEntropyLoss):
        raise ValueError(
            "criterion must not be a LinearCrossEntropyLoss, which has a head of its own: pass a "
            "CrossEntropyLoss of the same options; smooth takes the model's head without making its logits"
        )
    if type(given) not in KINDS:
        names = ", ".join(kind.__name__ for kind in KINDS)
        raise ValueError(f"criterion must be a strength or one of {names}, got {type(given).__name__}")
    criterion: Any = given
    if (reduction := getattr(criterion, "reduction", "mean")) != "mean":
        raise ValueError(
            f'criterion must have reduction="mean", got {reduction!r}: what divides is the labels of the step'
        )
    if (ignored := getattr(criterion, "ignore_index", IGNORED)) != IGNORED:
        raise ValueError(
            f"criterion must have ignore_index={IGNORED}, which Trainer counts by, got {ignored}: "
            f"let the collator pad labels with {IGNORED}"
        )
    return criterion
