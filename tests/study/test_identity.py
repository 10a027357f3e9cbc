"""Two fits that can give other numbers are told apart; one and the same is recognised."""

import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from labelsmooth.study import DigitsFit
from labelsmooth.study.trials.identity import identify

from .identity_cases import DIFFER, SAME
from .made_up import Log

pytestmark = pytest.mark.slow

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


def test_what_a_fit_wrote_into_a_list_is_part_of_it_unless_pickle_would_leave_it():
    log, kept = [0.1], Log([0.1])
    before = identify(closure(log)), identify(closure(kept))
    log.append(0.5)
    kept.append(0.5)
    assert identify(closure(log)) != before[0]
    assert identify(closure(kept)) == before[1]


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
print(len({identify(f) for f in (one, two, same, Fit(), Other())}), identify(same).digest)
"""
    prints = {
        subprocess.run([sys.executable, "-"], input=script, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    (printed,) = prints  # another process says the same
    assert printed.startswith("5 ")


ALL = """
import importlib, json, sys
from pathlib import Path
from labelsmooth.study.trials.identity import identify

found = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    sys.path.insert(0, str(folder))
    for name in ("fitting", "helpers", "house", "house.room", "house.cellar"):
        sys.modules.pop(name, None)
    importlib.invalidate_caches()
    found[folder.name] = identify(importlib.import_module("fitting").fit).digest
    del sys.path[0]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    """Of every case with 1 and with 2, from two processes that hash differently, in folders of their own."""
    found = []
    for seed in ("1", "2"):
        folder = tmp_path_factory.mktemp("cases")
        for case, modules in {**DIFFER, **SAME}.items():
            for x in "12":
                for name, text in (modules if isinstance(modules, dict) else {"fitting": modules}).items():
                    path = folder / f"{case}, {x}" / f"{name}.py"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text.replace("X", x))
        command = [sys.executable, "-c", ALL, str(folder)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        found.append(json.loads(done.stdout))
    return found[0], found[1]


Digests = tuple[dict[str, str], dict[str, str]]


@pytest.mark.parametrize("case", DIFFER)
def test_two_that_differ_are_told_apart(case: str, digests: Digests):
    here, there = digests
    assert here[f"{case}, 1"] != here[f"{case}, 2"]
    assert here[f"{case}, 1"] == there[f"{case}, 1"]
    assert here[f"{case}, 2"] == there[f"{case}, 2"]


@pytest.mark.parametrize("case", SAME)
def test_two_that_do_the_same_are_one(case: str, digests: Digests):
    here, there = digests
    assert here[f"{case}, 1"] == here[f"{case}, 2"] == there[f"{case}, 1"] == there[f"{case}, 2"]


def generator() -> Iterator[int]:
    yield 1


class Native:
    """As an extension's objects are."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle")


OPAQUE: dict[str, tuple[Callable[[], object], str]] = {
    "an open file": (Path(__file__).open, r"io.TextIOWrapper\)"),
    "a generator": (generator, r"generator\)"),
    "a thread": (threading.Thread, r"thread.lock\)"),
    "a lock": (threading.Lock, r"thread.lock\)"),
    "a loader at work": (lambda: iter(DataLoader(TensorDataset(torch.zeros(2)))), r"DataLoaderIter\)"),
    "an extension's": (Native, r"test_identity.Native\)"),
    "a script": (lambda: torch.jit.script(torch.nn.ReLU()), r"ScriptModule\)"),
    "a view": (lambda: memoryview(b"a"), r"memoryview\)"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("case", OPAQUE)
@pytest.mark.parametrize("make", MADE_FROM)
def test_what_cannot_be_compared_is_asked_about(case: str, make: str):
    value, kind = OPAQUE[case]
    with contextlib.ExitStack() as stack:
        opened = value()
        if isinstance(opened, contextlib.AbstractContextManager) and hasattr(opened, "close"):
            stack.enter_context(opened)
        rule = r"whose content cannot be compared: give study.run\(..., key='name of this version'\)$"
        with pytest.raises(ValueError, match=rf"^fit refers to .+ \(type .*{kind}, {rule}"):
            identify(MADE_FROM[make](opened))


class Singleton:
    """Told by its name alone."""

    def __reduce__(self) -> str:
        return "ONE"


def test_what_has_a_name_alone_is_asked_about(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(
        ValueError, match=r"variable x \(type .*Singleton, pickled by name only\), whose content"
    ):
        identify(closure(Singleton()))
    identify(closure(TypeVar("T")))
    kernels = types.ModuleType("kernels")
    kernels.__file__ = f"/home/me/kernels{EXTENSION_SUFFIXES[0]}"
    monkeypatch.setitem(sys.modules, "kernels", kernels)
    with pytest.raises(ValueError, match=r"^fit refers to kernels.Adam \(a compiled class\), whose content"):
        identify(closure(type("Adam", (), {"__module__": "kernels"})))


def test_it_says_by_which_name_what_cannot_be_compared_is_reached():
    with pytest.raises(ValueError, match=r"^fit refers to fit's variable x\['a'\]\[1\] \(type generator\), "):
        identify(closure({"a": (1, generator())}))
    with pytest.raises(ValueError, match=r"^fit refers to fit.rate \(type generator\), "):
        identify(Trainer(generator()))


def test_what_pickle_leaves_on_a_class_is_no_part_of_it():
    class Fit(Trainer):
        pass

    before = identify(Fit(0.1))
    Fit(0.1).__reduce_ex__(4)
    assert "__slotnames__" in vars(Fit)
    assert identify(Fit(0.1)) == before


def test_the_parts_are_by_name_and_short():
    fit = closure({"width": 64, "data": torch.zeros(3), "names": ["a"] * 100})
    parts = identify(fit).parts
    assert parts["fit's variable x['width']"] == "64"
    assert parts["fit's variable x['data']"].startswith("Tensor torch.float32 (3,) ")
    assert parts["fit"].startswith("code ")
    assert max(map(len, parts.values())) < 80


def test_what_refers_to_much_is_recognised_in_no_time():
    chain: object = None
    for _ in range(10_000):  # deeper than Python recurses
        chain = [chain, {}]
    start = time.process_time()
    assert identify(closure(chain)) == identify(closure(chain))
    identify(closure(torch.zeros(25_000_000)))
    assert time.process_time() - start < 5


def test_which_object_is_shared_says_nothing():
    one = [0, {}]
    assert identify(closure([one, one])) == identify(closure([[0, {}], [0, {}]]))
    cycle: list[object] = [{}]
    cycle.append(cycle)
    unrolled: list[object] = [{}, cycle]
    assert identify(closure(cycle)) == identify(closure(unrolled))
    assert identify(closure(cycle)) != identify(closure([{}, [{}, None]]))
