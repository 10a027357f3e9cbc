"""The compiled kernel: a handle to it, or the reason why there is none.

It has a plain C interface and is loaded with ctypes, so that no build of it depends on a version of Python
or of torch. Nothing is loaded before the first call.
"""

import ctypes
import os
import sys
import warnings
from functools import cache
from pathlib import Path

from labelsmooth import engines

ABI = 4
"""What ``labelsmooth_abi()`` of native/labelsmooth.cpp has to return; whoever changes one changes both."""

NAME = "_native.cpu.dll" if sys.platform == "win32" else "_native.cpu.so"


def library() -> ctypes.CDLL | None:
    """The loaded library, or None where ``absence`` has a reason."""
    found = _load()
    return None if isinstance(found, str) else found


def absence() -> str | None:
    """Why there is no library, or None if there is one."""
    found = _load()
    return found if isinstance(found, str) else None


@cache
def warn_of_absence() -> None:
    """Say, once a process, that plain torch does what the kernel would, unless that was asked for."""
    if os.environ.get("LABELSMOOTH_NATIVE") != "0":
        warnings.warn(
            f"labelsmooth runs without its compiled kernel, on plain torch, which is slower: {absence()}. "
            "LABELSMOOTH_NATIVE=0 keeps it so without this warning",
            RuntimeWarning,
            stacklevel=5,  # the caller of a loss
        )


@cache
def _load() -> ctypes.CDLL | str:
    if os.environ.get("LABELSMOOTH_NATIVE") == "0":
        return "switched off by LABELSMOOTH_NATIVE=0"
    # An editable install has two folders: that of the sources and that of what was compiled.
    paths = [Path(folder, NAME) for folder in engines.__path__]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        folders = ", ".join(str(path.parent) for path in paths)
        return (
            f"not built with this install: no {NAME} in {folders}. With a C++ compiler at hand, installing "
            "again with LABELSMOOTH_REQUIRE_NATIVE=1 and pip's --no-cache-dir builds it or says what fails"
        )
    try:
        found = ctypes.CDLL(str(path))
        abi = int(found.labelsmooth_abi())
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded: {error}"
    if abi != ABI:
        return f"{path} has ABI {abi} and this version needs {ABI}: install again"
    return found
