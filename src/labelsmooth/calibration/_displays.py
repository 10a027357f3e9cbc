"""Reliability diagrams, drawn from computed metrics."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from labelsmooth.calibration._checks import Given, as_count, as_number, as_rows, check_finite
from labelsmooth.calibration._metrics import Reliability, group

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, RIGHT, WRONG = "#1f2933", "#2f6fb3", "#d9534f"


@dataclass
class ReliabilityDisplay:
    """A reliability diagram: accuracy against confidence, with the number of rows in each bin.

    A bar shows a bin's accuracy, the line across it the mean confidence, and the area between them the gap:
    red if the model is over-confident, hatched blue if it is under-confident.

    Example:
        >>> import torch
        >>> logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])
        >>> display = ReliabilityDisplay.from_logits(logits, labels)
        >>> ax = display.plot()  # doctest: +SKIP
    """

    reliability: Reliability

    @classmethod
    def from_logits(
        cls,
        logits: Given,
        labels: Given,
        *,
        temperature: float = 1.0,
        num_bins: int = 15,
        ignore_index: int | None = -100,
    ) -> ReliabilityDisplay:
        """The diagram of logits, divided by a ``temperature`` that is finite and above 0.

        The other arguments are those of :func:`reliability`.

        Raises:
            ValueError: as :func:`reliability` does, or if ``temperature`` is not such a number.
        """
        divisor, num_bins = as_number("temperature", temperature), as_count("num_bins", num_bins)
        rows = as_rows(logits, labels, ignore_index)
        # At least float32, since a division in half precision would round again.
        longer = rows.logits.to(torch.promote_types(rows.logits.dtype, torch.float32))
        scaled = replace(rows, logits=longer / divisor)
        check_finite(scaled, masked=True)
        return cls(group(scaled, num_bins))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw into ``ax``, or a new figure."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure(figsize=(4.2, 4.2)).add_subplot()
        r, num_bins = self.reliability, len(self.reliability.count)
        width = 1 / num_bins
        most = float(r.count.max())
        for b in range(num_bins):
            count = int(r.count[b])
            if not count:
                continue
            left, acc, conf = b * width, float(r.accuracy[b]), float(r.confidence[b])
            # Bars of few rows are pale, since they add little to the ECE and are noisy.
            strength = 0.25 + 0.75 * (count / most) ** 0.5
            ax.bar(left, acc, width * 0.94, align="edge", color=RIGHT, alpha=0.75 * strength, linewidth=0)
            over = conf > acc
            ax.bar(
                left,
                conf - acc,
                width * 0.94,
                bottom=acc,
                align="edge",
                color=WRONG if over else "none",
                alpha=0.55 * strength if over else strength,
                hatch=None if over else "////",
                edgecolor="none" if over else "white",
                linewidth=0,
            )
            ax.plot([left, left + width * 0.94], [conf, conf], color=INK, linewidth=1.2, alpha=strength)
            ax.text(
                left + width * 0.47,
                max(acc, conf) + 0.012,
                f"{count}" if count < 1000 else f"{count / 1000:.1f}k",
                ha="center",
                va="bottom",
                fontsize=6.5,
                color=INK,
            )
        ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.set(xlim=(0, 1), ylim=(0, 1.06), xlabel="confidence", ylabel="accuracy", aspect="equal")
        ax.spines[["top", "right"]].set_visible(False)
        return ax
