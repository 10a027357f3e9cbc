"""The data at a path: one table, one file of arrays, a folder of tables, or folders of images."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["table", "arrays", "images"]
Side = Literal["train", "val", "test"]
SIDES: dict[str, Side] = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
TABLES = (".csv", ".tsv", ".tab", ".txt", ".parquet", ".pq", ".jsonl", ".ndjson", ".json")
FORMATS = "CSV, TSV, Parquet, JSON Lines or .npz, or a folder of images with one folder per class"


class Source(NamedTuple):
    """Files or folders of one kind, by split; the key None means that the split is not given."""

    kind: Kind
    parts: dict[Side | None, Path]


def find(path: str | Path, test: str | Path | None = None) -> Source:
    """The data at a path, and at the path of the test rows if it is given.

    Raises:
        ValueError: if there are no readable data; the message names the path and the formats.
    """
    source = _found(Path(path))
    if test is None:
        return source
    apart = _found(Path(test))
    if apart.kind != source.kind or source.kind == "arrays":
        raise ValueError(f"test must be {source.kind} like the data, and not an .npz file, got {test}")
    for name, (_, parts) in ((path, source), (test, apart)):
        if [*parts] != [None]:
            raise ValueError(f"test requires data without splits, got {name} with {_told(parts)}")
    return Source(source.kind, {"train": source.parts[None], "test": apart.parts[None]})


def side_of(name: str) -> Side | None:
    return SIDES.get(name.strip().lower())


def visible(folder: Path) -> list[Path]:
    """The contents of a folder in the order of names, without hidden files."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX")))


def _found(path: Path) -> Source:
    if not path.exists():
        raise ValueError(f"data must be a file or a folder, got {path}, which does not exist")
    return _folder(path) if path.is_dir() else _file(path)


def _file(path: Path) -> Source:
    if path.suffix.lower() == ".npz":
        return Source("arrays", {None: path})
    if path.suffix.lower() in TABLES:
        return Source("table", {None: path})
    raise ValueError(f"data must be {FORMATS}, got {path}")


def _folder(path: Path) -> Source:
    inside = visible(path)
    files = [file for file in inside if file.is_file() and file.suffix.lower() in TABLES]
    if any(side_of(file.stem) == "train" for file in files):
        return Source("table", _by_side(file for file in files if side_of(file.stem)))
    folders = [each for each in inside if each.is_dir()]
    if folders and {side_of(each.name) for each in folders} <= {"train", "val", "test"}:
        return Source("images", _by_side(folders))
    if folders:
        return Source("images", {None: path})
    single = [file for file in inside if file.suffix.lower() in (*TABLES, ".npz")]
    if len(single) == 1:
        return _file(single[0])
    held = ", ".join(file.name for file in inside[:5]) or "nothing"
    raise ValueError(
        f"data must be {FORMATS}, or a folder with train.csv and test.csv, got {path}, which holds {held}"
    )


def _by_side(paths: Iterable[Path]) -> dict[Side | None, Path]:
    parts: dict[Side | None, Path] = {}
    for path in paths:
        side = side_of(path.stem)
        if side in parts:
            raise ValueError(f"data must have one part named {side}, got {parts[side]} and {path}")
        parts[side] = path
    if "train" not in parts:
        raise ValueError(f"data must have a part named train, got {_told(parts)}")
    if len(parts) == 1:
        return {None: parts["train"]}
    return {side: parts[side] for side in ("train", "val", "test") if side in parts}


def _told(parts: dict[Side | None, Path]) -> str:
    return " and ".join(path.name for path in parts.values())
