"""Rows with a label each, as they are read, and as a model takes them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Sides = NDArray[np.str_]  # of each row: train, val, test, or nothing where that is open
Indices = NDArray[np.int64]
Shown = Sequence[str | bytes]  # rows for a report: a line of text, or a PNG image


@dataclass(frozen=True)
class Inputs:
    """What a model takes of all rows, once ``(x - mean) / std`` is found; by training rows alone."""

    x: Tensor
    mean: Tensor
    std: Tensor
    about: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Rows(ABC):
    """Labelled rows of one kind, in the order in which they were read."""

    labels: list[str]
    sides: Sides
    copies: Indices  # rows with the same features have the same number
    groups: Indices | None = None  # rows of one group have the same number
    class_names: list[str] | None = None  # in order, where the file says so
    notes: list[str] = field(default_factory=list)

    @abstractmethod
    def place(self, row: int) -> str:
        """Where a row is found, for a message."""

    @abstractmethod
    def inputs(self, train: Indices) -> Inputs:
        """Every row as a model takes it, by statistics of these training rows alone."""

    @abstractmethod
    def shown(self, rows: Indices) -> Shown:
        """These rows as a person reads them."""


@dataclass(frozen=True)
class Part:
    """The rows of one side."""

    x: Tensor  # (N, ...)
    y: Tensor  # (N,)

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Three sides, and what was found out about them."""

    train: Part
    val: Part
    test: Part
    mean: Tensor
    std: Tensor
    class_names: list[str]
    about: str
    notes: list[str]
    test_rows: Shown


def numbered(values: Sequence[object] | NDArray) -> Indices:
    """A number for each distinct value."""
    return np.unique(np.asarray(values), return_inverse=True)[1].reshape(-1).astype(np.int64)
