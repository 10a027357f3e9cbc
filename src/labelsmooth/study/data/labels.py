"""From labels as they are written to classes."""

from collections.abc import Callable, Sequence
from math import isfinite

QUANTITY = 20  # so many different fractions are measured, not chosen


def classes(labels: Sequence[str], ordinal: bool, place: Callable[[int], str]) -> list[str]:
    """The classes in order: of their numbers, where they are whole numbers or ordinal, or of the alphabet.

    Raises:
        ValueError: if there are fewer than two, or too many, or ordinal ones are no numbers.
    """
    names = set(labels)
    if len(names) < 2:
        raise ValueError(f"labels must be of two classes or more, got {min(names)!r} in every row")
    if len(names) > len(labels) / 2:
        raise ValueError(
            f"labels must be classes with rows in common, got {len(names)} different ones in {len(labels)} "
            "rows: a quantity, or a name of each row?"
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
                f"{min(names)}: that is a quantity to predict, not a class; cut it into ranges first"
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
