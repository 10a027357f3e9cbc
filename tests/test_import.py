"""Importing the package is innocent: it brings torch and the standard library, and changes neither."""

import json
import subprocess
import sys

import pytest

# What a fresh interpreter looks like before and after; the import itself is put in between.
PROBE = """
import json, os, sys, warnings
import torch
import torch.nn.functional as F

def state():
    return {{
        "environment": dict(os.environ),
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "modes": [torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()],
        "defaults": [str(torch.get_default_dtype()), str(torch.get_default_device())],
        "deterministic": [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark],
        "random": torch.get_rng_state().tolist(),
        "warnings": [str(f) for f in warnings.filters],
        "cuda": torch.cuda.is_initialized(),
        "path": list(sys.path),
        "patched": {{
            f"{{space.__name__}}.{{name}}": id(value)
            for space in (torch, torch.nn, F, torch.Tensor, torch.nn.Module, torch.compiler, torch.autograd)
            for name, value in vars(space).items()
            if callable(value)
        }},
    }}

before = state()
modules = set(sys.modules)
{statement}
print(json.dumps({{"before": before, "after": state(), "new": sorted(set(sys.modules) - modules)}}))
"""


def probe(statement: str) -> dict[str, dict[str, object]]:
    run = [sys.executable, "-W", "error", "-c", PROBE.format(statement=statement)]
    return json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)


def test_import_is_innocent() -> None:
    found = probe("import labelsmooth")
    assert found["after"] == found["before"]
    new = found["new"]
    assert {"labelsmooth.functional", "labelsmooth.engines"} <= set(new)  # found without a line of their own
    packages = {module.partition(".")[0] for module in new}
    assert packages <= {"labelsmooth", *sys.stdlib_module_names}
    # Nor does it bring its own parts that are more than the losses.
    assert not {
        module for module in new if module.startswith(("labelsmooth.study", "labelsmooth.calibration"))
    }


@pytest.mark.slow
def test_probe_sees_a_guilty_import() -> None:
    guilty = """
import os
os.environ["GUILTY"] = "1"
F.cross_entropy = lambda *args: None
torch.set_grad_enabled(False)
import torch.distributed.checkpoint
"""
    found = probe(guilty)
    changed = {key for key, value in found["after"].items() if value != found["before"][key]}
    assert {"environment", "patched", "modes"} <= changed
    assert "torch.distributed.checkpoint" in found["new"]
