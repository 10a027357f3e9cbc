"""The reliability diagram draws what was computed, where it is told to."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("matplotlib", reason="the pictures need it")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from labelsmooth.calibration import Reliability, ReliabilityDisplay, reliability


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 4, generator=generator)
    return logits, torch.where(torch.rand(500, generator=generator) < 0.3, 0, logits.argmax(-1))


@pytest.fixture
def ax() -> Axes:
    """Of a figure that pyplot does not know of."""
    return Figure().add_subplot()


def bars(ax: Axes) -> list[tuple[float, float, float]]:
    """Each bar's left, bottom and top."""
    rectangles = [p for p in ax.patches if isinstance(p, Rectangle)]
    return [(r.get_x(), r.get_y(), r.get_y() + r.get_height()) for r in rectangles]


def test_each_bin_with_rows_has_a_bar_a_gap_and_its_count(rows: tuple[Tensor, Tensor], ax: Axes):
    r = reliability(*rows)
    assert ReliabilityDisplay(r).plot(ax) is ax
    filled = [b for b in range(15) if r.count[b]]
    assert 0 < len(filled) < 15  # or the test would not see an empty bin drawn
    drawn = bars(ax)
    accuracy, gap = drawn[::2], drawn[1::2]
    for b, (left, bottom, top), (gap_left, gap_bottom, gap_top) in zip(filled, accuracy, gap, strict=True):
        assert (left, bottom, top) == pytest.approx((b / 15, 0, float(r.accuracy[b])))
        assert gap_left == left
        assert (gap_bottom, gap_top) == pytest.approx((float(r.accuracy[b]), float(r.confidence[b])))
    assert [text.get_text() for text in ax.texts] == [str(int(r.count[b])) for b in filled]


def test_the_diagonal_is_drawn(rows: tuple[Tensor, Tensor], ax: Axes):
    ReliabilityDisplay.from_logits(*rows).plot(ax)
    assert [[0, 0], [1, 1]] in [np.asarray(line.get_xydata()).tolist() for line in ax.lines]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence", "accuracy")


def test_too_sure_is_shaded_and_too_unsure_hatched(ax: Axes):
    count = torch.tensor([5.0, 5.0])
    ReliabilityDisplay(Reliability(count, torch.tensor([0.4, 0.6]), torch.tensor([0.2, 0.9]))).plot(ax)
    too_sure, too_unsure = ax.patches[1], ax.patches[3]
    assert (too_sure.get_hatch(), too_unsure.get_hatch()) == (None, "////")
    assert to_rgba(too_sure.get_facecolor())[3] > 0 == to_rgba(too_unsure.get_facecolor())[3]


def test_thousands_are_short(ax: Axes):
    full = torch.tensor([999.0, 1234.0])
    ReliabilityDisplay(Reliability(full, torch.tensor([0.4, 0.6]), torch.tensor([0.4, 0.6]))).plot(ax)
    assert [text.get_text() for text in ax.texts] == ["999", "1.2k"]


def test_from_logits_divides_by_the_temperature(rows: tuple[Tensor, Tensor]):
    logits, labels = rows
    display = ReliabilityDisplay.from_logits(logits, labels, temperature=2.5, num_bins=7)
    expected = reliability(logits / 2.5, labels, 7)
    assert display.reliability.count.tolist() == expected.count.tolist()
    assert display.reliability.ece == expected.ece != reliability(logits, labels, 7).ece


def test_pyplot_is_not_touched_when_an_axis_is_given(rows: tuple[Tensor, Tensor], ax: Axes):
    before = plt.get_fignums()
    ReliabilityDisplay.from_logits(*rows).plot(ax)
    assert plt.get_fignums() == before


def test_a_figure_is_made_when_no_axis_is_given(rows: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plt, "figure", lambda **size: Figure(**size))  # needs no window, and none stays open
    ax = ReliabilityDisplay.from_logits(*rows).plot()
    assert bars(ax)
    assert plt.get_fignums() == []
