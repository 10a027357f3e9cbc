"""What a study makes of a fit it recognises, and of one it does not or cannot, before it trains."""

import json
from pathlib import Path
from typing import Any

import pytest

from labelsmooth.study.trials.changes import differences, keep, why_anew

from .made_up import Log, bare, counted, study

pytestmark = pytest.mark.usefixtures("no_report")


def opaque() -> tuple[Any, list[int]]:
    """A fit that refers to a generator, and the seeds it was called with."""
    calls: list[int] = Log()
    rows = (i for i in range(3))

    def fit(criterion: Any, seed: int) -> Any:
        calls.append(seed)
        return bare(criterion, seed + len([*rows]))

    return fit, calls


def test_what_cannot_be_compared_is_asked_about_before_it_is_trained(tmp_path: Path):
    fit, calls = opaque()
    with pytest.raises(
        ValueError, match=r"^mine: fit refers to fit's variable rows \(type generator\), .*key="
    ):
        study({"mine": fit, "other": bare}, tmp_path / "new")
    assert calls == []
    assert not (tmp_path / "new").exists()
    with pytest.raises(
        ValueError, match=r"settings refers to settings\['a'\]\[0\].*: give a string that names it"
    ):
        study(bare, tmp_path / "new", settings={"a": opaque()})


@pytest.mark.slow
@pytest.mark.parametrize("key", ["one", {"your data": "one"}])
def test_a_key_alone_says_which_fit_it_is(key: Any, tmp_path: Path):
    fit, calls = opaque()
    first = study(fit, tmp_path, key="one")
    assert len(calls) == 4
    another, calls = opaque()
    assert study(another, tmp_path, key=key) == first
    other_fit, others = counted()
    assert study(other_fit, tmp_path, key=key) == first
    assert calls == others == []
    study(other_fit, tmp_path, key="two")
    study(other_fit, tmp_path, key="one", settings={"data": 2})
    assert len(others) == 8


@pytest.mark.slow
def test_a_key_may_be_for_one_fit_of_many(tmp_path: Path):
    fit, calls = opaque()
    study({"mine": fit, "other": bare}, tmp_path, key={"mine": "one"})
    calls.clear()
    study({"mine": fit, "other": lambda c, s: bare(c, s)}, tmp_path, key={"mine": "one"})
    assert calls == []


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "key must be a string, or strings by the names of fits, got ''"),
        (3, "key must be a string, or strings by the names of fits, got 3"),
        ({"mine": None}, "key must be a string, or strings by the names of fits, got None"),
        ({"yours": "a"}, "key must be by the names of fits, mine, got 'yours'"),
    ],
)
def test_a_key_that_is_none_is_named(key: Any, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        study({"mine": bare}, tmp_path / "new", key=key)
    assert not (tmp_path / "new").exists()


def with_width(width: int) -> Any:
    def fit(criterion: Any, seed: int, width: int = width) -> Any:
        return bare(criterion, seed + width)

    return fit


@pytest.mark.slow
def test_it_says_why_it_trains_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    study(with_width(32), tmp_path, progress=True)
    assert "trained again" not in capfd.readouterr().err
    study(with_width(64), tmp_path, check_deterministic=True, progress=True)
    said = "your data: training again, since fit's default width changed from 32 to 64\n"
    assert capfd.readouterr().err.startswith(said)
    # Another setting, whose name begins alike, and one that goes on, are not trained again.
    study({"your data too": with_width(64)}, tmp_path, progress=True)
    study(with_width(64), tmp_path, seeds=3, progress=True)
    assert "trained again" not in capfd.readouterr().err
    study(with_width(64), tmp_path, settings={"data": "new"}, key="a", progress=True)
    said = "settings['data'] was added, key was added, fit was removed and "
    assert said in capfd.readouterr().err


@pytest.mark.slow
def test_what_was_recognised_is_kept(tmp_path: Path):
    study(with_width(32), tmp_path, settings={"data": 3})
    (path,) = tmp_path.glob("trials/*/fit.json")
    kept = json.loads(path.read_text())
    assert kept["fit's default width"] == "32"
    assert kept["settings['data']"] == "3"
    assert {"Python", "torch", "labelsmooth", "fit"} < kept.keys()


def test_changes_are_told_in_words_and_three_at_most(tmp_path: Path):
    assert differences({"a": "code 1", "b": "1"}, {"a": "code 2", "c": "1"}) == [
        "the code of a changed",
        "c was added",
        "b was removed",
    ]
    now = tmp_path / "a-2"
    assert why_anew(now, {}) is None
    keep(tmp_path / "a-1", {"a": "1", "b": "1", "c": "1", "d": "1", "e": "1"})
    said = "a changed from 1 to 2, b changed from 1 to 2, c changed from 1 to 2 and 2 more"
    assert why_anew(now, dict.fromkeys("abcde", "2")) == said
    assert why_anew(now, {"a": "1", "b": "1", "c": "1", "d": "1", "e": "1"}) == (
        "the order of what fit refers to changed"
    )
