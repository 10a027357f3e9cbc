"""Who is at work: a claim shows signs of life, and one that shows none is another's to take."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

BEAT = 5.0  # seconds between two signs of life
GRACE = 60.0  # without one for so long, the owner is taken for dead


def _place() -> str:
    """Where a process's number means something: a machine, and on Linux the container on it."""
    with suppress(OSError):
        return f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


PLACE = _place()


def owner() -> dict[str, object]:
    return {"place": PLACE, "pid": os.getpid(), "beat": 0}


class Watch:
    """Tells the dead from the living, by this machine's clock alone: those of others may differ."""

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
    if os.name != "posix":  # to ask for a process by a signal would end it
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
    """Call ``beat`` now and then, from a thread of its own."""
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
