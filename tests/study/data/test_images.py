"""Images of any kind and size become one, and what is no image is refused or left out by name."""

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from labelsmooth.study.data.images import read_images
from labelsmooth.study.data.own import read

from .written import images, pixels, table, text


def read_alone(folder: Path, image: Image.Image, name: str = "0.png") -> torch.Tensor:
    (folder / "a").mkdir(exist_ok=True)
    image.save(folder / "a" / name)
    return read_images({None: folder}).images[0]


def test_a_folder_is_a_class(tmp_path: Path) -> None:
    data = read(images(tmp_path, ("dog", "cat", "10"), each=10))
    assert data.class_names == ["10", "cat", "dog"]
    assert data.about == "colour images of 12 x 10 pixels"
    assert data.train.x.shape == (18, 3, 10, 12)
    assert data.train.x.dtype == torch.uint8
    brightness = [data.train.x[data.train.y == k].float().mean() for k in (2, 1, 0)]
    assert brightness[0] < brightness[1] < brightness[2]


def test_folders_of_digits_are_in_their_order(tmp_path: Path) -> None:
    assert read(images(tmp_path, ("10", "9", "2"))).class_names == ["2", "9", "10"]


def test_train_and_test_folders_are_sides(tmp_path: Path) -> None:
    images(tmp_path / "train", each=10)
    images(tmp_path / "test", each=4, seed=7)
    data = read(tmp_path)
    assert [len(data.train), len(data.val), len(data.test)] == [16, 4, 8]
    apart = read(tmp_path / "train", test=tmp_path / "test")
    assert (apart.test.x == data.test.x).all()
    images(tmp_path / "validation", each=3, seed=9)
    data = read(tmp_path)
    assert [len(data.train), len(data.val), len(data.test)] == [20, 6, 8]


