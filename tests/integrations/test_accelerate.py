"""The example of an accelerate loop ends where descent in float64 on the whole batch does."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist

pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")

from tests.descent import check_training, names_of, run, steps_of_texts


@pytest.mark.parametrize("processes", [1, 2])
def test_accelerate_loop(tmp_path: Path, processes: int) -> None:
    """A step has four micro-batches of different numbers of tokens, shared by the processes."""
    if processes > 1 and not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("this torch has no gloo")
    printed = run("accelerate_loop.py", str(tmp_path / "model.pt"), processes=processes)
    example = names_of("accelerate_loop.py")
    torch.manual_seed(0)
    steps = steps_of_texts(example["paragraphs"](), example["collate"])
    check_training(example["Model"](), steps * 5, 1.0, tmp_path / "model.pt", printed)
