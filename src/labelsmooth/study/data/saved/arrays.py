"""Reading of files with named arrays. Nothing is unpickled."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

SPLITS = ("test", "val", "train")
KINDS = ("logits", "probabilities")
EXTRAS = ("features", "clean", "head", "class_names", "ids", "val_ids", *(f"ood_{kind}" for kind in KINDS))
KNOWN = {*EXTRAS, *(f"{split}_{what}" for split in SPLITS for what in (*KINDS, "labels"))}
OLD = {"test_ids": "ids", **{what: f"test_{what}" for what in (*KINDS, "labels")}}


def read_npz(path: Path) -> dict[str, Any]:
    """The arrays with known names, under the canonical names."""
    try:
        if not zipfile.is_zipfile(path):  # NumPy would try to unpickle it
            raise zipfile.BadZipFile("it is not a zip file")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[key] for key, name in _known(file)}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} holds Python objects, which are not read: save arrays of numbers, "
                "and names as strings, np.array(names, dtype=str)"
            ) from None
        raise ValueError(f"{path} is damaged, or was not written by np.savez ({error})") from None


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors with known names, also of a study's runs. Strings are in the metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            read = {name: file.get_tensor(key) for key, name in _known(file.keys())}
            said = file.metadata() or {}
        strings = {name: json.loads(said[key]) for key, name in _known(said)}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or not a safetensors file ({error})") from None
    return read | strings


def _known(keys: Any) -> Iterator[tuple[str, str]]:
    """The known keys and their canonical names: ``test.logits`` is ``logits``."""
    for key in keys:
        name = key.replace(".", "_")
        if (name := OLD.get(name, name)) in KNOWN:
            yield key, name
