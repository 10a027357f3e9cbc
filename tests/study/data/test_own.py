"""The fit on one's own data: what it says, returns and is recognised by."""

import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch

from labelsmooth import study
from labelsmooth.study.arms.specs import facts_of
from labelsmooth.study.fits.augment import cropped, flipped
from labelsmooth.study.fits.checks import as_result, check_names
from labelsmooth.study.fits.own import DataFit, fit_of
from labelsmooth.study.trials.identity import identify
from tests.study.made_up import hard

from .written import csv, images, sentences, table


@pytest.fixture
def rows(tmp_path: Path) -> DataFit:
    return fit_of(csv(tmp_path, table()), epochs=3)


@pytest.fixture
def texts(tmp_path: Path) -> DataFit:
    return fit_of(csv(tmp_path, {"text": sentences(), "label": ["card", "pin"] * 30}), epochs=3)


@pytest.fixture
def pictures(tmp_path: Path) -> DataFit:
    return fit_of(images(tmp_path / "images", each=10), epochs=3)


@pytest.mark.parametrize("kind", ["rows", "texts", "pictures"])
def test_a_fit_returns_all_that_a_study_takes(kind: str, request: pytest.FixtureRequest) -> None:
    fit: DataFit = request.getfixturevalue(kind)
    criterion = hard()
    result: dict[str, Any] = {**as_result(kind, fit(criterion, 0))}
    check_names(kind, fit, fit.num_classes)
    assert criterion.epochs == fit.epochs == 3
    assert {*result} == {"val", "test", "train", "history", "features", "head", "state"}
    assert (result["test"][1] == fit.test.y).all()
    assert (result["train"][1] == fit.train.y).all()
    assert [len(curve) for curve in result["history"].values()] == [3, 3, 3]
    assert {*result["history"]} == {"training NLL", "validation NLL", "validation accuracy"}
    assert {*facts_of(fit)} == {"num_classes", "epochs", "counts", "embeddings"}
    assert fit.counts.tolist() == [(fit.train.y == k).sum() for k in range(fit.num_classes)]


def test_a_fit_learns(tmp_path: Path) -> None:
    fit = fit_of(csv(tmp_path, table(300)), epochs=20)
    logits, labels = fit(hard(), 0)["test"]
    assert (logits.argmax(1) == labels).float().mean() > 0.9


@pytest.mark.parametrize("kind", ["rows", "pictures"])
def test_a_seed_gives_the_same_logits_wherever_it_is_trained(
    kind: str, request: pytest.FixtureRequest
) -> None:
    fit: DataFit = request.getfixturevalue(kind)
    first = fit(hard(), 1)["test"][0]
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    assert (pickle.loads(pickle.dumps(fit))(hard(), 1)["test"][0] == first).all()
    assert (torch.random.get_rng_state() == before).all()
    assert (fit(hard(), 2)["test"][0] != first).any()


def test_a_fit_is_recognised_by_content_wherever_its_files_are(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    path = csv(tmp_path, table())
    first = identify(fit_of(path)).digest
    elsewhere = shutil.copy(path, tmp_path / "other" / "copy.csv")
    assert identify(fit_of(elsewhere)).digest == first
    assert identify(pickle.loads(pickle.dumps(fit_of(path)))).digest == first
    table().write_csv(path, separator=";")
    assert identify(fit_of(path)).digest == first
    assert identify(fit_of(path, epochs=7)).digest != first
    assert identify(fit_of(path, model="linear")).digest != first
    changed = table().with_columns(pl.col("width") + 0.01 * pl.int_range(60))
    assert identify(fit_of(csv(tmp_path, changed))).digest != first
    relabelled = table().with_columns(label=pl.Series(["a", "b", "c"] * 20))
    assert identify(fit_of(csv(tmp_path, relabelled))).digest != first


def test_training_changes_nothing_that_a_fit_is_recognised_by(pictures: DataFit) -> None:
    before = identify(pictures)
    pictures(hard(), 0)
    assert identify(pictures) == before


def test_a_fit_says_what_it_is(tmp_path: Path) -> None:
    fit = fit_of(csv(tmp_path, table().with_columns(label=pl.Series([1, 2, 3] * 20))), ordinal=True)
    assert fit.description == (
        "a table of 3 columns, 3 ordinal classes; 36 training, 12 validation and 12 test rows; mlp, 30 epochs"
    )
    assert fit.ordinal
    assert fit.class_names == ["1", "2", "3"]
    assert fit.notes == [
        "column 'label' is the label, by its name",
        "three fifths of the rows are training rows, a fifth validation and a fifth test rows: "
        "stratified by class, with a fixed seed",
    ]


def test_images_in_colour_are_mirrored_unless_said_otherwise(tmp_path: Path) -> None:
    folder = images(tmp_path)
    moved = "training images are shifted by up to 1 pixels at random, and"
    assert fit_of(folder).notes[-1] == f"{moved} flipped horizontally"
    assert fit_of(folder, flip=False).notes[-1].startswith(f"{moved} not flipped")
    assert fit_of(folder).flip
    assert not fit_of(folder, flip=False).flip


def test_images_are_moved_and_mirrored_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(1.0, 21.0).reshape(1, 1, 4, 5).expand(200, 2, 4, 5)
    moved = cropped(image, 1, generator)
    padded = torch.nn.functional.pad(image[0], (1, 1, 1, 1))
    every = [padded[:, i : i + 4, j : j + 5] for i in range(3) for j in range(3)]
    found = [next(n for n, each in enumerate(every) if (each == one).all()) for one in moved]
    assert {*found} == {*range(9)}
    mirrored = (flipped(image, generator) == image.flip(3)).flatten(1).all(1)
    assert 70 < mirrored.sum() < 130


@pytest.mark.parametrize("rows", [33, 65])
def test_a_last_row_alone_is_no_batch(rows: int, pictures: DataFit) -> None:
    part = replace(pictures.train, x=pictures.train.x[:1].expand(rows, -1, -1, -1), y=torch.arange(rows) % 2)
    fit = replace(pictures, train=part, batch_size=32, epochs=1)
    result: dict[str, Any] = {**fit(hard(), 0)}
    assert result["train"][0].isfinite().all()


def test_epochs_are_at_least_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="epochs must be at least 1, got 0"):
        fit_of(csv(tmp_path, table()), epochs=0)


