"""Several processes that share one study, and what their fits write down."""

import multiprocessing
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, NamedTuple

from labelsmooth.study import run
from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.report import page
from labelsmooth.study.trials import claims, loop

from .made_up import bare

EPS = [0.1, 0.2]
JOBS = {(eps, seed) for eps in (0.0, *EPS) for seed in range(3)}
PATIENCE = 120  # seconds
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])  # which imports torch once, for all of them


@dataclass(frozen=True)
class NotedFit:
    """The bare fit, which takes a while and writes down when it begins and ends."""

    log: str
    seconds: float

    def __call__(self, criterion: Criterion, seed: int) -> FitResult:
        self._note("begin", criterion, seed)
        time.sleep(self.seconds)
        result = bare(criterion, seed)
        self._note("end", criterion, seed)
        return result

    def _note(self, what: str, criterion: Criterion, seed: int) -> None:
        smoothing = getattr(criterion.loss, "label_smoothing", 0)
        with Path(self.log).open("a") as log:  # a short write at the end: whole, whoever else writes
            log.write(f"{what} {smoothing} {seed} {os.getpid()}\n")


class Note(NamedTuple):
    what: str
    job: tuple[float, int]
    pid: int


def study(
    fit: NotedFit, printed: str, place: str | None, start: Barrier | None, options: dict[str, Any]
) -> None:
    """What a process does; of a place of its own, others cannot ask whether it lives."""
    descriptor = os.open(printed, os.O_WRONLY | os.O_CREAT)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    claims.BEAT, claims.GRACE, loop.LOOK = 0.2, 5.0, 0.1
    claims.PLACE = place or claims.PLACE
    page.write_report = lambda results, *_: (results.folder / "report.html").write_text("left out")
    if start is not None:
        start.wait(PATIENCE)
    results = run(fit, **options)
    sys.stdout.write(f"ANSWER {results}")


class Shared:
    def __init__(self, folder: Path, storage: str | None, seconds: float = 0.3) -> None:
        self.folder = folder / "study"
        self._log = folder / "log"
        self._log.touch()
        self._fit = NotedFit(str(self._log), seconds)
        self._options = {"output": self.folder, "storage": storage, "eps": EPS, "seeds": 3}
        self._printed: dict[int | None, Path] = {}

    def start(
        self, place: str | None = None, start: Barrier | None = None, **options: Any
    ) -> ForkServerProcess:
        printed = self._log.with_name(f"printed-{len(self._printed)}")
        given = self._fit, str(printed), place, start, {**self._options, **options}
        process = CONTEXT.Process(target=study, args=given)
        process.start()
        self._printed[process.pid] = printed
        return process

    def printed(self, process: ForkServerProcess) -> str:
        """What a process has printed when it has ended."""
        process.join(PATIENCE)
        return self._printed[process.pid].read_text()

    def answer(self, process: ForkServerProcess) -> str:
        printed = self.printed(process)
        assert process.exitcode == 0, printed
        return printed.split("ANSWER ")[1]

    @property
    def notes(self) -> list[Note]:
        lines = map(str.split, self._log.read_text().splitlines())
        return [Note(what, (float(eps), int(seed)), int(pid)) for what, eps, seed, pid in lines]

    @property
    def begun(self) -> Counter[tuple[float, int]]:
        return Counter(note.job for note in self.notes if note.what == "begin")

    @property
    def whole(self) -> set[tuple[float, int]]:
        """The jobs that have a file."""
        names = [path.stem for path in self.folder.glob("trials/*/*.safetensors")]
        parts = [name.removeprefix("ls-eps=").replace("hard", "0").split("-seed") for name in names]
        return {(float(eps), int(seed)) for eps, seed in parts}

    def wait_for(self, begun: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.begun.total() < begun:
            assert time.monotonic() < deadline, [path.read_text() for path in self._printed.values()]
            time.sleep(0.02)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
