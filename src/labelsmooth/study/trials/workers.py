"""The processes that train side by side."""

import signal
import threading
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager


@contextmanager
def deaf_workers() -> Iterator[None]:
    """Processes started in here do not hear Ctrl-C: this one does, and stops them, and they print nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def closing(generator: Generator[object]) -> Iterator[None]:
    """Stop what is still running at the end, and spare the reader joblib's warning that it was."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            generator.close()
