"""One run over several processes, as torchrun starts them."""

from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from torch.multiprocessing.spawn import start_processes

from labelsmooth.study.fits.criterion import Criterion
from labelsmooth.study.fits.result import FitResult
from labelsmooth.study.report import page

from .made_up import LinearFit, study


def sharded(criterion: Criterion, seed: int) -> FitResult:
    """Each process has a part of every number."""
    if seed == 2:
        raise RuntimeError("no luck")
    result = LinearFit()(criterion, seed)
    for split in ("val", "test"):
        logits = result[split][0] * (dist.get_rank() + 1)
        dist.all_reduce(logits)
        result[split] = logits, result[split][1]
    if dist.get_rank():
        return {}  # type: ignore[typeddict-item]
    return result


def rank(number: int, folder: Path) -> None:
    place = f"file://{folder / 'store'}"
    dist.init_process_group("gloo", place, timedelta(seconds=100), rank=number, world_size=2)
    page.write_report = lambda results, *_: (results.folder / "report.html").write_text("left out")
    results = study(sharded, folder / "study", seeds=4, progress=True)
    (folder / f"answer-{number}").write_text(str(results.settings))
    with pytest.raises(ValueError, match="workers must be None if several processes train each run, got 2"):
        study(sharded, folder / "study", workers=2)
    dist.destroy_process_group()


def test_processes_take_part_in_each_run_and_return_the_same(tmp_path: Path):
    start_processes(rank, (tmp_path,), nprocs=2, start_method="fork")
    answers = {(tmp_path / f"answer-{number}").read_text() for number in (0, 1)}
    assert len(answers) == 1
    assert "no luck" in answers.pop()
    assert len([*tmp_path.glob("study/trials/*/*.safetensors")]) == 6
