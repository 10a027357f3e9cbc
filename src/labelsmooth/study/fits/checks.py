"""Validation of what a fit returned and called."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from labelsmooth.calibration._checks import (
    are_probabilities,
    as_labelled,
    as_logits,
    as_tensor,
    check_finite,
    check_possible,
    log_of_probabilities,
)
from labelsmooth.study.arms.specs import Spec, by_epoch, facts_of
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult

FOLDS = 5  # folds of a linear probe


def as_result(name: str, result: object, *, needed: Collection[str] = ("val", "test")) -> FitResult:
    """The result of a fit as tensors, with two columns for two classes."""
    form = 'fit must return {"val": (logits, labels), "test": (logits, labels)}'
    if not isinstance(result, Mapping):
        raise ValueError(f"{name}: {form}, got {type(result).__name__}")
    if missing := {split for split in needed if result.get(split) is None}:
        raise ValueError(f"{name}: {form}, got no {' and no '.join(sorted(missing))}")
    declared = result.get("probabilities", False)
    if not isinstance(declared, bool):
        raise ValueError(
            f"{name}: fit's 'probabilities' must be True or False, got {type(declared).__name__}"
        )
    read: dict[str, Any] = {str(key): value for key, value in result.items() if value is not None}
    read.pop("probabilities", None)
    for split in ("val", "test", "train"):
        if split not in read:
            continue
        pair = read[split]
        if not isinstance(pair, tuple | list) or len(pair) != 2 or pair[0] is None or pair[1] is None:
            raise ValueError(f"{name}: {form}, got {type(pair).__name__} for {split!r}")
        logits, labels = pair
        try:
            read[split] = _as_pair(logits, labels, declared, judged=split != "train")
        except ValueError as error:
            raise ValueError(f"{name}: fit's {split!r}: {error}") from None
    if "ood" in read:
        read["ood"] = _as_unlabelled(name, read["ood"], declared)
    classes = sorted({read[split][0].size(1) for split in ("val", "test") if split in read})
    if "ood" in read:
        classes = sorted({*classes, read["ood"].size(1)})
    if len(classes) > 1:
        raise ValueError(f"{name}: fit must return logits of the same K classes in every call, got {classes}")
    return cast("FitResult", read | _as_extras(name, read))


def check_names(name: str, fit: object, num_classes: int) -> None:
    """Raise a ``ValueError`` unless a fit's ``class_names`` are missing or one string for each class."""
    names = getattr(fit, "class_names", None)
    if names is None:
        return
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or len(names) != num_classes or not all(isinstance(each, str) for each in names):
        rule = f"class_names must be {num_classes} strings, one for each class"
        raise ValueError(f"{name}: {rule}, got {names!r}")


def check_calls(name: str, fit: object, arm: Spec, criterion: Criterion) -> None:
    """Raise a ``ValueError`` unless a fit called its criterion, and ``end_epoch()`` as the arm needs."""
    if not criterion.called:
        raise ValueError(f"{name}: fit must call criterion(logits, labels), got no call")
    if not by_epoch(criterion.loss):
        return
    rule = (
        f"{name}: arm {arm.label} changes from epoch to epoch, so fit must call criterion.end_epoch() "
        "after each"
    )
    if not criterion.epochs:
        raise ValueError(f"{rule}, which it never did")
    epochs = facts_of(fit).get("epochs")
    if "epochs" in arm.loss.facts and criterion.epochs != epochs:
        raise ValueError(f"{rule} of fit.epochs = {epochs}, got {criterion.epochs} calls")


def _as_pair(logits: object, labels: object, declared: bool, judged: bool) -> tuple[Tensor, Tensor]:
    """Logits and labels of all rows, since a comparison of runs must not ignore rows."""
    what = "probabilities" if declared else "logits"
    rows = as_labelled(logits, labels, ignore_index=None, name=what, binary=True)
    if rows.shape is None or len(rows.shape) != 1:
        got = tuple(rows.shape or ())
        raise ValueError(
            f"{what} must be of shape (N, K), or (N,) of two classes, got {(*got, rows.logits.size(1))}"
        )
    if declared:
        rows = replace(rows, logits=log_of_probabilities(rows))
    check_finite(rows, masked=True)
    if judged:
        check_possible(rows)
    if not declared and are_probabilities(rows):
        raise ValueError(
            "must be logits, got probabilities: every row is at least 0 and sums to 1; "
            'return "probabilities": True beside them if that is what they are'
        )
    assert rows.labels is not None
    return rows.logits, rows.labels


def _as_unlabelled(name: str, logits: object, declared: bool) -> Tensor:
    """The logits of out-of-distribution rows."""
    try:
        rows = as_logits(logits, "probabilities" if declared else "logits")
        labels = torch.zeros(len(rows), dtype=torch.long)
        return _as_pair(rows, labels, declared, judged=False)[0]
    except ValueError as error:
        raise ValueError(f"{name}: fit's 'ood': {error}") from None


def _as_extras(name: str, result: Mapping[str, Any]) -> dict[str, Any]:
    """The optional entries of a fit's result."""
    rows, num_classes = result["test"][0].shape
    shapes: dict[str, tuple[int | None, ...]] = {"features": (rows, None), "head": (num_classes, None)}
    if "train" in result:
        shapes["clean"] = tuple(result["train"][1].shape)
    read: dict[str, Any] = {}
    for key in shapes.keys() & result.keys():
        shape = shapes[key]
        try:
            value = read[key] = as_tensor(repr(key), result[key]).detach()
        except ValueError as error:
            raise ValueError(f"{name}: fit's {error}") from None
        if key == "head" and num_classes == 2 and value.dim() == 2 and len(value) == 1:
            value = read[key] = torch.cat([torch.zeros_like(value), value])  # like the columns of the logits
        if value.dim() != len(shape) or len(value) != shape[0]:
            form = str(shape).replace("None", "D")
            raise ValueError(f"{name}: fit's {key!r} must be of shape {form}, got {tuple(value.shape)}")
    features, head = read.get("features"), read.get("head")
    if features is not None and head is not None and features.size(1) != head.size(1):
        raise ValueError(
            f"{name}: fit's 'features' and 'head' must agree in D, got {features.size(1)} and {head.size(1)}"
        )
    if "transfer" in result:
        read["transfer"] = _as_task(name, result["transfer"])
    history, state = result.get("history", {}), result.get("state", {})
    if not isinstance(history, Mapping) or not all(
        isinstance(curve, list | tuple | np.ndarray) and all(isinstance(x, Real) for x in curve)
        for curve in history.values()
    ):
        raise ValueError(f"{name}: fit's 'history' must hold lists of numbers by name")
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ValueError(f"{name}: fit's 'state' must hold tensors by name, as a state_dict does")
    return read | {"history": {title: [float(x) for x in curve] for title, curve in history.items()}}


def _as_task(name: str, pair: Any) -> tuple[Tensor, Tensor]:
    """The features and labels of the rows of another task."""
    rule = f"{name}: fit's 'transfer' must be (features, labels) of shapes (M, D) and (M,)"
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"{rule}, got {type(pair).__name__}")
    features, labels = (as_tensor("'transfer'", part).detach() for part in pair)
    if features.dim() != 2 or labels.shape != features.shape[:1] or labels.is_floating_point():
        raise ValueError(f"{rule}, labels integers, got {tuple(features.shape)} and {tuple(labels.shape)}")
    if labels.unique(return_counts=True)[1].min() < FOLDS or len(labels.unique()) < 2:
        raise ValueError(f"{rule}, with two classes or more of {FOLDS} rows or more each")
    return features, labels.long()
