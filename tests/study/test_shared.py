"""Several processes share a study, and some are killed: each job is trained once, and nothing is lost."""

import getpass
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .shared import CONTEXT, JOBS, Note, Shared, has_ended

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc"),
]


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> str | None:
    """None, for a file in the folder, or the address of a server."""
    return request.getfixturevalue("postgres") if request.param == "postgres" else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server of its own, which may not run as root."""
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL")
    found = [shutil.which("pg_ctl"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))]
    command = next(filter(None, found), None)
    if command is None:
        pytest.skip("no PostgreSQL is installed")
    user = "postgres" if os.getuid() == 0 else getpass.getuser()
    with tempfile.TemporaryDirectory() as folder:
        shutil.chown(folder, user)

        def control(*args: str) -> None:
            subprocess.run(
                [command, "-D", f"{folder}/data", *args],
                user=user if os.getuid() == 0 else None,
                check=True,
                cwd=folder,
                stdout=subprocess.DEVNULL,
            )

        control("init", "-o", "-A trust -U tester --no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        control("start", "-w", "-o", options, "-l", f"{folder}/log")
        try:
            yield f"postgresql+psycopg://tester@/postgres?host={folder}"
        finally:
            control("stop", "-m", "immediate")


@pytest.mark.parametrize("storage", ["file", "postgres"], indirect=True)
def test_machines_share_the_jobs_and_take_over_those_of_one_that_is_killed(
    storage: str | None, tmp_path: Path
):
    shared = Shared(tmp_path, storage)
    machines = [shared.start(place=place) for place in ("a", "b", "c")]
    shared.wait_for(begun=random.randint(2, 5))
    time.sleep(random.uniform(0, 0.3))
    killed = machines.pop(random.randrange(3))
    killed.kill()
    assert len({shared.answer(machine) for machine in machines}) == 1
    assert shared.whole == JOBS
    assert shared.begun.keys() == JOBS
    assert shared.begun.total() <= len(JOBS) + 1
    assert len({note.pid for note in shared.notes}) >= 2
    for job in JOBS:
        assert_one_at_a_time([note for note in shared.notes if note.job == job])


def assert_one_at_a_time(notes: list[Note]) -> None:
    """What is begun is ended before another begins it, or by nobody: its process was killed."""
    for before, after in itertools.pairwise(notes):
        if after.what == "end":
            assert before == after._replace(what="begin")
        else:
            assert before.what == "begin"
            assert has_ended(before.pid)


@pytest.mark.parametrize("storage", ["file", "postgres"], indirect=True)
def test_four_starts_at_once_on_nothing(storage: str | None, tmp_path: Path):
    shared = Shared(tmp_path, storage, seconds=0)
    start = CONTEXT.Barrier(4)
    processes = [shared.start(start=start, seeds=2) for _ in range(4)]
    assert len({shared.answer(process) for process in processes}) == 1
    assert set(shared.begun.values()) == {1}


def test_whatever_signal_comes_when_workers_end_and_what_is_done_stays(tmp_path: Path):
    shared = Shared(tmp_path, None)
    kept = {}
    numbers = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
    for number in (*numbers, None):
        study = shared.start(workers=2)
        if number is not None:
            shared.wait_for(shared.begun.total() + random.randint(1, 2))
            time.sleep(random.uniform(0, 0.3))
            os.kill(study.pid or 0, number)
        printed = shared.printed(study)
        assert (study.exitcode == 0) == (number is None), printed
        time.sleep(1.5)
        assert all(has_ended(note.pid) for note in shared.notes), f"a worker went on after {number}"
        # What had a file before was not begun again.
        assert all(shared.begun[job] == times for job, times in kept.items())
        kept = {job: shared.begun[job] for job in shared.whole}
    assert kept.keys() == JOBS
    assert len(JOBS) <= shared.begun.total() <= len(JOBS) + 2 * len(numbers)
    assert not [*shared.folder.glob("trials/*/*.partial")]
