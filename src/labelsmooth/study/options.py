"""The options of an arm: each has a default, a type and a rule, and reads itself from text."""

import math
from dataclasses import dataclass

Value = float | int | str


@dataclass(frozen=True)
class Number:
    """A number in ``[low, high]``; without a default it may be left out."""

    default: float | None
    low: float = -math.inf
    high: float = math.inf

    @property
    def rule(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "be a finite number"
        if math.isinf(self.high):
            return f"be at least {self.low:g}"
        return (
            f"be at most {self.high:g}" if math.isinf(self.low) else f"lie in [{self.low:g}, {self.high:g}]"
        )

    def read(self, text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not self.low <= value <= self.high:
            raise ValueError
        return value


@dataclass(frozen=True)
class Whole:
    """A whole number from ``low``."""

    default: int
    low: int = 0

    @property
    def rule(self) -> str:
        return f"be a whole number, at least {self.low}"

    def read(self, text: str) -> int:
        value = int(text)
        if value < self.low:
            raise ValueError
        return value


@dataclass(frozen=True)
class Choice:
    """One of a few words, the first unless given."""

    among: tuple[str, ...]

    @property
    def default(self) -> str:
        return self.among[0]

    @property
    def rule(self) -> str:
        return f"be one of {', '.join(self.among)}"

    def read(self, text: str) -> str:
        if text not in self.among:
            raise ValueError
        return text


Option = Number | Whole | Choice


def spelled(value: Value) -> str:
    """The one way a value is written: with every digit, and no more."""
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
