"""Labelled rows, as read and as inputs of a model."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Sides = NDArray[np.str_]  # the split of each row: train, val, test, or "" if it is not given
Indices = NDArray[np.int64]
Shown = Sequence[str | bytes]  # rows in the report: a line of text, or a PNG image


@dataclass(frozen=True)
class Inputs:
    """The inputs of a model, ``(x - mean) / std``, with statistics of the training rows only."""

    x: Tensor
    mean: Tensor
    std: Tensor
    about: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Rows(ABC):
    """Labelled rows of one kind, in the order of reading."""

    labels: list[str]
    sides: Sides
    copies: Indices  # the same number for rows with equal features
    groups: Indices | None = None  # the same number for the rows of a group
    class_names: list[str] | None = None  # in order, if the file has them
    notes: list[str] = field(default_factory=list)

    @abstractmethod
    def place(self, row: int) -> str:
        """The place of a row, for messages."""

    @abstractmethod
    def inputs(self, train: Indices) -> Inputs:
        """All rows as inputs of a model, with statistics of the given training rows only."""

    @abstractmethod
    def shown(self, rows: Indices) -> Shown:
        """The given rows as the report shows them."""


@dataclass(frozen=True)
class Part:
    """The rows of one split."""

    x: Tensor  # (N, ...)
    y: Tensor  # (N,)

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The three splits, and notes about them."""

    train: Part
    val: Part
    test: Part
    mean: Tensor
    std: Tensor
    class_names: list[str]
    about: str
    notes: list[str]
    test_rows: Shown


def numbered(values: Sequence[object] | NDArray[Any]) -> Indices:
    """A number for each distinct value."""
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1).astype(np.int64)
