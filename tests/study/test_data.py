"""The split is the same everywhere, and flips are what they are said to be."""

import hashlib
import subprocess
import sys

import pytest
import torch

from labelsmooth.study.data.digits import Digits, digits, draw

CHECKSUM = """
import hashlib
from labelsmooth.study.data.digits import digits
d = digits()
for x, y in (d.pool, d.val, d.test):
    print(hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest())
"""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def keys(split: tuple[torch.Tensor, torch.Tensor]) -> list[tuple[float, ...]]:
    """Each row as something to compare, its label included."""
    x, y = split
    return [(*row, label) for row, label in zip(x.tolist(), y.tolist(), strict=True)]


def test_the_split_is_disjoint_and_exhaustive():
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    d = digits()
    assert [len(x) for x, _ in (d.pool, d.val, d.test)] == [800, 297, 700]
    # No two images of the set are equal, so each row is counted once or the test sees it.
    every = [key for split in (d.pool, d.val, d.test) for key in keys(split)]
    images, labels = load_digits(return_X_y=True)
    whole = [(*row, label) for row, label in zip((images / 16).tolist(), labels.tolist(), strict=True)]
    assert len(set(whole)) == 1797
    assert sorted(every) == sorted(whole)


def test_pixels_lie_in_the_unit_interval_and_every_class_is_everywhere():
    for x, y in (digits().pool, digits().val, digits().test):
        assert (x.min(), x.max()) == (0, 1)
        assert sorted(set(y.tolist())) == list(range(10))


@pytest.mark.slow
def test_another_process_splits_alike():
    printed = subprocess.run([sys.executable, "-c", CHECKSUM], capture_output=True, text=True, check=True)
    d: Digits = digits()
    here = [
        hashlib.sha256(x.numpy().tobytes() + y.numpy().tobytes()).hexdigest()
        for x, y in (d.pool, d.val, d.test)
    ]
    assert printed.stdout.split() == here


# No flip, few, an odd share, all; a pool used up.
@pytest.mark.parametrize(
    ("rows", "flipped", "flips"), [(100, 0.0, 0), (100, 0.2, 20), (7, 0.5, 4), (800, 0.2, 160), (50, 1.0, 50)]
)
def test_draw_flips_exactly_the_share_it_is_given(rows: int, flipped: float, flips: int):
    train = draw(digits().pool, rows, flipped, generator())
    assert train.x.shape == (rows, 64)
    # shift 1 to 9: a flipped label is never the true one
    assert int((train.labels != train.clean).sum()) == flips
    assert 0 <= int(train.labels.min()) <= int(train.labels.max()) <= 9


def test_draw_takes_rows_of_the_pool_once_with_their_labels():
    train = draw(digits().pool, 800, 0.3, generator())
    assert sorted(keys((train.x, train.clean))) == sorted(keys(digits().pool))


def test_flips_go_to_every_other_class():
    pool = (torch.zeros(5000, 1), torch.arange(5000) % 5)
    train = draw(pool, 5000, 1.0, generator())
    shifts = ((train.labels - train.clean) % 5).bincount(minlength=5).tolist()
    assert shifts[0] == 0
    assert min(shifts[1:]) > 1250 - 5 * 31  # each expected 1250 times, give or take 31


def test_the_seed_decides_which_rows_and_which_flips():
    first, same, other = (draw(digits().pool, 100, 0.2, generator(seed)) for seed in (1, 1, 2))
    for a, b in zip(vars(first).values(), vars(same).values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.x, other.x)
    # The rows are the same whatever is flipped: smoothing is compared at each level of noise on the same.
    assert torch.equal(draw(digits().pool, 100, 0.0, generator(1)).x, first.x)
