"""Conversion of labels to classes."""

from collections.abc import Callable, Sequence
from math import isfinite

QUANTITY = 20  # more distinct fractions are a continuous target, not classes


def classes(labels: Sequence[str], ordinal: bool, place: Callable[[int], str]) -> list[str]:
    """The classes in numerical order, if they are integers or ordinal, or else in alphabetical order.

    Raises:
        ValueError: if there are fewer than two classes, or too many, or ordinal labels are not numbers.
    """
    names = set(labels)
    if len(names) < 2:
        raise ValueError(f"labels must be of two classes or more, got {min(names)!r} in every row")
    if len(names) > len(labels) / 2:
        raise ValueError(
            f"labels must be classes with several rows each, got {len(names)} different labels in "
            f"{len(labels)} rows: name another column if this one is a quantity or an identifier"
        )
    if (
        ordinal
        and (odd := next((i for i, name in enumerate(labels) if _number(name) is None), None)) is not None
    ):
        raise ValueError(f"ordinal labels must be numbers, got {labels[odd]!r} in {place(odd)}")
    if all(_number(name) is not None for name in names):
        if len(names) > QUANTITY and not all(_is_whole(name) for name in names):
            raise ValueError(
                f"labels must be classes, got {len(names)} different fractions such as "
                f"{min(names)}: that is a continuous target; cut it into ranges first"
            )
        return sorted(names, key=lambda name: (float(name), name))
    return sorted(names)


def _number(name: str) -> float | None:
    try:
        value = float(name)
    except ValueError:
        return None
    return value if isfinite(value) else None


def _is_whole(name: str) -> bool:
    return float(name).is_integer()
