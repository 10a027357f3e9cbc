"""Pairing of runs: the same rows in the same order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from labelsmooth.study.data.saved.predictions import Predictions, seed_of

Runs = Sequence[tuple[str, Predictions]]  # the runs of one arm, one for each seed
SPLITS = {"test": "test", "val": "validation"}


def check_paired(runs_by_arm: Mapping[str, Runs]) -> dict[str, list[tuple[str, Predictions]]]:
    """The runs with their rows in the order of the first run.

    Args:
        runs_by_arm: The runs of each arm, one for each seed, in the same order of seeds.

    Raises:
        ValueError: if there is no run, the arms differ in their seeds, or two files differ in their classes,
            rows or labels; the message names both and the first row that differs.
    """
    _check_seeds(runs_by_arm)
    _, first = next(iter(runs_by_arm.values()))[0]
    return {arm: [(name, _like(first, run)) for name, run in runs] for arm, runs in runs_by_arm.items()}


def _check_seeds(runs_by_arm: Mapping[str, Runs]) -> None:
    if not runs_by_arm:
        raise ValueError("there must be predictions of at least one arm, got none")
    for arm, runs in runs_by_arm.items():
        if not runs:
            raise ValueError(f"{arm} must have a file for each seed, got none")
    (one, ours), *others = runs_by_arm.items()
    for other, theirs in others:
        if len(ours) != len(theirs):
            raise ValueError(
                f"every arm must have a file for each seed, in the same order, got {len(ours)} of {one} and "
                f"{len(theirs)} of {other}"
            )
        for (name, run), (its_name, its_run) in zip(ours, theirs, strict=True):
            seeds = seed_of(name), seed_of(its_name)
            if None not in seeds and seeds[0] != seeds[1]:
                raise ValueError(
                    f"files must be paired by seed, got {run.path} beside {its_run.path}: "
                    "save every arm with the same seeds"
                )


def _like(first: Predictions, run: Predictions) -> Predictions:
    """The run with its rows in the order of the first run."""
    if run is first:
        return run
    both = f"{first.path} and {run.path}"
    if first.num_classes != run.num_classes:
        raise ValueError(
            f"{both} must have the same classes, got {first.num_classes} and {run.num_classes} of them"
        )
    for place, (name, its_name) in enumerate(
        zip(first.class_names or (), run.class_names or (), strict=False)
    ):
        if name != its_name:
            raise ValueError(
                f"{both} must have the same classes in one order, "
                f"got {name!r} and {its_name!r} for class {place}"
            )
    for split, said in SPLITS.items():
        if (split in first.result) != (split in run.result):
            without = run if split in first.result else first
            raise ValueError(f"{both} must both have {said} rows, or neither, got none in {without.path}")
        if split not in first.result:
            continue
        run = _ordered(first, run, split, f"{both} must have the same {said} rows")
        labels, its_labels = first.result[split][1], run.result[split][1]
        if (differ := (labels != its_labels).nonzero()).numel():
            row = int(differ[0])
            hint = (
                "" if _ids(first, split) and _ids(run, split) else "; if their order differs, save both ids"
            )
            raise ValueError(
                f"{both} must have the same labels, got {int(labels[row])} and {int(its_labels[row])} in "
                f"{said} row {row}, counted from 0{_called(first, split, row)}{hint}"
            )
    return run


def _ordered(first: Predictions, run: Predictions, split: str, rule: str) -> Predictions:
    rows, its_rows = len(first.result[split][1]), len(run.result[split][1])
    ids, its_ids = _ids(first, split), _ids(run, split)
    if ids is not None and its_ids is not None and ids != its_ids:
        place = {each: i for i, each in enumerate(its_ids)}
        for one, among, path in ((ids, place, run.path), (its_ids, set(ids), first.path)):
            if odd := next((each for each in one if each not in among), None):
                raise ValueError(f"{rule}, got no id {odd!r} in {path}")
        return _moved(run, split, torch.tensor([place[each] for each in ids]), ids)
    if rows != its_rows:
        raise ValueError(f"{rule}, got {rows} and {its_rows} of them")
    return run


def _moved(run: Predictions, split: str, order: Tensor, ids: tuple[str, ...]) -> Predictions:
    logits, labels = run.result[split]
    result: dict[str, Any] = {**run.result, split: (logits[order], labels[order])}
    if split == "test":
        if "features" in result:
            result["features"] = result["features"][order]
        return replace(run, result=result, ids=ids)
    return replace(run, result=result, val_ids=ids)


def _ids(run: Predictions, split: str) -> tuple[str, ...] | None:
    return run.ids if split == "test" else run.val_ids


def _called(run: Predictions, split: str, row: int) -> str:
    ids = _ids(run, split)
    return f" (id {ids[row]!r})" if ids else ""
