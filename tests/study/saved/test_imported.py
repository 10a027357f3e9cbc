"""A fit by its name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from labelsmooth.study import load_fit

MODULE = """
import labelsmooth

def fit(criterion, seed):
    return "a function"

class Fit:
    def __init__(self, rows=3):
        self.rows = rows

    def __call__(self, criterion, seed):
        return f"a class of {self.rows}"

class Needy:
    def __init__(self, rows):
        pass

def few(criterion):
    pass

small = Fit(1)
number = 3
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a module, which is forgotten afterwards."""
    (tmp_path / "my_train.py").write_text(MODULE)
    (tmp_path / "broken_train.py").write_text("import no_such_package")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "json.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        ("my_train:fit", "a function"),
        ("my_train.py:fit", "a function"),
        ("./my_train.py:fit", "a function"),
        ("my_train:Fit", "a class of 3"),
        ("my_train:small", "a class of 1"),
    ],
)
def test_a_fit_is_a_function_a_class_or_an_object(name: str, returned: str):
    fit = load_fit(name)
    assert fit(None, 0) == returned  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_train", r"^fit must be module:function or file\.py:function, as in train:fit, got 'my_train'$"),
        ("my_train:", "fit must be module:function"),
        ("my_train:fti", r"^my_train has no 'fti': did you mean 'fit'\?$"),
        ("my_trian:fit", r"^module 'my_trian' is neither in .* nor installed: did you mean 'my_train'\?$"),
        ("my_trian.py:fit", r"^file my_trian\.py does not exist: did you mean '\.?/?my_train\.py'\?$"),
        ("broken_train:fit", r"^broken_train imports 'no_such_package', which is not installed$"),
        ("inner/json.py:fit", r"^inner/json\.py has the name of another module, .*: rename it$"),
        ("my_train:number", r"^my_train:number must be a function fit\(criterion, seed\), got int$"),
        ("my_train:Needy", r"^my_train:Needy is a class and must take no arguments \(missing .* 'rows'\)"),
        ("my_train:few", r"^my_train:few must take \(criterion, seed\): too many positional arguments$"),
    ],
)
def test_what_is_no_fit(name: str, message: str):
    with pytest.raises(ValueError, match=message):
        load_fit(name)
