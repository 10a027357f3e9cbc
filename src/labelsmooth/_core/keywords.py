"""Keywords that a public function or module does not have: the error is Python's own, and helps."""

import difflib
import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, ParamSpec

P = ParamSpec("P")


def check_keywords(public: object, given: Iterable[str], options: Collection[str]) -> None:
    """Python's own error for a keyword that a public function or module does not have, under that name and
    with the nearest that it has, where ``**options`` would take it further."""
    for name in given:
        if name not in options:
            raise TypeError(_unexpected(public, name, options))


def spelled(init: Callable[P, None]) -> Callable[P, None]:
    """The constructor of a public module, which tells a keyword that it does not have."""
    options = inspect.signature(init).parameters

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        check_keywords(type(args[0]), kwargs, options)
        init(*args, **kwargs)

    return checked


def _unexpected(public: Any, name: str, options: Collection[str]) -> str:
    # A module has the keywords of those that it inherits from, too.
    kinds = [vars(kind).get("__init__") for kind in public.__mro__] if isinstance(public, type) else [public]
    spelled_out = {key for f in kinds if inspect.isfunction(f) for key in inspect.signature(f).parameters}
    known = (spelled_out | set(options)) - {"self", "args", "kwargs", "options"}
    near = difflib.get_close_matches(name, sorted(known), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if not near and "class" in name:
        hint = "; the number of classes is that of input"
    return f"{public.__name__}() got an unexpected keyword argument {name!r}{hint}"
