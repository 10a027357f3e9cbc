"""Two fits that can give other numbers are told apart; one and the same is recognised."""

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelsmooth.study import DigitsFit
from labelsmooth.study.trials.identity import identify

RATE = 0.1


def width() -> int:
    return 8


class Trainer:
    def __init__(self, rate: Any) -> None:
        self.rate = rate

    def __call__(self, criterion: Any, seed: int) -> Any:
        return self.rate

    def fit(self, criterion: Any, seed: int) -> Any:
        return self.rate


def closure(x: Any) -> Any:
    return lambda criterion, seed: x


def uses_rate(criterion: Any, seed: int) -> Any:
    return RATE


def uses_width(criterion: Any, seed: int) -> Any:
    return width()


# Everything a fit can refer to in place of an argument.
MADE_FROM = {
    "a closure": closure,
    "an object": Trainer,
    "a method": lambda x: Trainer(x).fit,
    "a partial": lambda x: functools.partial(closure(0), x),
    "a part of a part": lambda x: closure((0, {"x": closure(x)})),
}
PAIRS = {
    "numbers": (0.1, 0.2),
    "text": ("adam", "sgd"),
    "mappings": ({"rate": 1}, {"rate": 2}),
    "tuples": ((64, 64), (64, 32)),
    "tensors": (torch.zeros(2), torch.tensor([0.0, 1.0])),
    "short tensors": (torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)),
    "arrays": (np.zeros(2), np.zeros(3)),
    "nothing": (None, 0),
}


@pytest.mark.parametrize("make", MADE_FROM)
@pytest.mark.parametrize("pair", PAIRS)
def test_what_it_refers_to_tells_them_apart(make: str, pair: str):
    a, b = PAIRS[pair]
    assert identify(MADE_FROM[make](a)) != identify(MADE_FROM[make](b))
    assert identify(MADE_FROM[make](a)) == identify(MADE_FROM[make](a))


def test_globals_tell_them_apart(monkeypatch: pytest.MonkeyPatch):
    before = identify(uses_rate), identify(uses_width)
    monkeypatch.setitem(globals(), "RATE", 0.2)
    monkeypatch.setitem(globals(), "width", lambda: 16)
    assert identify(uses_rate) != before[0]
    assert identify(uses_width) != before[1]


def test_fields_tell_them_apart():
    assert identify(DigitsFit(rows=60)) != identify(DigitsFit(rows=61))
    assert identify(DigitsFit(rows=60)) == identify(DigitsFit(rows=60))


def test_a_list_to_write_into_does_not():
    log: list[float] = []
    fit = closure(log)
    before = identify(fit)
    log.append(0.5)
    assert identify(fit) == before


def test_what_refers_to_itself_has_an_end():
    trainer = Trainer(None)
    trainer.rate = trainer
    assert identify(trainer) == identify(trainer)


def test_without_a_source_the_code_tells_them_apart():
    script = """
from labelsmooth.study.trials.identity import identify
def one(criterion, seed): return 1
def two(criterion, seed): return 2
def same(criterion, seed): return [x + 1 for x in (1,)]
class Fit:
    def __call__(self, criterion, seed): return 3
class Other:
    def __call__(self, criterion, seed): return 4
print(len({identify(f) for f in (one, two, same, Fit(), Other())}), identify(same))
"""
    prints = {
        subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    (printed,) = prints  # another process says the same
    assert printed.startswith("5 ")


def test_another_process_says_the_same(tmp_path: Path):
    script = tmp_path / "fit.py"
    script.write_text(
        "from labelsmooth.study.trials.identity import identify\n"
        "CONFIG = {'rate': 0.1, 'sizes': (8, 8)}\n"
        "def model(): return CONFIG['sizes']\n"
        "def fit(criterion, seed): return model(), CONFIG['rate']\n"
        "print(identify(fit))\n"
    )
    prints = {
        subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(prints) == 1
