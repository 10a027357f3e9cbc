"""A headless browser, for pages that have to be seen."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def browse(profile: Path, *args: str) -> str:
    """What the browser prints, such as a page's DOM."""
    command = [
        str(BROWSER),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={profile}",
        *args,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DBUS")}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=True, env=environment
    ).stdout
