"""Arrays of any usual name and shape."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelsmooth.study.data.own import read

from .written import pixels

Y = np.arange(30) % 3
X = (Y[:, None] + 0.1 * np.random.default_rng(0).standard_normal((30, 4))).astype(np.float32)


def npz(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("x", "y"), [("x", "y"), ("X", "Y"), ("features", "labels"), ("images", "label"), ("data", "target")]
)
def test_arrays_are_found_by_their_names(tmp_path: Path, x: str, y: str) -> None:
    data = read(npz(tmp_path, **{x: X, y: Y}))
    assert data.class_names == ["0", "1", "2"]
    assert data.about == "rows of 4 numbers"
    scaled = (data.train.x - data.mean) / data.std
    torch.testing.assert_close(scaled.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    assert re.fullmatch(r"[-.\d]+(, [-.\d]+){3}", str(data.test_rows[0]))


@pytest.mark.parametrize("form", ["{0}_{1}", "{1}_{0}"])
def test_sides_are_found_by_their_names(tmp_path: Path, form: str) -> None:
    parts = {"train": slice(0, 18), "val": slice(18, 24), "test": slice(24, 30)}
    arrays = {
        form.format(name, side): a[rows] for side, rows in parts.items() for name, a in (("x", X), ("y", Y))
    }
    data = read(npz(tmp_path, **arrays))
    assert (data.test.x.numpy() == X[24:]).all()
    assert (data.test.y.numpy() == Y[24:]).all()
    assert len(data.val) == 6


@pytest.mark.parametrize(
    ("shape", "arranged", "about"),
    [
        ((8, 9), (1, 8, 9), "grey images of 9 x 8 pixels"),
        ((8, 9, 3), (3, 8, 9), "colour images of 9 x 8 pixels"),
        ((8, 9, 1), (1, 8, 9), "grey images of 9 x 8 pixels"),
        ((3, 8, 9), (3, 8, 9), "colour images of 9 x 8 pixels"),
        ((8, 9, 5), (5, 8, 9), "5-channel images of 9 x 8 pixels"),
    ],
)
def test_images_have_their_channels_first(
    tmp_path: Path, shape: tuple[int, ...], arranged: tuple[int, ...], about: str
) -> None:
    x = pixels(30, shape)
    data = read(npz(tmp_path, x=x, y=Y))
    assert data.train.x.shape[1:] == arranged
    assert data.about == about
    assert data.train.x.dtype == torch.uint8
    assert len(data.test_rows) == len(data.test)


def test_class_names_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    data = read(npz(tmp_path, x=X, y=Y, class_names=["low", "high", "else"]))
    assert data.class_names == ["low", "high", "else"]
    again = read(npz(tmp_path, x=X, y=Y))
    assert (data.train.y == again.train.y).all()


def test_labels_may_be_strings_and_of_another_name(tmp_path: Path) -> None:
    data = read(npz(tmp_path, x=X, kind=np.array(["b", "a", "c"])[Y]), label="kind")
    assert data.class_names == ["a", "b", "c"]


def test_groups_are_an_array(tmp_path: Path) -> None:
    groups = np.arange(30) // 3
    data = read(npz(tmp_path, x=X, y=Y, patient=groups), group="patient")
    of = {tuple(x.tolist()): group for x, group in zip(X, groups, strict=True)}
    seen = [{of[tuple(x.tolist())] for x in part.x} for part in (data.train, data.val, data.test)]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 10


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": Y}, "data.npz must hold an array x of features and y of labels, got y (30,)"),
        ({"x": X}, "data.npz must hold an array y of labels for its features, got x (30, 4)"),
        ({"x": X, "y": Y[:7]}, "data.npz must hold one label for each of 30 rows, (30,), got (7,)"),
        ({"x": X, "y": np.eye(3)[Y]}, "data.npz must hold one label for each of 30 rows, (30,), got (30, 3)"),
        ({"x": X[:, 0], "y": Y}, "must hold features (N, D), or images (N, H, W) or (N, H, W, C), got (30,)"),
        ({"x": X.astype(str), "y": Y}, "data.npz must hold numbers as features, got <U"),
        ({"x": np.where(X > 1.9, np.nan, X), "y": Y}, "must hold finite features, got NaN or inf in row 2"),
        ({"x": X, "y": np.where(Y == 1, np.nan, Y)}, "must hold a label in each row, got nan in row 1"),
        (
            {"x": X, "y": Y, "class_names": ["a", "b"]},
            "must hold labels in [0, 1], one for each of class_names",
        ),
        ({"x": X, "y": Y, "class_names": ["a", "a"]}, "must hold class_names that differ, got a, a"),
        (
            {"x": X, "y": X[:, 0]},
            "must be classes with several rows each, got 30 different labels in 30 rows",
        ),
        ({"x_test": X, "y_test": Y}, "data.npz must hold training rows, got x_test (30, 4), y_test (30,)"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read(npz(tmp_path, **arrays))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.array([{}] * 30, dtype=object), y=Y)
    with pytest.raises(ValueError, match=r"data\.npz must hold plain arrays, as numpy\.savez writes them: "):
        read(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"data\.npz must hold plain arrays"):
        read(path)


def test_a_group_that_is_no_array_is_refused(tmp_path: Path) -> None:
    said = "group must name an array of data.npz of shape (30,), got 'patient' of x (30, 4), y (30,)"
    with pytest.raises(ValueError, match=re.escape(said)):
        read(npz(tmp_path, x=X, y=Y), group="patient")
