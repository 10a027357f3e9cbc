"""Whether to compute a gradient in the forward pass, where it is cheapest: while its row is in the cache.

The gradient has to include the factor that the backward pass brings, such as 1, the share of a micro-batch or
the scale of a loss scaler. Most training loops bring the same factor in every step; it is learnt here. A
gradient that was computed with another factor is computed again.
"""

from collections.abc import Hashable
from typing import Final

MOST: Final = 64
"""The largest number of kinds of calls that are told apart."""


class Habit:
    """The backward passes of one kind of calls: their last factor, and whether to expect it again."""

    factor = 1.0
    steady = True  # the last two factors were the same
    awaited = False  # a gradient was computed ahead, and no backward pass has come since

    def expected(self) -> float | None:
        """The factor that the next backward pass is expected to bring, or None."""
        if not self.steady or self.awaited:
            return None
        self.awaited = True
        return self.factor

    def came(self, factor: float) -> None:
        """A backward pass came with this factor."""
        self.steady, self.factor, self.awaited = factor == self.factor, factor, False


_habits: dict[Hashable, Habit] = {}


def habit(kind: Hashable) -> Habit:
    found = _habits.get(kind)
    if found is None:
        if len(_habits) >= MOST:
            _habits.clear()
        found = _habits[kind] = Habit()
    return found
