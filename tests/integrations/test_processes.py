"""Two processes train on the loss of all rows together, as one process in float64 does; by torchrun."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

pytest.importorskip("transformers", reason="needs labelsmooth[transformers]")
pytest.importorskip("accelerate", reason="needs labelsmooth[transformers]")
if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)

from . import worker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[str | None]]:
    """What each case raised on each process."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.integrations.worker"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False, env=environment
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
    found = {line["case"]: line["errors"] for line in lines}
    if done.returncode or found.keys() != set(map(worker.name, worker.CASES)):
        pytest.fail(f"the processes stopped: {done.stderr[-8000:]}")
    return found


@pytest.mark.parametrize("name", list(map(worker.name, worker.CASES)))
def test_equals_one_process(errors: dict[str, list[str | None]], name: str) -> None:
    for rank, error in enumerate(errors[name]):
        assert error is None, f"rank {rank}: {error}"
