"""What the tests of the study share: a database that does not wait, and one small study that is finished."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, event

from labelsmooth.study import Results, run

from . import made_up

# Regular expressions; a colon would end one.
SMALL = ("seeds=2. intervals from 2 pairs", ".*fit's 'val' has 30 rows, too few")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The studies here are as small as can be, which they are warned of."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for said in SMALL:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{said}:UserWarning"))


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """SQLite need not survive a power cut here; waiting for the disk takes longer than the studies."""

    def hasten(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA journal_mode = MEMORY")

    event.listen(Engine, "connect", hasten)
    yield
    event.remove(Engine, "connect", hasten)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A study of three settings with names like no other, complete with its report; not to be written to."""
    folder: Path = tmp_path_factory.mktemp("finished")
    fits = {name: made_up.LinearFit(steps=2 + i) for i, name in enumerate(made_up.HOSTILE_NAMES)}
    return run(fits, eps=[0.1, 0.3], seeds=2, output=folder, progress=False)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures, which take longer than all else."""

    def write_nothing(results: Results, *_: object) -> None:
        (results.folder / "report.html").write_text("left out")

    monkeypatch.setattr("labelsmooth.study.report.page.write_report", write_nothing)