def test_a_model_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_nets.py").write_text(
        "import torch\n"
        "def net(*, num_classes, inputs):\n    return torch.nn.Linear(*inputs, num_classes)\n"
        "def narrow(*, num_classes, inputs):\n    return torch.nn.Linear(*inputs, 2)\n"
        "def scaled(*, num_classes, inputs):\n"
        "    return torch.nn.Sequential(torch.nn.Linear(*inputs, num_classes), torch.nn.Tanh())\n"
        "def probabilities(*, num_classes, inputs):\n"
        "    return torch.nn.Sequential(torch.nn.Linear(*inputs, num_classes), torch.nn.Softmax(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    path = csv(tmp_path, table().drop("colour"))
    result: dict[str, Any] = {**fit_of(path, model="own_nets:net", epochs=2)(hard(), 0)}
    assert {*result["state"]} == {"weight", "bias"}
    assert (result["features"] @ result["head"].T + result["state"]["bias"]).allclose(result["test"][0])
    said = "model own_nets:probabilities: logits must be logits, got probabilities"
    with pytest.raises(ValueError, match=said):
        fit_of(path, model="own_nets:probabilities")
    assert "head" not in fit_of(path, model="own_nets:scaled", epochs=2)(hard(), 0)
    said = "model own_nets:narrow must return logits of shape (12, 3) for 12 rows, got (12, 2)"
    with pytest.raises(ValueError, match=re.escape(said)):
        fit_of(path, model="own_nets:narrow")
    with pytest.raises(ValueError, match="model must be mlp, cnn, linear or module:function, got 'forest'"):
        fit_of(path, model="forest")


def test_a_model_of_ones_own_is_recognised_by_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import torch\ndef net(*, num_classes, inputs):\n    return torch.nn.Linear(*inputs, num_classes{})\n"
    )
    (tmp_path / "nets_before.py").write_text(code.format(""))
    (tmp_path / "nets_after.py").write_text(code.format(", True"))
    monkeypatch.chdir(tmp_path)
    path = csv(tmp_path, table())
    before, after = (fit_of(path, model=f"nets_{name}:net") for name in ("before", "after"))
    assert identify(replace(after, model=before.model)).digest != identify(before).digest


@pytest.mark.slow
def test_a_whole_study_in_workers(tmp_path: Path, no_report: None) -> None:
    fit = fit_of(csv(tmp_path, table(150)), epochs=2)
    options = {"eps": [0.1], "seeds": 2, "output": tmp_path / "study", "progress": False}
    results = study.run(fit, workers=2, **options)
    assert results.settings[0].num_classes == 3
    assert study.run(fit_of(tmp_path / "data.csv", epochs=2), **options).digest == results.digest


@pytest.mark.slow
def test_nothing_slow_is_imported_before_data_is_read() -> None:
    code = "import sys, labelsmooth.study.fits.own; print(*{'polars', 'PIL', 'sklearn'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
