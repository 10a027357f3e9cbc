"""The command in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [sys.executable, "-m", "labelsmooth"]
WIDE = {**os.environ, "COLUMNS": "80"}


def labelsmooth(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=120, env=WIDE)
