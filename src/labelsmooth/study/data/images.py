"""Labelled rows from folders of images, and images as tensors."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from labelsmooth.study.data.paths import Side, visible
from labelsmooth.study.data.rows import Indices, Inputs, Rows, Shown, numbered

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif")
SMALLEST, LARGEST = 8, 32  # the range of the width and height for the model, in pixels
THUMBNAIL = 64  # the maximum width and height in the report, in pixels


@dataclass(frozen=True, kw_only=True)
class ImageRows(Rows):
    """Images of one size, ``(N, C, H, W)``, uint8."""

    images: Tensor
    files: Sequence[Path]

    def place(self, row: int) -> str:
        return str(self.files[row])

    def inputs(self, train: Indices) -> Inputs:
        return image_inputs(self.images, train)

    def shown(self, rows: Indices) -> Shown:
        return Thumbnails(self.images[torch.from_numpy(rows)])


@dataclass(frozen=True)
class Thumbnails(Sequence[bytes]):
    """Images as PNG files, encoded on access."""

    images: Tensor  # (N, C, H, W) of bytes

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        pixels = self.images[index].permute(1, 2, 0).numpy()
        image = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels[:, :, :3])
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        file = BytesIO()
        image.save(file, "PNG")
        return file.getvalue()


def image_inputs(images: Tensor, train: Indices) -> Inputs:
    """Images with the mean and standard deviation of each channel over the training rows."""
    pixels = images[torch.from_numpy(train)].transpose(0, 1).flatten(1)
    std, mean = torch.std_mean(pixels.double(), 1, correction=0)
    shape = (1, -1, 1, 1)
    _, channels, height, width = images.shape
    what = {1: "grey", 3: "colour"}.get(channels, f"{channels}-channel")
    return Inputs(
        images,
        mean.float().reshape(shape),
        std.clamp(min=1e-6).float().reshape(shape),
        f"{what} images of {width} x {height} pixels",
    )


def read_images(parts: Mapping[Side | None, Path]) -> ImageRows:
    """The images in one folder per class, or in such folders for each split, resized to one size.

    Raises:
        ValueError: if a folder or file is invalid; the message names it.
    """
    listed: list[tuple[Side | None, str, Path]] = []
    skipped: list[Path] = []
    for side, folder in parts.items():
        for name, file in _files(folder):
            if file.suffix.lower() in SUFFIXES:
                listed.append((side, name, file))
            else:
                skipped.append(file)
    if not listed:
        raise ValueError(
            f"{next(iter(parts.values()))} must hold a folder of images for each class "
            f"({', '.join(SUFFIXES)}), got no image"
        )
    notes = []
    if skipped:
        notes.append(
            f"{len(skipped)} files are not images and are skipped: {', '.join(f.name for f in skipped[:3])}"
        )
    sizes = [_size(file) for _, _, file in listed]
    size = _common_size(sizes)
    if {*sizes} != {size}:
        notes.append(f"images of {_told_sizes({*sizes})} pixels are resized to {size[0]} x {size[1]}")
    images = _alike([_pixels(file, size) for _, _, file in listed])
    return ImageRows(
        labels=[name for _, name, _ in listed],
        sides=np.array([side or "" for side, _, _ in listed], dtype="<U5"),
        copies=numbered([hashlib.sha256(pixels.tobytes()).hexdigest() for pixels in images]),
        notes=notes,
        images=torch.from_numpy(images),
        files=[file for _, _, file in listed],
    )


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """All files of each class, including subfolders."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with a subfolder of images for each class")
    for each in visible(folder):
        if each.is_dir():
            yield from ((each.name, file) for file in _within(each))
        elif each.suffix.lower() in SUFFIXES:
            raise ValueError(f"{each} must be in a subfolder named after its class")


def _within(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir():
            yield from _within(path)
        else:
            yield path


def _size(file: Path) -> tuple[int, int]:
    """Width and height from the header of the file."""
    with _told(file), Image.open(file) as image:
        return image.size


def _pixels(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image in this size, ``(C, H, W)``, grey or RGB; the first frame of an animation."""
    with _told(file), Image.open(file) as image:
        image.draft("RGB", (2 * LARGEST, 2 * LARGEST))  # reads a large photograph faster
        upright = ImageOps.exif_transpose(image)
        upright.load()
    seen = _plain(upright)
    if seen.size != size:
        shrinks = seen.width >= size[0] and seen.height >= size[1]
        seen = seen.resize(size, Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC)
    pixels = np.asarray(seen)
    return pixels.reshape(*pixels.shape[:2], -1).transpose(2, 0, 1)


@contextmanager
def _told(file: Path) -> Iterator[None]:
    """Raise a ``ValueError`` that names the image that cannot be read."""
    try:
        yield
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as an image ({error}): save it again as PNG or JPEG, or remove it"
        ) from None


def _alike(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """RGB images, ``(N, 3, H, W)``, or grey images, ``(N, 1, H, W)``, if all are grey."""
    channels = max(len(image) for image in images)
    return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])


def _plain(image: Image.Image) -> Image.Image:
    """A grey or RGB image; transparency becomes white."""
    if image.mode.startswith("I"):
        return Image.fromarray(_bytes(np.asarray(image)))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    if image.mode in ("L", "1", "LA"):
        return image.convert("L")
    colour = image.convert("RGB")
    red, green, blue = np.asarray(colour).transpose(2, 0, 1)
    return colour.getchannel(0) if (red == green).all() and (green == blue).all() else colour


def _bytes(deep: NDArray) -> NDArray[np.uint8]:
    """A 16-bit image as 8-bit."""
    return (np.clip(deep.astype(np.int64), 0, 65535) // 257).astype(np.uint8)


def _common_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The median width and height, scaled into the allowed range with the same aspect ratio."""
    width, height = np.median(np.array(sizes), axis=0)
    scale = min(1.0, LARGEST / max(width, height))
    return _side(width * scale), _side(height * scale)


def _side(pixels: float) -> int:
    return max(SMALLEST, round(pixels))


def _told_sizes(sizes: set[tuple[int, int]]) -> str:
    smallest, largest = min(sizes), max(sizes)
    told = f"{smallest[0]} x {smallest[1]}"
    return told if smallest == largest else f"{told} to {largest[0]} x {largest[1]}"
