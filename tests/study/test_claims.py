"""Who may train what: each job is one process's at a time, and that of a dead one is free."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import RDBStorage
from sqlalchemy.exc import OperationalError

from labelsmooth.study.trials import claims
from labelsmooth.study.trials.files import Job, save

from . import made_up
from .made_up import bare, ledger

JOB = Job("ls:eps=0.1", 3)


def test_of_two_that_claim_a_job_one_may_train_it(tmp_path: Path):
    first, second = ledger(tmp_path), ledger(tmp_path)
    assert first.claim(JOB)
    assert not second.claim(JOB)
    assert second.held() == {JOB}
    assert first.held() == set()
    assert second.claim(Job("hard", 0))
    first.give_up()
    assert second.claim(JOB)


def test_of_two_that_claim_a_job_at_the_same_moment_the_first_may_train_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first, second = ledger(tmp_path), ledger(tmp_path)
    second.open()
    create = RDBStorage.create_new_trial
    answers = []

    def create_and_be_late(self: RDBStorage, *args: Any, **options: Any) -> int:
        trial = create(self, *args, **options)
        monkeypatch.setattr(RDBStorage, "create_new_trial", create)
        answers.append(second.claim(JOB))  # between the first one's claim and its look at the others'
        return trial

    def create_too_late(self: RDBStorage, *args: Any, **options: Any) -> int:
        monkeypatch.setattr(RDBStorage, "create_new_trial", create)
        answers.append(second.claim(JOB))  # between the first one's look and its claim
        return create(self, *args, **options)

    for late, firsts, seconds in ((create_and_be_late, True, False), (create_too_late, False, True)):
        answers.clear()
        monkeypatch.setattr(RDBStorage, "create_new_trial", late)
        assert (first.claim(JOB), answers) == (firsts, [seconds])
        first.give_up()
        second.give_up()


def test_the_claim_of_a_process_that_is_gone_is_free_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: gone.pid)
        patched.setattr(claims, "_is_alive", lambda pid: True)
        assert ledger(tmp_path).claim(JOB)
    assert ledger(tmp_path).claim(JOB)


def test_the_claim_of_another_machine_is_free_when_it_shows_no_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = [0.0]
    monkeypatch.setattr("labelsmooth.study.trials.claims.time.monotonic", lambda: now[0])
    monkeypatch.setattr(claims, "PLACE", "another")
    far = ledger(tmp_path)
    assert far.claim(JOB)
    monkeypatch.setattr(claims, "PLACE", "here")
    near = ledger(tmp_path)
    for _ in range(3):  # alive for longer than one that shows no life
        assert near.held() == {JOB}
        now[0] += 0.6 * claims.GRACE
        far.beat()
    assert not near.claim(JOB)
    now[0] += 1.1 * claims.GRACE
    assert near.claim(JOB)
    # It lives after all: what it has trained counts, and nothing of it is counted twice.
    far.beat()
    save(far.path(JOB), bare(made_up.hard(), 3))
    far.finish(JOB, 0.5)
    assert near.read(JOB)
    near.finish(JOB, 0.5)


def test_what_another_machine_has_trained_must_be_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr("labelsmooth.study.trials.ledger.time.monotonic", lambda: now[0])
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    far, near = (ledger(tmp_path / name, storage=storage) for name in ("far", "near"))
    assert far.claim(JOB)
    assert near.held() == {JOB}
    save(far.path(JOB), bare(made_up.hard(), 3))
    far.finish(JOB, 0.5)
    assert not near.claim(JOB)  # its file may take a while to show
    now[0] += 100
    with pytest.raises(
        ValueError, match=f"output must be a folder that every process sees, got {near.folder.parents[1]}"
    ):
        near.claim(JOB)


def test_what_failed_is_told_to_those_at_work_and_tried_again_by_those_to_come(tmp_path: Path):
    first, second = ledger(tmp_path), ledger(tmp_path)
    second.open()
    assert first.claim(JOB)
    first.fail(JOB, "no data")
    assert second.failures() == {JOB: "no data"}
    third = ledger(tmp_path)
    third.open()
    assert third.failures() == {}


def test_a_database_whose_tables_another_process_makes_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tries = []

    def create(*args: Any) -> RDBStorage:
        tries.append(args)
        if len(tries) < 3:
            raise OperationalError("CREATE TABLE studies", None, Exception("table studies already exists"))
        return RDBStorage(*args)

    monkeypatch.setattr("labelsmooth.study.trials.ledger.RDBStorage", create)
    assert ledger(tmp_path).claim(JOB)
    assert len(tries) == 3
