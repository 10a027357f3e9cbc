"""A line for each run that was trained, in a file that stays."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.training import Summary

FILE = "study.log"


def write_line(folder: Path, name: str, job: Job, summary: Summary) -> None:
    """Add a run, in one write: several processes may add theirs."""
    cells = [
        datetime.now().astimezone().isoformat(" ", "seconds"),
        " ".join(name.split()),
        job.arm,
        f"seed {job.seed}",
        f"{summary.seconds:.3f} s",
        f"validation NLL at T {summary.validation_nll:.4f}",
        f"test accuracy {summary.test_accuracy:.4f}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("ab", buffering=0) as file:
        file.write(("\t".join(cells) + "\n").encode())


def durations(folder: Path) -> Mapping[str, float]:
    """How many seconds a run of each setting took, by the median of those that were trained."""
    seconds: dict[str, list[float]] = {}
    with suppress(FileNotFoundError):
        for line in (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines():
            cells = line.split("\t")
            with suppress(IndexError, ValueError):  # cut off, or written by a person
                seconds.setdefault(cells[1], []).append(float(cells[4].removesuffix(" s")))
    return {name: median(each) for name, each in seconds.items()}
