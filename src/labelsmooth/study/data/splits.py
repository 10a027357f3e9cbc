"""Training, validation and test splits: always the same, and without overlap."""

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from labelsmooth.study.data.rows import Indices, Sides

FOLDS = 5  # one fold for each split that is drawn; the others are for training


def split(y: Indices, given: Sides, copies: Indices, groups: Indices | None) -> tuple[Sides, list[str]]:
    """The split of each row, and notes. Missing splits are drawn, stratified by class.

    Duplicate rows and the rows of a group get the same split, except rows whose split is given.

    Raises:
        ValueError: if there are too few rows or groups to draw from, or a given split has no rows.
    """
    is_open = given == ("train" if given.any() else "")
    drawn = [side for side in ("val", "test") if side not in given]
    units = copies if groups is None else _together(copies, groups)
    sides = given.copy()
    if drawn:
        sides[is_open] = _drawn(y[is_open], units[is_open], drawn, grouped=groups is not None)
        sides = _learnable(y, sides, units, is_open)
    if missing := [side for side in ("train", "val", "test") if side not in sides]:
        raise ValueError(f"data must have rows to train, validate and test on, got none for {missing[0]}")
    return sides, [_told(sides, drawn, grouped=groups is not None), *_copies_told(sides, copies)]


def _together(copies: Indices, groups: Indices) -> Indices:
    """The same number for all rows that are connected by duplicates or groups."""
    count = int(copies.max()) + 1
    links = coo_array((np.ones(len(copies)), (copies, groups + count)), shape=(count + groups.max() + 1,) * 2)
    return connected_components(links, directed=False)[1][copies].astype(np.int64)


def _drawn(y: Indices, units: Indices, drawn: Sequence[str], *, grouped: bool) -> Sides:
    _, first, unit = np.unique(units, return_index=True, return_inverse=True)
    most = np.bincount(y if grouped else y[first]).max()
    if min(len(first), most) < FOLDS:
        what = "groups, and rows of some class," if grouped else "different rows of some class"
        got = f"{len(first)} and {most}" if grouped else most
        raise ValueError(f"data must have at least {FOLDS} {what} to be split, got {got}")
    names = np.array([*drawn, *["train"] * FOLDS][:FOLDS])
    if grouped:
        return names[_folds(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0), y, unit)]
    return names[_folds(StratifiedKFold(FOLDS, shuffle=True, random_state=0), y[first])][unit]


def _folds(
    splitter: StratifiedKFold | StratifiedGroupKFold, y: Indices, groups: Indices | None = None
) -> Indices:
    folds = np.zeros(len(y), dtype=np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "The least populated class", UserWarning
        )  # they are kept in training
        for number, (_, rows) in enumerate(splitter.split(y, y, groups)):
            folds[rows] = number
    return folds


def _learnable(y: Indices, sides: Sides, units: Indices, is_open: NDArray[np.bool_]) -> Sides:
    """Move classes without training rows to the training split."""
    unlearnt = ~np.isin(y, y[sides == "train"])
    return np.where(np.isin(units, units[unlearnt]) & is_open, "train", sides)


def _told(sides: Sides, drawn: Sequence[str], *, grouped: bool) -> str:
    if not drawn:
        return "the training, validation and test rows are those that were given"
    how = f"stratified by class{', kept together by group' if grouped else ''}, with a fixed seed"
    if len(drawn) == 2:
        return f"three fifths of the rows are training rows, a fifth validation and a fifth test rows: {how}"
    name = "validation" if drawn == ["val"] else "test"
    return f"a fifth of the training rows are {name} rows ({how}); the others are those that were given"


def _copies_told(sides: Sides, copies: Indices) -> list[str]:
    number = len(copies) - len(np.unique(copies))
    if not number:
        return []
    seen = int(np.isin(copies[sides == "test"], copies[sides != "test"]).sum())
    if seen:
        number = (sides == "test").sum()
        return [f"warning: {seen} of {number} test rows are copies of training or validation rows"]
    return [f"{number} rows are copies of another row: copies are in the same split"]


def rare(y: Indices, class_names: Sequence[str]) -> list[str]:
    """A note on classes with so few rows that a split may lack them."""
    counts = np.bincount(y, minlength=len(class_names))
    few = [f"{name} ({count})" for name, count in zip(class_names, counts, strict=True) if count < FOLDS]
    if not few:
        return []
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    told = ", ".join(few[:5]) + more
    return [f"classes of fewer than {FOLDS} rows may be missing in validation or test: {told}"]
