"""Small files to read: tables, images, and what is wrong with some."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

ROWS = 60


def table(rows: int = ROWS, *, classes: int = 3, seed: int = 0) -> pl.DataFrame:
    """Two numbers that tell the class, a colour that hints at it, and the class."""
    generator = np.random.default_rng(seed)
    y = np.arange(rows) % classes
    return pl.DataFrame(
        {
            "width": y + 0.3 * generator.standard_normal(rows),
            "height": -y + 0.3 * generator.standard_normal(rows),
            "colour": [("red", "green", "blue")[(k + (i % 7 == 0)) % 3] for i, k in enumerate(y)],
            "label": [f"class {k}" for k in y],
        }
    )


def csv(folder: Path, frame: pl.DataFrame | Mapping[str, Sequence[Any]], name: str = "data.csv") -> Path:
    path = folder / name
    pl.DataFrame(frame).write_csv(path)
    return path


def text(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def sentences(rows: int = ROWS) -> list[str]:
    """Texts of two kinds, each different from all others."""
    about = ("where is my card, it did not arrive", "please change the pin of my account")
    return [f"{about[i % 2]}, {i} days ago, said number {i * 7}" for i in range(rows)]


def pixels(rows: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, *shape), dtype=np.uint8)


def images(folder: Path, classes: Sequence[str] = ("cat", "dog"), each: int = 8, *, seed: int = 0) -> Path:
    """Folders of noise, brighter from class to class, in colour, 12 pixels wide and 10 high."""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(pixels(each, (10, 12, 3), seed + number)):
            Image.fromarray(image // 2 + np.uint8(40 * number)).save(folder / name / f"{i}.png")
    return folder
