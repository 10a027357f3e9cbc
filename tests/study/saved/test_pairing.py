"""Runs that are to be compared row by row have the same rows, or it is said where they differ."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from labelsmooth.study.data.saved.pairing import check_paired
from labelsmooth.study.data.saved.predictions import Predictions, as_predictions

from .making import made_up

LOGITS, LABELS = made_up(12)
IDS = [f"r{i}" for i in range(12)]
GIVEN: Mapping[str, Any] = {
    "test_logits": LOGITS,
    "test_labels": LABELS,
    "val_logits": LOGITS,
    "val_labels": LABELS,
}


def run(path: str = "b.npz", **changes: object) -> Predictions:
    return as_predictions(path, {k: v for k, v in {**GIVEN, **changes}.items() if v is not None})


def pair(one: Predictions, other: Predictions) -> Predictions:
    return check_paired({"hard": [("seed0", one)], "ls": [("seed0", other)]})["ls"][0][1]


def test_the_same_rows_are_left_alone():
    one, other = run("a.npz"), run()
    assert pair(one, other) is other


def test_rows_are_brought_into_order_by_their_ids():
    order = np.random.default_rng(0).permutation(12)
    moved = run(
        ids=[IDS[i] for i in order],
        test_logits=LOGITS[order],
        test_labels=LABELS[order],
        features=np.arange(12.0)[order, None],
    )
    ordered = pair(run("a.npz", ids=IDS), moved)
    assert torch.equal(ordered.result["test"][0], torch.tensor(LOGITS))
    assert torch.equal(ordered.result["features"][:, 0], torch.arange(12.0).double())
    assert ordered.ids == tuple(IDS)


DIFFERENT: dict[str, tuple[Predictions, Predictions, str]] = {
    "labels": (
        run("a.npz"),
        run(test_labels=np.where(np.arange(12) == 7, 0, LABELS)),
        r"^a\.npz and b\.npz must have the same labels, got 1 and 0 in test row 7, counted from 0; if their "
        "order differs, save both ids$",
    ),
    "labels of one id": (
        run("a.npz", ids=IDS),
        run(ids=IDS, test_labels=np.where(np.arange(12) == 7, 0, LABELS)),
        r"got 1 and 0 in test row 7, counted from 0 \(id 'r7'\)$",
    ),
    "validation labels": (
        run("a.npz"),
        run(val_labels=np.where(np.arange(12) == 2, 0, LABELS)),
        "got 2 and 0 in validation row 2, counted from 0",
    ),
    "another id": (
        run("a.npz", ids=IDS),
        run(ids=["x", *IDS[1:]]),
        r"must have the same test rows, got no id 'r0' in b\.npz$",
    ),
    "rows": (
        run("a.npz"),
        run(test_logits=LOGITS[:9], test_labels=LABELS[:9]),
        "must have the same test rows, got 12 and 9 of them$",
    ),
    "classes": (
        run("a.npz"),
        run(test_logits=made_up(12, 4)[0], val_logits=made_up(12, 4)[0]),
        "must have the same classes, got 3 and 4 of them$",
    ),
    "names of classes": (
        run("a.npz", class_names=["a", "b", "c"]),
        run(class_names=["a", "c", "b"]),
        "must have the same classes in one order, got 'b' and 'c' for class 1$",
    ),
    "validation rows": (
        run("a.npz"),
        run(val_logits=None, val_labels=None),
        r"must both have validation rows, or neither, got none in b\.npz$",
    ),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_where_two_files_differ(case: str):
    one, other, message = DIFFERENT[case]
    with pytest.raises(ValueError, match=message):
        pair(one, other)


def test_every_arm_has_every_seed():
    a, b = ("seed1", run("h/seed1.npz")), ("seed2", run("l/seed2.npz"))
    with pytest.raises(ValueError, match="at least one arm, got none"):
        check_paired({})
    with pytest.raises(ValueError, match="ls must have a file for each seed, got none"):
        check_paired({"hard": [a], "ls": []})
    with pytest.raises(ValueError, match=r"got 2 of hard and 1 of ls$"):
        check_paired({"hard": [a, b], "ls": [a]})
    with pytest.raises(ValueError, match=r"paired by seed, got h/seed1\.npz beside l/seed2\.npz: save every"):
        check_paired({"hard": [a], "ls": [b]})
    assert check_paired({"hard": [a], "ls": [("other", run())]})  # a name that tells no seed
