"""Import of a fit by its name."""

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
        name: ``module:function``, with a module in the current folder or an installed one, or
            ``file.py:function``. Instead of a function, a class without arguments or a callable object.

    Raises:
        ValueError: if there is no such module or function; the message suggests similar names.

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
        raise ValueError(f"file {path} does not exist{_nearest(str(path), near)}")
    module = _imported(path.stem, path.parent.resolve())
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ValueError(f"{path} has the name of another module, {module.__file__}: rename it")
    return module


def _imported(place: str, folder: Path) -> ModuleType:
    # Permanently, since the study's processes import it again.
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
                f"module {missing!r} is neither in {folder} nor installed{_nearest(missing, near)}"
            ) from None
        raise ValueError(f"{place} imports {missing!r}, which is not installed") from None


def _callable(name: str, fit: Any) -> Fit:
    if inspect.isclass(fit):
        try:
            inspect.signature(fit).bind()
        except TypeError as error:
            raise ValueError(
                f"{name} is a class and must take no arguments ({error}): name an object instead"
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
