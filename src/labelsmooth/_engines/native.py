"""Load the compiled kernel, or say why it is not available.

The kernel has a plain C interface and is loaded with ctypes, so a build depends on no version of Python or
torch. It is loaded on the first call.
"""

import ctypes
import os
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from torch import Tensor

from labelsmooth import _engines
from labelsmooth._core.statistics import ABSENT, STATISTICS, Factors, Gradient, RowStatistics
from labelsmooth._engines.operator import DTYPES

ABI = 9
"""The value of ``labelsmooth_abi()`` in native/labelsmooth.cpp. The two must be changed together."""

NAME = "_native.cpu.so"


class Problem(ctypes.Structure):
    """The structure of this name in native/kernels.h, field by field."""

    _fields_ = (
        ("z", ctypes.c_void_p),
        ("dtype", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("outer_stride", ctypes.c_int64),
        ("inner_stride", ctypes.c_int64),
        ("class_stride", ctypes.c_int64),
        ("classes", ctypes.c_int64),
        ("target", ctypes.c_void_p),
        ("labels", ctypes.c_int64),
        ("shares", ctypes.c_void_p),
        ("soft", ctypes.c_void_p),
        ("counted", ctypes.c_void_p),
        ("prior", ctypes.c_void_p),
        ("prior_stride", ctypes.c_int64),
        ("prior_by_row", ctypes.c_int64),
        ("weight", ctypes.c_void_p),
        ("exclude_target", ctypes.c_int64),
        ("margin", ctypes.c_double),
        ("squared", ctypes.c_int64),
        ("spread", ctypes.c_int64),
        ("plain", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    )


class Terms(ctypes.Structure):
    """The structure of this name in native/kernels.h, field by field."""

    held: object = None
    """The tensors that ``each`` points to."""

    _fields_ = (
        ("dtype", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("factor", ctypes.c_double * len(Factors._fields)),
        ("each", ctypes.c_void_p * len(Factors._fields)),
        ("scale", ctypes.c_void_p),
        ("z_loss", ctypes.c_double),
        ("z_by_target", ctypes.c_int64),
        ("threads", ctypes.c_int64),
    )


MOST_LABELS = 8
"""The largest number of labels of a row."""


class Saved(NamedTuple):
    """The numbers that the plain loss saves of each row, as in native/kernels.h."""

    lse: Tensor
    z_max: Tensor
    valid: Tensor  # the number of valid classes
    loss: Tensor
    nll: Tensor


AGREED: Final[dict[str, int | str]] = {
    "ABI": ABI,
    "problem size": ctypes.sizeof(Problem),
    "terms size": ctypes.sizeof(Terms),
    "most labels": MOST_LABELS,
    "absent class": ABSENT,
    "dtypes": ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES),
    "statistics": ", ".join(RowStatistics._fields[:STATISTICS]),
    "gradient": ", ".join(Gradient._fields),
    "factors": ", ".join(Factors._fields),
    "saved": ", ".join(Saved._fields),
}
"""The values that Python and C++ share; the library returns them (``labelsmooth_problem_size()`` etc.)."""


def library() -> ctypes.CDLL | None:
    """The loaded library, or None; :func:`absence` then says why."""
    found = _load()
    return None if isinstance(found, str) else found


def absence() -> str | None:
    """Why the library is not available, or None if it is."""
    found = _load()
    return found if isinstance(found, str) else None


def isa() -> str:
    """The instruction set that the library uses."""
    found = library()
    assert found is not None
    return found.labelsmooth_isa().decode()


@cache
def warn_of_absence() -> None:
    """Warn once per process that plain torch replaces the kernel, unless the environment asks for it."""
    if os.environ.get("LABELSMOOTH_NATIVE") != "0":
        warnings.warn(
            f"labelsmooth runs without its compiled kernel, on plain torch, which is slower: {absence()}. "
            "LABELSMOOTH_NATIVE=0 keeps it so without this warning",
            RuntimeWarning,
            stacklevel=_levels_to_the_caller(),
        )


def _levels_to_the_caller() -> int:
    """The ``stacklevel`` of the user's code: the number of frames from the caller to the call of a loss."""
    frame, level = sys._getframe(1), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("labelsmooth", "torch"):
        frame, level = frame.f_back, level + 1
    return level


@cache
def _load() -> ctypes.CDLL | str:
    if os.environ.get("LABELSMOOTH_NATIVE") == "0":
        return "switched off by LABELSMOOTH_NATIVE=0"
    if sys.platform == "win32":
        return "not written for Windows"
    # An editable install has two folders, one with the sources and one with the compiled library.
    paths = [Path(folder, NAME) for folder in _engines.__path__]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        folders = ", ".join(str(path.parent) for path in paths)
        return (
            f"not built with this install: no {NAME} in {folders}. With a C++ compiler at hand, installing "
            "again with LABELSMOOTH_REQUIRE_NATIVE=1 and pip's --no-cache-dir builds it or says what fails"
        )
    try:
        found = ctypes.CDLL(str(path))
        if difference := _difference(found):
            return f"{path} has {difference}: install again"
        _declare(found)
    except (OSError, AttributeError) as error:
        return f"{path} cannot be loaded: {error}"
    wanted = os.environ.get("LABELSMOOTH_ISA")
    if wanted and not found.labelsmooth_use(wanted.encode()):
        return f"LABELSMOOTH_ISA={wanted} is no instruction set that {path} and this CPU have"
    return found


def _difference(library: ctypes.CDLL) -> str | None:
    for what, ours in AGREED.items():
        function = library[f"labelsmooth_{what.lower().replace(' ', '_')}"]
        function.restype = ctypes.c_int64 if isinstance(ours, int) else ctypes.c_char_p
        found = function()
        theirs = found.decode() if isinstance(found, bytes) else found
        if theirs != ours:
            return f"{what} {theirs} and this version needs {ours}"
    return None


def _declare(library: ctypes.CDLL) -> None:
    pointer, problem = ctypes.c_void_p, ctypes.POINTER(Problem)
    int64, double = ctypes.c_int64, ctypes.c_double
    library.labelsmooth_isa.restype = ctypes.c_char_p
    library.labelsmooth_use.argtypes = (ctypes.c_char_p,)
    library.labelsmooth_forward.argtypes = (problem, pointer)
    library.labelsmooth_forward.restype = int64
    library.labelsmooth_backward.argtypes = (problem, pointer, pointer, pointer)
    library.labelsmooth_backward.restype = None
    for function in (library.labelsmooth_losses, library.labelsmooth_losses_backward):
        function.argtypes = (ctypes.POINTER(Terms), pointer, pointer)
        function.restype = None
    library.labelsmooth_at_once.argtypes = (problem, ctypes.POINTER(Terms), *[pointer] * 5)
    library.labelsmooth_at_once.restype = int64
    given = (problem, int64, double)
    library.labelsmooth_uniform_forward.argtypes = (*given, pointer, pointer, double, double, pointer)
    library.labelsmooth_uniform_backward.argtypes = (*given, double, pointer, pointer)
    library.labelsmooth_uniform_backward.restype = None
