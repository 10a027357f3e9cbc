"""A fit on the user's table, texts, images or arrays, without code."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from labelsmooth.calibration import accuracy
from labelsmooth.study.data.rows import Data, Part
from labelsmooth.study.fits.augment import cropped, flipped
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.models.factories import Factory, factory, made

AT_ONCE = 1024  # the batch size of predictions
FOLLOWED = 500  # the maximum number of training rows in the NLL curve
STEPS = {"images": 300, "rows": 3000}  # the approximate number of training steps
EPOCHS = {"images": (10, 40), "rows": (10, 30)}  # the minimum and the maximum


@dataclass(frozen=True, kw_only=True)
class DataFit:
    """Train a model on the user's rows, with AdamW, a one-cycle learning rate, and augmented images.

    :func:`fit_of` makes it. The attributes that only a report reads are not sent to the training processes,
    and do not identify the fit.

    Attributes:
        train: The training rows, as tensors.
        val: The validation rows.
        test: The test rows.
        mean: The mean that is subtracted from every row.
        std: The standard deviation that every row is divided by.
        class_names: The classes, in order.
        ordinal: Whether the classes are ordered.
        model: The name of the model, or ``module:function``.
        factory: The function that makes the model.
        epochs: The number of epochs.
        batch_size: The number of rows in a batch.
        learning_rate: The maximum learning rate.
        crop: The maximum random shift of images, in pixels.
        flip: Whether images are flipped horizontally at random.
        about: A description of the rows.
        notes: Notes on the data and the preprocessing, a line each.
        test_rows: The test rows in the report: lines of text, or PNG images.
    """

    train: Part
    val: Part
    test: Part
    mean: Tensor
    std: Tensor
    class_names: list[str]
    ordinal: bool
    model: str
    factory: Factory
    epochs: int
    batch_size: int
    learning_rate: float
    crop: int = 0
    flip: bool = False
    about: str = ""
    notes: list[str] = field(default_factory=list)
    test_rows: Sequence[str | bytes] = ()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"notes": [], "test_rows": ()}

    @property
    def description(self) -> str:
        rows = f"{len(self.train)} training, {len(self.val)} validation and {len(self.test)} test rows"
        kind = "ordinal classes" if self.ordinal else "classes"
        return f"{self.about}, {self.num_classes} {kind}; {rows}; {self.model}, {self.epochs} epochs"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def counts(self) -> Tensor:
        """The number of training rows of each class, ``(K,)``."""
        return self.train.y.bincount(minlength=self.num_classes)

    @property
    def embeddings(self) -> Tensor:
        """The mean training row of each class minus the mean of all rows, ``(K, D)``."""
        sums = torch.zeros(self.num_classes, self.train.x[0].numel())
        for rows in torch.arange(len(self.train)).split(AT_ONCE):
            sums.index_add_(0, self.train.y[rows], self._inputs(self.train.x[rows]).flatten(1))
        return sums / self.counts.unsqueeze(1) - sums.sum(0) / len(self.train)

    def make(self) -> nn.Module:
        """A model with new weights, for inputs ``(x - mean) / std``."""
        return made(self.model, self.factory, self.num_classes, tuple(self.train.x.shape[1:]))

    def check(self) -> None:
        """Check that the model can be made and accepts the rows, before any training.

        Raises:
            ValueError: if not; the message says what the model must do.
        """
        with torch.random.fork_rng(devices=[]):
            logits = self._predict(self.make(), self.test.x[:AT_ONCE])
        try:
            accuracy(logits, self.test.y[:AT_ONCE])
        except ValueError as error:
            raise ValueError(f"model {self.model}: {error}") from None

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        with torch.random.fork_rng(devices=[]):  # keeps the state of torch's generator
            torch.manual_seed(seed)
            return self._trained(criterion, torch.Generator().manual_seed(seed))

    def _trained(self, criterion: Criterion, generator: torch.Generator) -> FitResult:
        model = self.make()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.learning_rate, weight_decay=0.02, fused=True
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.epochs * len(self._batches(generator))
        )
        followed = slice(None, None, -(-len(self.train) // FOLLOWED))
        history: dict[str, list[float]] = {
            "training NLL": [],
            "validation NLL": [],
            "validation accuracy": [],
        }
        for _ in range(self.epochs):
            model.train()
            for batch in self._batches(generator):
                optimizer.zero_grad()
                x = self._augmented(self._inputs(self.train.x[batch]), generator)
                criterion(model(x), self.train.y[batch]).backward()
                optimizer.step()
                schedule.step()
            criterion.end_epoch()
            logits = self._predict(model, self.val.x)
            seen = self._predict(model, self.train.x[followed])
            history["training NLL"].append(_nll(seen, self.train.y[followed]))
            history["validation NLL"].append(_nll(logits, self.val.y))
            history["validation accuracy"].append(accuracy(logits, self.val.y))
        return self._result(model, history)

    def _result(self, model: nn.Module, history: dict[str, list[float]]) -> FitResult:
        result: FitResult = {
            "val": (self._predict(model, self.val.x), self.val.y),
            "test": (self._predict(model, self.test.x), self.test.y),
            "train": (self._predict(model, self.train.x), self.train.y),
            "history": history,
            "state": model.state_dict(),
        }
        head = _head(model, self.num_classes)
        if head is None:
            return result
        features, logits = self._through(model, head)
        if torch.equal(logits, result["test"][0]):
            result["features"], result["head"] = features, head.weight.detach()
        return result

    def _batches(self, generator: torch.Generator) -> list[Tensor]:
        """All rows in a new order, without a last batch of one row, which has no variance."""
        batches = torch.randperm(len(self.train), generator=generator).split(self.batch_size)
        return [batch for batch in batches if len(batch) > 1 or len(batches) == 1]

    def _inputs(self, x: Tensor) -> Tensor:
        inputs = (x.float() - self.mean) / self.std
        return inputs.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else inputs  # faster

    def _augmented(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if self.crop:
            x = cropped(x, self.crop, generator)
        return flipped(x, generator) if self.flip else x

    @torch.no_grad()
    def _predict(self, model: nn.Module, x: Tensor) -> Tensor:
        model.eval()
        logits = torch.cat([model(self._inputs(rows)) for rows in x.split(AT_ONCE)])
        if logits.shape != (len(x), self.num_classes):
            rule = f"logits of shape ({len(x)}, {self.num_classes})"
            raise ValueError(
                f"model {self.model} must return {rule} for {len(x)} rows, got {tuple(logits.shape)}"
            )
        return logits

    def _through(self, model: nn.Module, head: nn.Linear) -> tuple[Tensor, Tensor]:
        """The inputs of the last layer on the test rows, and its outputs."""
        seen: list[tuple[Tensor, Tensor]] = []

        def see(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen.append((inputs[0], output))

        hook = head.register_forward_hook(see)
        self._predict(model, self.test.x)
        hook.remove()
        features, logits = zip(*seen, strict=True)
        return torch.cat(features), torch.cat(logits)


def fit_of(
    path: str | Path,
    *,
    label: str | None = None,
    ordinal: bool = False,
    group: str | None = None,
    model: str | None = None,
    test: str | Path | None = None,
    epochs: int | None = None,
    flip: bool | None = None,
) -> DataFit:
    """A fit on a table, texts, images or arrays; its ``notes`` describe how the data were read.

    Args:
        path: A table (CSV with any separator, TSV, Parquet, JSON Lines), a ``.npz`` file with ``x`` and
            ``y``, a folder with a subfolder of images for each class, or a folder with ``train`` and ``test``
            of either kind.
        label: The column with the classes; required if no column has a usual name of a label.
        ordinal: Whether the labels are ordered numbers.
        group: A column whose rows with the same value stay in one split, such as those of a patient.
        model: ``mlp``, ``cnn``, ``linear`` or ``module:function``, which is called with ``num_classes=K``
            and ``inputs=(D,)``, or ``(C, H, W)`` for images; by default ``cnn`` for images and else ``mlp``.
        test: The path of the test rows, if it is a different one.
        epochs: The number of epochs; by default fewer for more rows.
        flip: Whether images are flipped horizontally at random; by default for colour images only.

    Raises:
        ValueError: if the data or an argument are invalid; the message names the file, the column and the
            row.

    Example:
        >>> fit = fit_of("flowers.csv", label="species")  # doctest: +SKIP
        >>> labelsmooth.study.run(fit, output="flowers-study")  # doctest: +SKIP
    """
    from labelsmooth.study.data.own import read  # polars, Pillow and scikit-learn take a second to import

    if epochs is not None and (isinstance(epochs, bool) or epochs < 1):
        raise ValueError(f"epochs must be at least 1, got {epochs}")
    data = read(path, label=label, ordinal=ordinal, group=group, test=test)
    are_images = data.train.x.dim() == 4
    name = model or ("cnn" if are_images else "mlp")
    flip = are_images and (data.train.x.size(1) == 3 if flip is None else flip)
    crop = min(data.train.x.shape[2:]) // 8 if are_images else 0
    batch_size = _batch_size(len(data.train), are_images)
    fit = DataFit(
        train=data.train,
        val=data.val,
        test=data.test,
        mean=data.mean,
        std=data.std,
        class_names=data.class_names,
        ordinal=ordinal,
        model=name,
        factory=factory(name),
        epochs=epochs or _epochs(len(data.train) / batch_size, "images" if are_images else "rows"),
        batch_size=batch_size,
        learning_rate=1e-2 if name == "cnn" else 1e-3,
        crop=crop,
        flip=flip,
        about=data.about,
        notes=[*data.notes, *_augmentation(data, crop, flip)],
        test_rows=data.test_rows,
    )
    fit.check()
    return fit


def _batch_size(rows: int, are_images: bool) -> int:
    if rows >= 20_000:
        return 128
    return 64 if are_images or rows >= 2000 else 32


def _epochs(steps: float, kind: str) -> int:
    """The number of epochs that gives about ``STEPS`` steps, within the limits."""
    fewest, most = EPOCHS[kind]
    return max(fewest, min(most, round(STEPS[kind] / steps)))


def _augmentation(data: Data, crop: int, flip: bool) -> list[str]:
    if data.train.x.dim() != 4:
        return []
    mirrored = "flipped horizontally" if flip else "not flipped, which would change letters and digits"
    return [f"training images are shifted by up to {crop} pixels at random, and {mirrored}"]


def _head(model: nn.Module, num_classes: int) -> nn.Linear | None:
    """The last linear layer with K outputs."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear and linear[-1].out_features == num_classes else None


def _nll(logits: Tensor, labels: Tensor) -> float:
    return float(nn.functional.cross_entropy(logits, labels))
