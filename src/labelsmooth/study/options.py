"""The options of an arm: each has a default and a rule, and reads itself from text."""

from dataclasses import dataclass

from labelsmooth.checks import UNIT, Interval

Value = float | str


@dataclass(frozen=True)
class Number:
    """A finite number; without a default it may be left out."""

    default: float | None
    within: Interval = UNIT

    @property
    def rule(self) -> str:
        return f"lie in {self.within}"

    def read(self, text: str) -> float:
        value = float(text)
        if not self.within.has(value):
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


Option = Number | Choice


def spelled(value: Value) -> str:
    """The one way a value is written: with every digit, and no more."""
    return value if isinstance(value, str) else repr(value).removesuffix(".0")
