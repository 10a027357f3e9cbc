"""A fit on one's own table, texts or images, without code."""

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

AT_ONCE = 1024  # rows that are predicted together
FOLLOWED = 500  # training rows whose NLL is followed, at most
STEPS = {"images": 300, "rows": 3000}  # of training, about
EPOCHS = {"images": (10, 40), "rows": (10, 30)}  # at least and at most


@dataclass(frozen=True, kw_only=True)
class DataFit:
    """Train a model on rows of one's own: AdamW, one cycle of the learning rate, images moved at random.

    It is made by :func:`fit_of`. What only a report reads does not travel to the processes that train, and
    does not tell one fit from another.

    Attributes:
        train: The training rows, as tensors.
        val: The validation rows.
        test: The test rows.
        mean: What is subtracted from every row.
        std: What every row is divided by then.
        class_names: The classes, in order.
        ordinal: Whether that order means something.
        model: The name of the model, or ``module:function``.
        factory: The function that makes it.
        epochs: How many epochs are trained.
        batch_size: Rows in a batch.
        learning_rate: The largest one.
        crop: Pixels by which images are moved at random.
        flip: Whether images are mirrored at random.
        about: What the rows are.
        notes: What was found out and done, a line each.
        test_rows: The test rows as a person reads them: lines of text, or PNG images.
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
        """How many training rows each class has, ``(K,)``."""
        return self.train.y.bincount(minlength=self.num_classes)

    @property
    def embeddings(self) -> Tensor:
        """The mean training row of each class, less that of all, ``(K, D)``."""
        sums = torch.zeros(self.num_classes, self.train.x[0].numel())
        for rows in torch.arange(len(self.train)).split(AT_ONCE):
            sums.index_add_(0, self.train.y[rows], self._inputs(self.train.x[rows]).flatten(1))
        return sums / self.counts.unsqueeze(1) - sums.sum(0) / len(self.train)

    def make(self) -> nn.Module:
        """A model with new weights, for inputs ``(x - mean) / std``."""
        return made(self.model, self.factory, self.num_classes, tuple(self.train.x.shape[1:]))

    def check(self) -> None:
        """Find out whether the model can be made and takes the rows, before anything is trained.

        Raises:
            ValueError: if not, saying what it must do.
        """
        with torch.random.fork_rng(devices=[]):
            logits = self._predict(self.make(), self.test.x[:AT_ONCE])
        try:
            accuracy(logits, self.test.y[:AT_ONCE])
        except ValueError as error:
            raise ValueError(f"model {self.model}: {error}") from None

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        with torch.random.fork_rng(devices=[]):  # weights and dropout are drawn from torch's own generator
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
        """All rows in a new order; one that is left alone is left out, since it has no variance."""
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
        """What comes into the last layer on the test rows, and what comes out of it."""
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
    """A fit on a table, texts, images or arrays, which says in its ``notes`` what it made of them.

    Args:
        path: A table (CSV with any separator, TSV, Parquet, JSON Lines), a ``.npz`` file of ``x`` and ``y``,
            a folder with one folder of images per class, or a folder with ``train`` and ``test`` of either.
        label: The column with the classes; needed where no name says so.
        ordinal: Whether the labels are numbers whose order counts.
        group: A column whose rows of one value have to stay on one side, such as those of a patient.
        model: ``mlp``, ``cnn``, ``linear`` or ``module:function``, which is called with ``num_classes=K`` and
            ``inputs=(D,)``, or ``(C, H, W)`` of images; by default ``cnn`` for images and ``mlp`` for others.
        test: Where the test rows are, if elsewhere.
        epochs: How many epochs to train; by default a few for many rows and more for few.
        flip: Whether images are mirrored at random; by default if they are in colour.

    Raises:
        ValueError: naming the argument, the file, the column and the row of what is wrong, and the rule.

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
    """So many that there are about enough steps."""
    fewest, most = EPOCHS[kind]
    return max(fewest, min(most, round(STEPS[kind] / steps)))


def _augmentation(data: Data, crop: int, flip: bool) -> list[str]:
    if data.train.x.dim() != 4:
        return []
    mirrored = "mirrored" if flip else "not mirrored, which would make another letter or digit of one"
    return [f"training images are moved by up to {crop} pixels at random, and {mirrored}"]


def _head(model: nn.Module, num_classes: int) -> nn.Linear | None:
    """The last linear layer, where it is as wide as the classes."""
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1] if linear and linear[-1].out_features == num_classes else None


def _nll(logits: Tensor, labels: Tensor) -> float:
    return float(nn.functional.cross_entropy(logits, labels))
