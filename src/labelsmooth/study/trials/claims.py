"""Heartbeats of claims: a claim without a heartbeat can be taken over."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

BEAT = 5.0  # seconds between heartbeats
GRACE = 60.0  # seconds without a heartbeat after which the owner is considered dead


def _place() -> str:
    """The scope of process ids: the machine, and on Linux the container."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


PLACE = _place()


def owner() -> dict[str, object]:
    return {"place": PLACE, "pid": os.getpid(), "beat": 0}


class Watch:
    """Detects dead owners by this machine's clock only, since the clocks of machines may differ."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[object, float]] = {}

    def is_dead(self, claim: int, owner: Mapping[str, object]) -> bool:
        pid, beat, now = owner.get("pid"), owner.get("beat"), time.monotonic()
        if owner.get("place") == PLACE and isinstance(pid, int) and not _is_alive(pid):
            return True
        before, since = self._seen.get(claim, (None, now))
        if claim not in self._seen or before != beat:
            self._seen[claim] = beat, now
            return False
        return now - since > GRACE


def _is_alive(pid: int) -> bool:
    if os.name != "posix":  # the signal that tests for a process would end it
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call ``beat`` periodically in a thread."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(BEAT):
            beat()

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
