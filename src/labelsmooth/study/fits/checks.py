"""What a fit returned and called: each message names the fit, the entry, the value and the rule."""

from collections.abc import Mapping

import torch

from labelsmooth.calibration.checks import are_probabilities, as_labelled, check_finite
from labelsmooth.study.arms.specs import Spec, by_epoch, facts_of
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult


def check_result(name: str, result: FitResult) -> None:
    form = 'fit must return {"val": (logits, labels), "test": (logits, labels)}'
    if not isinstance(result, Mapping):
        raise ValueError(f"{name}: {form}, got {type(result).__name__}")
    if missing := {"val", "test"} - result.keys():
        raise ValueError(f"{name}: {form}, got no {' and no '.join(sorted(missing))}")
    for split in ("val", "test", "train"):
        if (pair := result.get(split)) is None:
            continue
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if not is_pair or not all(isinstance(t, torch.Tensor) for t in pair):
            raise ValueError(f"{name}: {form}, got {type(pair).__name__} for {split!r}")
        try:
            _check_pair(*pair)
        except ValueError as error:
            raise ValueError(f"{name}: fit's {split!r}: {error}") from None
    classes = sorted({result["val"][0].size(1), result["test"][0].size(1)})
    if len(classes) > 1:
        raise ValueError(f"{name}: fit must return logits of the same K classes in every call, got {classes}")
    _check_extras(name, result)


def check_calls(name: str, fit: object, arm: Spec, criterion: Criterion) -> None:
    """Whether a fit called what it was given, as often as the arm needs it."""
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


def _check_pair(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Stricter than a metric: what is compared over many runs has no rows left out and no class masked."""
    if logits.dim() != 2:
        raise ValueError(
            f"logits must be floating point of shape (N, K), got {logits.dtype} {tuple(logits.shape)}"
        )
    rows = as_labelled(logits, labels, ignore_index=None)
    check_finite(rows, masked=False)
    if are_probabilities(rows):
        raise ValueError("must be logits, got probabilities: every row is at least 0 and sums to 1")


def _check_extras(name: str, result: FitResult) -> None:
    """What a fit may return besides."""
    rows, num_classes = result["test"][0].shape
    train = result.get("train")
    shapes: dict[str, tuple[int | None, ...]] = {"features": (rows, None), "head": (num_classes, None)}
    if train is not None:
        shapes["clean"] = tuple(train[1].shape)
    for key, shape in shapes.items():
        if (value := result.get(key)) is None:
            continue
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else None
        if got is None or len(got) != len(shape) or got[0] != shape[0]:
            form = str(shape).replace("None", "D")
            raise ValueError(
                f"{name}: fit's {key!r} must be a tensor of shape {form}, got {got or type(value).__name__}"
            )
    features, head = result.get("features"), result.get("head")
    if features is not None and head is not None and features.size(1) != head.size(1):
        raise ValueError(
            f"{name}: fit's 'features' and 'head' must agree in D, got {features.size(1)} and {head.size(1)}"
        )
    history, state = result.get("history", {}), result.get("state", {})
    if not isinstance(history, Mapping) or not all(
        isinstance(curve, list | tuple) and all(isinstance(x, int | float) for x in curve)
        for curve in history.values()
    ):
        raise ValueError(f"{name}: fit's 'history' must hold lists of Python numbers by name")
    if not isinstance(state, Mapping) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError(f"{name}: fit's 'state' must hold tensors by name, as a state_dict does")
