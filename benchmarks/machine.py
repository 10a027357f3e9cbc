"""Facts about the machine and the software of a run, without the host's name."""

import ctypes
import os
import platform
import re
import subprocess
from ctypes.util import find_library
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import labelsmooth
from benchmarks.cases import Allocator
from labelsmooth import engines

HERE = Path(__file__).parent
USUAL = {"load": "quiet", "allocator": "system"}  # which a file's name leaves out
PEERS = ("triton", "liger-kernel", "flash-attn", "cut-cross-entropy")


def facts(device: str, load: str, quick: bool) -> dict[str, object]:
    """The facts that every row of the results has."""
    return {
        "device": device_name(device),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "load": load,
        "allocator": allocator(),
        "malloc_conf": os.environ.get("MALLOC_CONF"),
        "quick": quick,
        "engines": {name: str(engine) for name, engine in engines.available().items()},
        "labelsmooth": labelsmooth.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "peers": _installed(),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def file_name(facts: dict[str, object]) -> str:
    """The name of the results file: machine, time and commit."""
    machine = f"{facts['device']} {facts['cores']} cores"
    stamp = re.sub(r"[-:]", "", str(facts["utc"]))[:13]
    parts = [re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-"), stamp, facts["commit"] or "no-commit"]
    parts += [facts[name] for name, usual in USUAL.items() if facts[name] != usual]
    return "-".join(map(str, parts)) + ".jsonl"


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        model = None
    return model[1].strip() if model else platform.processor() or platform.machine()


def num_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def has_native_bf16() -> bool:
    """Whether the CPU has instructions for products in bfloat16."""
    return any("bf16" in name and has for name, has in torch.cpu.get_capabilities().items())


def allocator() -> Allocator:
    """The allocator of this process, whatever preloaded it."""
    return "jemalloc" if hasattr(ctypes.CDLL(None), "mallctl") else "system"


def under_jemalloc() -> dict[str, str]:
    """The environment of a process with jemalloc, which keeps all memory that is freed."""
    library = find_library("jemalloc")
    if library is None or library in os.environ.get("LD_PRELOAD", ""):
        raise OSError("jemalloc cannot be preloaded: install it where the loader finds it (libjemalloc2)")
    return os.environ | {"LD_PRELOAD": library, "MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}


def _installed() -> dict[str, str]:
    found = {}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _git(*args: str) -> str | None:
    try:
        done = subprocess.run(["git", *args], cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
