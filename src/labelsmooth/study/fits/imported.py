"""A fit by its name, as a command line gives it."""

import difflib
import importlib
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from labelsmooth.study.fits.result import Fit

FORM = "module:function or file.py:function, as in train:fit"


def load_fit(name: str) -> Fit:
    """Import the fit of this name.

    Args:
        name: ``module:function``, the module in the current folder or installed, or ``file.py:function``; in
            the place of a function, a class that takes no arguments, or an object that can be called.

    Raises:
        ValueError: naming the module or what it lacks, and what is near.

    Example:
        >>> load_fit("labelsmooth.study:DigitsFit").description
        '800 training rows, 40 epochs'
    """
    place, colon, attribute = name.rpartition(":")
    if not (colon and place and attribute):
        raise ValueError(f"fit must be {FORM}, got {name!r}")
    module = _from_file(Path(place)) if place.endswith(".py") else _imported(place, Path.cwd())
    fit = getattr(module, attribute, None)
    if fit is None:
        offered = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"{place} has no {attribute!r}{_nearest(attribute, offered)}")
    return _callable(name, fit)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = [str(other) for other in path.parent.glob("*.py")]
        raise ValueError(f"there is no file {path}{_nearest(str(path), near)}")
    module = _imported(path.stem, path.parent.resolve())
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ValueError(f"{path} has the name of another module, {module.__file__}: rename it")
    return module


def _imported(place: str, folder: Path) -> ModuleType:
    # For good: the study's processes import it again.
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        missing = error.name or place
        if f"{place}.".startswith(f"{missing}."):
            near = [file.stem for file in folder.glob("*.py")]
            raise ValueError(
                f"there is no module {missing!r} in {folder}, or installed{_nearest(missing, near)}"
            ) from None
        raise ValueError(f"{place} imports {missing!r}, which is not installed") from None


def _callable(name: str, fit: Any) -> Fit:
    if inspect.isclass(fit):
        try:
            inspect.signature(fit).bind()
        except TypeError as error:
            raise ValueError(
                f"{name} is a class that must take no arguments ({error}): give the name of an object"
            ) from None
        fit = fit()
    if not callable(fit):
        raise ValueError(f"{name} must be a function fit(criterion, seed), got {type(fit).__name__}")
    try:
        inspect.signature(fit).bind(None, 0)
    except TypeError as error:
        raise ValueError(f"{name} must take (criterion, seed): {error}") from None
    return cast("Fit", fit)


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    return f": did you mean {close[0]!r}?" if close else ""
