"""The log file of a study, with a line for each trained run."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from statistics import median

from labelsmooth.study.trials.files import Job
from labelsmooth.study.trials.training import Summary

FILE = "study.log"


def write_line(folder: Path, name: str, job: Job, summary: Summary) -> None:
    """Append a run in one write, since several processes may append."""
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
    """The median seconds of the trained runs of each setting."""
    seconds: dict[str, list[float]] = {}
    with suppress(FileNotFoundError):
        for line in (folder / FILE).read_text(encoding="utf-8", errors="replace").splitlines():
            cells = line.split("\t")
            with suppress(IndexError, ValueError):  # an incomplete or edited line
                seconds.setdefault(cells[1], []).append(float(cells[4].removesuffix(" s")))
    return {name: median(each) for name, each in seconds.items()}
