"""Sharded over the classes, a loss and its gradient are those of one process: on every rank, by torchrun."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist

if not (dist.is_available() and dist.is_gloo_available()):
    pytest.skip("this torch has no gloo", allow_module_level=True)

from . import worker

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SECONDS = 120


@pytest.fixture(scope="module", params=[2, 4], ids=["2 processes", "4 processes"])
def errors(request: pytest.FixtureRequest) -> dict[str, list[str | None]]:
    """What each case raised on each rank."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    command = [*torchrun, str(request.param), "-m", "tests.parallel.worker"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    found = {line["case"]: line["errors"] for line in lines}
    if done.returncode or found.keys() != worker.CASES.keys():
        pytest.fail(f"the processes stopped: {done.stderr[:8000]}")
    return found


@pytest.mark.parametrize("name", worker.CASES)
def test_equals_one_process(errors: dict[str, list[str | None]], name: str) -> None:
    for rank, error in enumerate(errors[name]):
        assert error is None, f"rank {rank}: {error}"
