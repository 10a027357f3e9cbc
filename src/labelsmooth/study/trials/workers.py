"""The worker processes that train in parallel."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from typing import Any, Self

from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

WATCH = 0.5  # seconds between checks of the parent process
# One thread per worker: libraries read these variables when they are loaded.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "1",
)


class Pool:
    """Worker processes, each in its own pool, so that a killed worker does not affect the others.

    Each executor does one task at a time.
    """

    def __init__(self, workers: int | Executor) -> None:
        self._size = workers if isinstance(workers, int) else 1
        self._start = _start if isinstance(workers, int) else lambda: workers
        self._idle: list[Executor] = []
        self._busy: dict[Future[Any], Executor] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for executor in [*self._idle, *self._busy.values()]:
            _stop(executor)

    @property
    def is_full(self) -> bool:
        return len(self._busy) == self._size

    @property
    def is_empty(self) -> bool:
        return not self._busy

    def submit(self, function: Callable[..., Any], *args: Any) -> Future[Any]:
        executor = self._idle.pop() if self._idle else self._start()
        future = executor.submit(function, *args)
        self._busy[future] = executor
        return future

    def wait(self, seconds: float) -> Collection[Future[Any]]:
        """The tasks that have ended, after waiting for at most ``seconds``."""
        if not self._busy:
            time.sleep(seconds)
        ended = wait(self._busy, seconds, FIRST_COMPLETED).done
        for future in ended:
            executor = self._busy.pop(future)
            if was_killed(future):
                _stop(executor)
            else:
                self._idle.append(executor)
        return ended


class Here(Executor):
    """This process, as a pool."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def was_killed(future: Future[Any]) -> bool:
    """Whether a worker process was killed, for example for lack of memory."""
    return isinstance(future.exception(), BrokenProcessPool)


def _start() -> Executor:
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    executor = ProcessPoolExecutor(1, initializer=_prepare, initargs=(os.getpid(), method), env=ONE_THREAD)
    with deaf_workers():
        executor.submit(os.getpid)  # the first task starts the process
    return executor


def _stop(executor: Executor) -> None:
    if isinstance(executor, ProcessPoolExecutor):
        executor.shutdown(kill_workers=True)


def _prepare(parent: int, method: str) -> None:
    """In a new worker: end with the parent process, and use its start method for processes."""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    # loky sets its own start method, which other libraries do not support.
    multiprocessing.set_start_method(method, force=True)


@contextmanager
def deaf_workers() -> Iterator[None]:
    """Start processes that ignore Ctrl-C silently; this process receives it and stops them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
