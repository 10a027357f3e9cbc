"""The globals that code reads, and whether code belongs to the user or to an installed package."""

import dis
import importlib
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, version
from importlib.util import resolve_name
from pathlib import Path
from types import CodeType, FunctionType, ModuleType

import labelsmooth

# The study's ledger holds labelsmooth's version, even if it runs from its sources.
INSTALLED = (
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("platstdlib"),
    str(Path(labelsmooth.__file__).parent),
)
BY_ANY_NAME = ("globals", "eval", "exec")  # builtins that may read every global
MISSING = object()


def read_by(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The globals that a function's code reads, including nested code: their names and values.

    For a module of the user, only the attributes that are read are included, such as ``helpers.width``, or
    all of them if the code does not show which. Undefined names and builtins are left out.
    """
    scope = function.__globals__
    home = scope.get("__name__", "")
    chains = dict.fromkeys(_chains(function.__code__, scope))
    if any(start in BY_ANY_NAME and start not in scope for start, _ in chains):
        yield from (
            (_within(home, name), value) for name, value in scope.items() if not name.startswith("__")
        )
    for start, attributes in chains:
        if isinstance(start, ModuleType):
            place, value = start.__name__, start
        else:
            place, value = _within(home, str(start)), scope.get(str(start), MISSING)
        for attribute in attributes:
            if not (isinstance(value, ModuleType) and is_own_module(value)):
                break
            place, value = _within(value.__name__, attribute), getattr(value, attribute, MISSING)
        if value is not MISSING:
            yield place, value


def _chains(code: CodeType, scope: dict[str, object]) -> Iterator[tuple[str | ModuleType, tuple[str, ...]]]:
    """The name of a global, or of a module that the code imports, and the attributes that the code reads."""
    start: str | ModuleType | None = None
    read: tuple[str, ...] = ()
    constants: list[object] = [
        0,
        None,
    ]  # of an import: the number of dots, and the imported names
    for step in dis.get_instructions(code):
        if start is not None and step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            read += (str(step.argval),)
            continue
        if start is not None:
            yield start, read
        start, read = None, ()
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            start = str(step.argval)
        elif step.opname == "IMPORT_NAME" and (module := _imported(str(step.argval), constants[-2], scope)):
            taken = constants[-1]
            for name in taken if isinstance(taken, tuple) else ():
                _imported(f"{module.__name__}.{name}", 0, scope)  # may be a module that is not imported yet
                yield module, (name,) if name != "*" else ()
            if not taken:  # bound to a local name, whose attributes are not tracked
                yield module, ()
                yield sys.modules[module.__name__.partition(".")[0]], ()
        elif step.opname in ("LOAD_CONST", "LOAD_SMALL_INT"):
            constants.append(step.argval)
    if start is not None:
        yield start, read
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _chains(inner, scope)


def _imported(name: str, level: object, scope: dict[str, object]) -> ModuleType | None:
    """The module, if it belongs to the user or can be found."""
    try:
        if level:
            name = resolve_name("." * int(str(level)) + name, str(scope.get("__package__") or ""))
        if name.partition(".")[0] in sys.stdlib_module_names:
            return None
        return importlib.import_module(name)
    except ImportError:
        return None


def _within(module: str, name: str) -> str:
    return name if module in ("", "__main__", "builtins") else f"{module}.{name}"


def place_of(value: FunctionType | type, otherwise: str) -> str:
    """The qualified name of a function or class, or a readable name if it has none."""
    return otherwise if "<" in value.__qualname__ else _within(value.__module__ or "", value.__qualname__)


def is_own(value: FunctionType | type) -> bool:
    """Whether a function or class is the user's, not Python's or an installed package's."""
    if isinstance(value, FunctionType):
        return _is_own_file(value.__code__.co_filename)
    module = value.__module__
    if module == "builtins":  # also a class that exec made
        return bool(value.__flags__ & 1 << 9)  # Py_TPFLAGS_HEAPTYPE
    return is_own_name(module)


def is_own_module(module: ModuleType) -> bool:
    return is_own_name(module.__name__)


def is_importable(value: FunctionType) -> bool:
    """Whether a function belongs to an installed package and can be found there by its name."""
    found: object = sys.modules.get(value.__module__ or "")
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value and not is_own_name(value.__module__)


def is_compiled(module: str) -> bool:
    """Whether a module is the user's but not Python code, so that its content is unknown."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return file.endswith(tuple(EXTENSION_SUFFIXES)) and is_own_name(module)


def is_own_name(module: str) -> bool:
    package = module.partition(".")[0]
    if package == "__main__" or package in sys.stdlib_module_names:
        return package == "__main__"
    for found in (sys.modules.get(module), sys.modules.get(package)):
        places = [getattr(found, "__file__", None), *getattr(found, "__path__", ())]
        if file := next(filter(None, places), None):
            return _is_own_file(file)
    return True


@cache
def _is_own_file(file: str) -> bool:
    parts = Path(file).parts
    if "site-packages" in parts or "dist-packages" in parts or file.startswith("<frozen"):
        return False
    return not any(Path(file).is_relative_to(folder) for folder in INSTALLED)


def installed(module: str, name: str = "") -> str:
    """The name of an object of an installed package, with the package's version."""
    return f"{module}.{name} {_version(module.partition('.')[0])}"


@cache
def _version(package: str) -> str:
    if not package or package in sys.stdlib_module_names:
        return ""
    try:
        return str(getattr(sys.modules.get(package), "__version__", None) or version(package))
    except PackageNotFoundError:
        return ""