def test_channels_are_standardised_by_training_rows(tmp_path: Path) -> None:
    data = read(images(tmp_path))
    x = (data.train.x - data.mean) / data.std
    torch.testing.assert_close(x.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_images_of_many_sizes_become_one(tmp_path: Path) -> None:
    images(tmp_path)
    Image.new("RGB", (300, 100), "red").save(tmp_path / "cat" / "wide.png")
    data = read(tmp_path)
    assert data.train.x.shape[1:] == (3, 10, 12)
    assert "images of 12 x 10 to 300 x 100 pixels are resized to 12 x 10" in data.notes


def test_large_images_are_made_smaller_in_their_shape(tmp_path: Path) -> None:
    assert read_alone(tmp_path, Image.new("RGB", (640, 320), "red")).shape == (3, 16, 32)
    assert read_alone(tmp_path, Image.new("RGB", (2, 2), "red")).shape == (3, 8, 8)


RED = Image.new("RGB", (9, 9), "red")
WHITE = torch.full((1, 9, 9), 255, dtype=torch.uint8)


@pytest.mark.parametrize("name", ["0.png", "0.bmp", "0.gif", "0.webp", "0.JPG"])
def test_every_format_is_read(tmp_path: Path, name: str) -> None:
    red, green, blue = read_alone(tmp_path, RED, name).float().mean((1, 2)).tolist()
    assert red > 250
    assert green < 8
    assert blue < 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_grey_in_any_mode_has_one_channel(tmp_path: Path, mode: str) -> None:
    assert (read_alone(tmp_path, Image.new("L", (9, 9), 255).convert(mode)) == WHITE).all()


def test_what_is_seen_through_is_seen_on_white(tmp_path: Path) -> None:
    assert (read_alone(tmp_path, Image.new("RGBA", (9, 9), (255, 0, 0, 0))) == WHITE).all()


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    deep = np.repeat(np.array([0, 257, 32896, 65535], dtype=np.uint16), 16).reshape(8, 8)
    assert read_alone(tmp_path, Image.fromarray(deep)).unique().tolist() == [0, 1, 128, 255]


def test_of_images_that_move_the_first_counts(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    RED.save(tmp_path / "a" / "0.gif", save_all=True, append_images=[Image.new("RGB", (9, 9), "blue")])
    assert read_images({None: tmp_path}).images[0][0].float().mean() > 250


def test_what_is_no_image_is_left_out_and_said_and_what_is_hidden_is_not(tmp_path: Path) -> None:
    images(tmp_path)
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "README.md").write_text("x")
    (tmp_path / ".cache").mkdir()
    data = read(tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert "1 files are not images and are skipped: notes.txt" in data.notes


def broken(path: Path) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels(1, (40, 40, 3))[0]).save(file, path.suffix[1:].replace("jpg", "jpeg"))
    return file.getvalue()[: len(file.getvalue()) // 2]


@pytest.mark.parametrize(
    ("name", "content"),
    [("x.png", lambda _: b""), ("x.png", lambda _: b"no image"), ("x.png", broken), ("x.jpg", broken)],
)
def test_an_image_that_cannot_be_read_is_refused_by_its_name(
    tmp_path: Path, name: str, content: Callable[[Path], bytes]
) -> None:
    images(tmp_path)
    file = text(tmp_path / "dog", content(Path(name)), name)
    with pytest.raises(ValueError, match=re.escape(f"{file} cannot be read as an image (")) as error:
        read(tmp_path)
    assert str(error.value).endswith("): save it again as PNG or JPEG, or remove it")


def test_folders_that_hold_no_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    with pytest.raises(ValueError, match=r"must hold a folder of images for each class .*, got no image"):
        read(tmp_path)
    images(tmp_path / "more", ("cat",))
    with pytest.raises(ValueError, match="labels must be of two classes or more, got 'cat' in every row"):
        read(tmp_path / "more")
    RED.save(tmp_path / "more" / "loose.png")
    with pytest.raises(ValueError, match=r"loose\.png must be in a subfolder named after its class"):
        read(tmp_path / "more")


def test_a_class_that_only_tests_is_refused_by_its_file(tmp_path: Path) -> None:
    images(tmp_path / "train")
    images(tmp_path / "test", ("cat", "cow"), each=2, seed=9)
    file = tmp_path / "test" / "cow" / "0.png"
    with pytest.raises(ValueError, match=re.escape(f"got none of 'cow', the label of {file}")):
        read(tmp_path)


@pytest.mark.parametrize("argument", ["label", "group"])
def test_columns_are_for_tables(tmp_path: Path, argument: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{argument} requires a table \(the class of an image is its folder\)"
    ):
        read(images(tmp_path), **{argument: "x"})  # pyright: ignore[reportArgumentType]


def test_copies_stay_on_one_side(tmp_path: Path) -> None:
    images(tmp_path, each=20)
    for i in range(4):
        (tmp_path / "cat" / f"copy {i}.png").write_bytes((tmp_path / "cat" / f"{i}.png").read_bytes())
    data = read(tmp_path)
    assert "4 rows are copies of another row: copies are in the same split" in data.notes
    seen = [{tuple(x.flatten().tolist()) for x in part.x} for part in (data.train, data.val, data.test)]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 40


def test_test_rows_are_small_pictures_of_themselves(tmp_path: Path) -> None:
    data = read(images(tmp_path))
    assert len(data.test_rows) == len(data.test)
    for row, pixels_of in zip(data.test_rows, data.test.x, strict=True):
        assert isinstance(row, bytes)
        shown = np.asarray(Image.open(BytesIO(row)))
        assert (shown.transpose(2, 0, 1) == pixels_of.numpy()).all()
    assert data.test_rows[-2:] == [data.test_rows[len(data.test) - 2], data.test_rows[-1]]


def test_a_folder_of_a_table_and_images_is_refused_by_nothing_silently(tmp_path: Path) -> None:
    images(tmp_path)
    table().write_csv(tmp_path / "labels.csv")
    assert read(tmp_path).about == "colour images of 12 x 10 pixels"
