"""Predictions that are made up, in every kind of file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

NAMES = ("cat", "dog", "ant")
Pair = tuple[np.ndarray, np.ndarray]


def made_up(rows: int = 90, classes: int = 3, seed: int = 0, strength: float = 1.5) -> Pair:
    """Logits that are somewhat right, ``(rows, classes)``, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    logits = random.normal(size=(rows, classes)) + strength * np.eye(classes)[labels]
    return logits, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def write(
    path: Path, test: Pair, val: Pair | None = None, *, kind: str = "logits", names: Sequence[str] = NAMES
) -> Path:
    """In the format of the path's ending, with ids and class names."""
    ids = [f"row {i}" for i in range(len(test[1]))]
    arrays: dict[str, Any] = {kind: test[0], "labels": test[1]}
    if val is not None:
        arrays |= {f"val_{kind}": val[0], "val_labels": val[1]}
    match path.suffix:
        case ".npz":
            np.savez(path, ids=ids, class_names=list(names), **arrays)
        case ".safetensors":
            said = {"ids": json.dumps(ids), "class_names": json.dumps(list(names))}
            save_file({name: torch.tensor(array) for name, array in arrays.items()}, path, said)
        case ".parquet":
            _frame(test, val, ids, kind, names).write_parquet(path)
        case _:
            separator = "\t" if path.suffix == ".tsv" else ","
            _frame(test, val, ids, kind, names).write_csv(path, separator=separator)
    return path


def _frame(test: Pair, val: Pair | None, ids: list[str], kind: str, names: Sequence[str]) -> pl.DataFrame:
    prefix = {"logits": "logit_", "probabilities": "probability_"}[kind]
    pairs = {"test": test} if val is None else {"val": val, "test": test}
    scores = np.concatenate([pair[0] for pair in pairs.values()])
    labels = np.concatenate([pair[1] for pair in pairs.values()])
    columns: dict[str, Any] = {
        "id": [*(f"val {i}" for i in range(len(labels) - len(ids))), *ids],
        "label": [names[label] for label in labels],
        "split": [split for split, pair in pairs.items() for _ in pair[1]],
    }
    return pl.DataFrame(columns | {f"{prefix}{name}": scores[:, k] for k, name in enumerate(names)})
