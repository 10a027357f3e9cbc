"""The recognised parts of a fit, saved beside its runs, and their changes."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path

from labelsmooth.study.trials.files import replacing

FILE = "fit.json"
MOST = 3  # the maximum number of changes in a message


def keep(folder: Path, parts: Mapping[str, str]) -> None:
    """Write the parts of an identity into the folder of its runs, once."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(json.dumps({"Python": platform.python_version(), **parts}, indent=1) + "\n")


def why_anew(folder: Path, parts: Mapping[str, str]) -> str | None:
    """The differences from the parts in the newest other folder of the setting, ``<setting>-<digest>``."""
    setting = folder.name.rpartition("-")[0]
    others = [
        path
        for path in folder.parent.glob(f"*/{FILE}")
        if path.parent.name.rpartition("-")[0] == setting and path.parent != folder
    ]
    if (folder / FILE).exists() or not others:
        return None
    earlier = json.loads(max(others, key=lambda path: path.stat().st_mtime_ns).read_text())
    found = differences(earlier, {"Python": platform.python_version(), **parts})
    more = f" and {len(found) - MOST} more" if len(found) > MOST else ""
    return ", ".join(found[:MOST]) + more or "the order of what fit refers to changed"


def differences(earlier: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Each difference in words.

    Example:
        >>> differences({"fit's default width": "32"}, {"fit's default width": "64"})
        ["fit's default width changed from 32 to 64"]
    """
    found = []
    for name in dict.fromkeys([*now, *earlier]):
        before, after = earlier.get(name), now.get(name)
        if before == after:
            continue
        if before is None or after is None:
            found.append(f"{name} was {'added' if before is None else 'removed'}")
        elif before.startswith("code ") and after.startswith("code "):
            found.append(f"the code of {name} changed")
        else:
            found.append(f"{name} changed from {before} to {after}")
    return found
