"""The options of an arm, with their defaults, rules and parsers."""

from dataclasses import dataclass
from typing import Any

from labelsmooth._core.checks import UNIT, Interval

Value = float | str


class Above(Interval):
    """Whether the interval excludes its lower end."""

    def has(self, x: Any) -> Any:
        return (x > self.low) & super().has(x)

    def __str__(self) -> str:
        return f"({super().__str__()[1:]}"


@dataclass(frozen=True)
class Number:
    """A finite number; without a default it is optional."""

    default: float | None
    within: Interval = UNIT

    @property
    def rule(self) -> str:
        return f"be a number in {self.within}"

    def __str__(self) -> str:
        return f"in {self.within}"

    def read(self, text: str) -> float:
        value = float(text)
        if not self.within.has(value):
            raise ValueError
        return value


@dataclass(frozen=True)
class Choice:
    """One of a few words; the default is the first."""

    among: tuple[str, ...]

    @property
    def default(self) -> str:
        return self.among[0]

    @property
    def rule(self) -> str:
        return f"be one of {', '.join(self.among)}"

    def __str__(self) -> str:
        return f"or {', '.join(self.among[1:])}"

    def read(self, text: str) -> str:
        if text not in self.among:
            raise ValueError
        return text


Option = Number | Choice


def spelled(value: Value) -> str:
    """The canonical text of a value: the shortest that reads back to it."""
    return value if isinstance(value, str) else repr(value).removesuffix(".0")
