"""The smoothed loss of a model's outputs, divided as a step of several micro-batches needs it."""

import functools
import inspect
import math
from collections.abc import Iterable, Mapping
from types import MethodType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labelsmooth import (
    BCEWithLogitsLoss,
    CrossEntropyLoss,
    LabelSmoothingLoss,
    LinearCrossEntropyLoss,
    OnlineLabelSmoothing,
)
from labelsmooth._targets.options import Strength
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
    """The labels of a batch under the names that models have for them."""

    labels: Tensor | None = None
    shift_labels: Tensor | None = None
    start_positions: Tensor | None = None
    end_positions: Tensor | None = None


class Smoothing:
    """A criterion at work on a model: what SmoothedLoss and smooth share."""

    def __init__(
        self,
        model: nn.Module,
        criterion: Strength | Criterion,
        smooth_evaluation: bool,
        micro_batches: int | None,
    ) -> None:
        self.model = base_of(model)
        check_model(self.model)
        self.criterion = _criterion(criterion, self.model)
        self.smooth_evaluation = smooth_evaluation
        self.micro_batches = micro_batches
        self.shifts = shifts(self.model)
        count_alike(self.model)
        self.callback: object = None  # the SmoothingCallback that belongs to it
        self.checked: object = None  # the Trainer that is known to fit
        self.asked = False
        self.clear()
        self._enter()

    def clear(self) -> None:
        """Forget what was trained on."""
        self.plain, self.rows = torch.zeros(()), torch.zeros(())  # the sum of the NLL, and of how many labels

    def taken_nll(self) -> float:
        """The mean NLL of the training labels since this was last asked, over all processes."""
        both = torch.stack([self.plain, self.rows])
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(both)
        self.clear()
        total, rows = both.tolist()
        return total / rows if rows else math.nan

    def forward(self, inner: Any, kwargs: dict[str, Any]) -> Any:
        """What the model's forward does now; ``inner`` is what it did."""
        raise NotImplementedError

    def _enter(self) -> None:
        """Take a place around the model's forward: that of an earlier one, if there is one."""
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
        """Whether smoothing is about to happen, once for each Trainer."""
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
            outputs: Of the model, which was given no labels.
            targets: Those.
            count: The labels of all micro-batches of the step; None for the mean of this one.
            smooths: Whether this is training.
            parts: What the loss of this micro-batch is divided by beside.
            found: The Trainer at work.
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
        """How many of them, over all processes, share what is divided by the count."""
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
        """Logits, and the labels that they answer."""
        labels, shifted, start, end = targets
        if labels is None and start is not None and end is not None:
            for name, position in (("start_logits", start), ("end_logits", end)):
                z = _output(outputs, name, self.model)
                # As the models do: what lies beyond the row does not count.
                y = position.to(z.device).reshape(-1).clamp(min=0)
                yield z, y.masked_fill(y >= z.size(-1), IGNORED)
            return
        z = _output(outputs, "logits", self.model)
        y = labels if shifted is None else shifted
        assert y is not None
        if self.shifts and shifted is None:  # labels, as they are smaller than the logits
            y = F.pad(y, (0, 1), value=IGNORED)[..., 1:]
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
    """The criterion that is meant, or why there cannot be one."""
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
