"""Time and memory of a study's summary with many rows and classes: ``python -m benchmarks.summary``.

It writes runs of 50,000 test rows x 1,000 classes and 10,000 validation rows to a temporary folder, reads
them back one by one and compares them. Memory is given beyond the logits of one run.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import torch

from labelsmooth.study.analysis.summary import analyse
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.trials.files import Job, Stored, save

MEBIBYTE = 1 << 20


def peak() -> int:
    """The largest number of bytes that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def result(rows: int, validation: int, classes: int, strength: float, seed: int) -> FitResult:
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % classes
        logits = torch.randn(count, classes, generator=generator)
        return logits.scatter_add_(1, labels.unsqueeze(1), torch.full((count, 1), strength)), labels

    return {"val": split(validation), "test": split(rows)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--validation", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=1_000)
    parser.add_argument("--arms", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    arms = ["hard", *(f"ls:eps={0.1 * i:g}" for i in range(1, args.arms))]
    with tempfile.TemporaryDirectory() as folder:
        paths = {}
        for i, arm in enumerate(arms):
            for seed in range(args.seeds):
                paths[Job(arm, seed)] = path = Path(folder) / f"{i}-{seed}.safetensors"
                save(path, result(args.rows, args.validation, args.classes, 3 + i / 4, seed))
        logits = 4 * args.classes * (args.rows + args.validation)
        before, start, worked = peak(), time.perf_counter(), time.process_time()
        analyse("", "", Stored(paths), arms, range(args.seeds))
        wall, worked = time.perf_counter() - start, time.process_time() - worked
        runs = len(paths)
        print(
            f"{args.rows} + {args.validation} rows x {args.classes} classes, {runs} runs: "
            f"{worked / runs:.2f} s CPU and {wall / runs:.2f} s a run; "
            f"a run's logits are {logits / MEBIBYTE:.0f} MiB, "
            f"the process held at most {peak() / MEBIBYTE:.0f} MiB, {before / MEBIBYTE:.0f} before"
        )


if __name__ == "__main__":
    main()
