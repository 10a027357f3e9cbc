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
SMALLEST, LARGEST = 8, 32  # pixels a side, as a model sees them
THUMBNAIL = 64  # pixels a side, at most, as a person does


@dataclass(frozen=True, kw_only=True)
class ImageRows(Rows):
    """Images of one size, ``(N, C, H, W)`` of bytes."""

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
    """Images as PNG files, each made when it is asked for."""

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
    """Images to be standardised by channel, by the pixels of training rows."""
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
    """The images of one folder per class, or of such folders for each side, in one size.

    Raises:
        ValueError: naming the folder or file of what is wrong.
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
            f"{len(skipped)} files are no images and are left out: {', '.join(f.name for f in skipped[:3])}"
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
    """Every file of each class, in folders within it, too."""
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder with one folder of images per class")
    for each in visible(folder):
        if each.is_dir():
            yield from ((each.name, file) for file in _within(each))
        elif each.suffix.lower() in SUFFIXES:
            raise ValueError(f"{each} must be in a folder named by its class, got one in none")


def _within(folder: Path) -> Iterator[Path]:
    for path in visible(folder):
        if path.is_dir():
            yield from _within(path)
        else:
            yield path


def _size(file: Path) -> tuple[int, int]:
    """Width and height, as the file's beginning tells them."""
    with _told(file), Image.open(file) as image:
        return image.size


def _pixels(file: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """An image of this size, ``(C, H, W)``, grey or in colour; of some that move, the first."""
    with _told(file), Image.open(file) as image:
        image.draft("RGB", (2 * LARGEST, 2 * LARGEST))  # a large photograph is read faster
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
    """Say which image cannot be read, and what to do about it."""
    try:
        yield
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f"{file} cannot be read as an image ({error}): save it anew as PNG or JPEG, or take it away"
        ) from None


def _alike(images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """All in colour, ``(N, 3, H, W)``, unless all are grey, ``(N, 1, H, W)``."""
    channels = max(len(image) for image in images)
    return np.stack([np.broadcast_to(image, (channels, *image.shape[1:])) for image in images])


def _plain(image: Image.Image) -> Image.Image:
    """A grey image, or one in colour, as seen on white."""
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
    """16 bits a pixel, in 8."""
    return (np.clip(deep.astype(np.int64), 0, 65535) // 257).astype(np.uint8)


def _common_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The median width and height, made smaller or larger where need be, with its shape."""
    width, height = np.median(np.array(sizes), axis=0)
    scale = min(1.0, LARGEST / max(width, height))
    return _side(width * scale), _side(height * scale)


def _side(pixels: float) -> int:
    return max(SMALLEST, round(pixels))


def _told_sizes(sizes: set[tuple[int, int]]) -> str:
    smallest, largest = min(sizes), max(sizes)
    told = f"{smallest[0]} x {smallest[1]}"
    return told if smallest == largest else f"{told} to {largest[0]} x {largest[1]}"
