"""The identity of a fit, so that the runs of different fits are never mixed.

A fit is a graph of objects: its code and everything that it refers to. Each node has a text and references to
other nodes. Two fits are the same if their graphs are equal, starting from the fit.
"""

import copyreg
import functools
import hashlib
import types
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from labelsmooth.study.trials.names import (
    installed,
    is_compiled,
    is_importable,
    is_own,
    is_own_module,
    is_own_name,
    place_of,
    read_by,
)

LEAVES = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
SAID = (
    "class_names",
    "description",
    "ordinal",
    "test_rows",
)  # attributes of a fit that only the report reads
MOST = 20  # the maximum number of parts of an object that are listed
SHORT = 60  # the maximum length of a text that is saved in full
# Attributes of a class that do not affect what it computes.
UNTOLD = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__annotate__", "__qualname__",
    "__abstractmethods__", "_abc_impl", "__firstlineno__", "__static_attributes__", "__dataclass_params__",
    "__dataclass_fields__", "__parameters__", "__orig_bases__", "__match_args__", "__annotate_func__",
    "__annotations_cache__", "__slotnames__",
}  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """A digest of the recognised parts, and the parts by name in readable form."""

    digest: str
    parts: Mapping[str, str] = field(compare=False)


def identify(value: object, name: str = "fit") -> Identity:
    """The identity of a fit by its content, the same in every process.

    Functions, and classes with their bases, are recognised by their compiled code (without comments), their
    defaults, their closures and the globals that they read, through the user's own modules; those of Python
    and of installed packages by name and version. Data are recognised by their current content: tensors and
    arrays by their numbers, other objects by their pickled state.

    Raises:
        ValueError: if an object cannot be compared, such as an open file, a generator or a thread.
    """
    walk = _Walk()
    try:
        root = walk.visit(value, name)
    except OpaqueError as error:
        hint = (
            "give study.run(..., key='name of this version')"
            if name == "fit"
            else "give a string that names it"
        )
        about = f"{name} refers to {error}, whose content cannot be compared"
        raise ValueError(f"{about}: {hint}") from None
    return Identity(walk.digest(root), walk.parts)


class OpaqueError(TypeError):
    """An object whose content cannot be compared, with its name and type."""


Child = tuple[str | None, object]  # a readable name, and the object


@dataclass(frozen=True)
class _Node:
    text: str
    children: Sequence[Child] = ()  # names and objects
    ordered: bool = True


@dataclass(frozen=True)
class _Visit:
    number: int
    value: object
    name: str | None
    node: _Node
    found: list[str | int] = field(default_factory=list)  # digests or numbers of the visited children


@dataclass
class _Walk:
    """A traversal from an object to all that it refers to.

    Objects outside of reference cycles get a digest at once; objects in cycles have a number until all are
    visited.
    """

    parts: dict[str, str] = field(default_factory=dict)
    _known: dict[int, tuple[object, str | int]] = field(
        default_factory=dict
    )  # keeps objects alive, so that ids stay unique
    _open: dict[int, _Visit] = field(default_factory=dict)

    def visit(self, value: object, name: str | None) -> str | int:
        """Visit an object without recursion, since chains of references may be long."""
        waiting: list[_Visit] = []
        result = self._meet(value, name, waiting)
        while waiting:
            now = waiting[-1]
            if result is not None:
                now.found.append(result)
            if len(now.found) < len(now.node.children):
                part, child = now.node.children[len(now.found)]
                result = self._meet(child, part, waiting)
            else:
                result = self._leave(waiting.pop())
        assert result is not None
        return result

    def _meet(self, value: object, name: str | None, waiting: list[_Visit]) -> str | int | None:
        if type(value) in LEAVES:
            text = repr(value)
            self._write(name, _short(text))
            return f"{type(value).__name__} {text if len(text) <= SHORT else _hash(text)}"
        if id(value) in self._known:
            return self._known[id(value)][1]
        number = len(self._known)
        self._known[id(value)] = value, number
        waiting.append(_Visit(number, value, name, self._node(value, name)))
        return None

    def _leave(self, visit: _Visit) -> str | int:
        node, found = visit.node, visit.found
        if any(isinstance(part, int) for part in found):
            self._open[visit.number] = visit
            return visit.number
        digest = _hash(node.text, found if node.ordered else sorted(map(str, found)))
        self._known[id(visit.value)] = visit.value, digest
        if isinstance(visit.value, list | tuple | set | frozenset | dict) and len(found) > MOST:
            self._write(visit.name, f"{type(visit.value).__name__} of {len(visit.value)}, {digest[:8]}")
        return digest

    def digest(self, root: str | int) -> str:
        """Refine the digests of nodes in cycles by those of their children, until no more of them differ."""
        if isinstance(root, str):
            return _hash(root)
        colours, before = {number: visit.node.text for number, visit in self._open.items()}, 0
        while before < (before := len(set(colours.values()))):
            colours = {number: self._colour(number, colours) for number in self._open}
        return _hash(colours[root], sorted(set(colours.values())))

    def _colour(self, number: int, colours: Mapping[int, str]) -> str:
        node = self._open[number].node
        parts = [colours[part] if isinstance(part, int) else part for part in self._open[number].found]
        return _hash(node.text, parts if node.ordered else sorted(parts))

    def _write(self, name: str | None, text: str) -> None:
        if name is not None:
            self.parts.setdefault(name, text)

    def _node(self, value: Any, name: str | None) -> _Node:
        match value:
            case torch.Tensor() if (content := _tensor_bytes(value)) is not None:
                return self._array(value, name, value.requires_grad, content)
            case torch.UntypedStorage():  # pickle would include its address
                whole = torch.empty(0, dtype=torch.uint8, device=value.device).set_(value)
                return _Node("storage", [(name, whole)])
            case torch.storage.TypedStorage():
                return _Node(f"storage {value.dtype}", [(name, value._untyped_storage)])
            case np.ndarray() if not value.dtype.hasobject:
                return self._array(
                    value, name, str(value.dtype.descr), np.ascontiguousarray(value).view(np.uint8)
                )
            case np.ndarray():
                return _Node(f"array {value.shape}", [(None, value.ravel().tolist())])
            case list() | tuple() if type(value) in (list, tuple) and _is_plain(value):
                text = repr(value)
                self._write(name, _short(text))
                return _Node(f"{type(value).__name__} plain {_hash(text)}")
            case list() | tuple() if type(value) in (list, tuple):
                return _Node(type(value).__name__, _items(name, enumerate(value), len(value)))
            case set() | frozenset() if type(value) in (set, frozenset):
                return _Node(type(value).__name__, [(None, x) for x in value], ordered=False)
            case set() | frozenset():
                return _Node(
                    "a kind of set", [(None, x) for x in (type(value), vars(value), frozenset(value))]
                )
            case dict() | types.MappingProxyType() if type(value) in (dict, types.MappingProxyType):
                keys = [(None, key) for key in value]
                return _Node("dict", [*keys, *_items(name, value.items(), len(value))])
            case types.CodeType():
                return _Node(_code_text(value), [(None, constant) for constant in value.co_consts])
            case types.FunctionType():
                return self._function(value, name)
            case types.MethodType():
                return _Node("method", [(name, value.__self__), (name, value.__func__)])
            case type():
                return self._class(value)
            case types.ModuleType() if is_own_module(value):
                own = {x: part for x, part in vars(value).items() if not x.startswith("__")}
                return _Node(f"module {list(own)}", [(f"{value.__name__}.{x}", own[x]) for x in own])
            case types.ModuleType():
                return _Node(f"module {installed(value.__name__)}")
            case types.BuiltinFunctionType() if value.__module__ and not is_compiled(value.__module__):
                return _Node(f"builtin {installed(value.__module__, value.__qualname__)}")
            case property():
                return _Node("property", [(name, value.fget), (name, value.fset), (name, value.fdel)])
            case classmethod() | staticmethod():
                return _Node(type(value).__name__, [(name, value.__func__)])
            case functools.cached_property():
                return _Node("cached property", [(name, value.func)])
            case functools._lru_cache_wrapper():
                return _Node("cached", [(name, value.__wrapped__)])
            case _:
                return _pickled(value, name)

    def _array(self, value: Any, name: str | None, kind: object, content: np.ndarray) -> _Node:
        text = f"{type(value).__name__} {value.dtype} {tuple(value.shape)} "
        digest = hashlib.sha256(content.reshape(-1).data).hexdigest()
        self._write(name, text + digest[:8])
        own = (
            None if isinstance(value, np.memmap) else getattr(value, "__dict__", None) or None
        )  # a subclass's
        return _Node(f"{text}{kind} {digest}", [(None, type(value)), (None, own)])

    def _function(self, value: types.FunctionType, name: str | None) -> _Node:
        name = place_of(value, name or "a function") if name != "fit" else name
        enclosed = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        inside = [(f"{name}'s variable {x}", cell.cell_contents) for x, cell in enclosed if _is_filled(cell)]
        # torch.compile adds an attribute that holds an address.
        inside += [
            (f"{name}.{x}", part)
            for x, part in vars(value).items()
            if not x.startswith("_torchdynamo") and (name != "fit" or x not in SAID)
        ]
        if is_importable(value):
            return _Node(f"function {installed(value.__module__, value.__qualname__)}")
        if not is_own(value):  # a decorator, for example, which may wrap the user's own function
            return _Node(f"function {installed(value.__module__, value.__code__.co_qualname)}", inside)
        self._write(name, f"code {self.visit(value.__code__, None)!s:.8}")
        taking = value.__code__.co_varnames[: value.__code__.co_argcount]
        defaults = value.__defaults__ or ()
        by_name = [*zip(taking[len(taking) - len(defaults) :], defaults, strict=True)]
        by_name += (value.__kwdefaults__ or {}).items()
        found = dict(read_by(value))
        read = [place.rpartition(".")[2] for place in found]
        text = f"function {[x for x, _ in by_name]} {[x for x, _ in inside]} {read}"
        given = [(f"{name}'s default {x}", default) for x, default in by_name]
        return _Node(text, [(None, value.__code__), *given, *inside, *found.items()])

    def _class(self, value: type) -> _Node:
        if not is_own(value):
            return _Node(f"class {installed(value.__module__, value.__qualname__)}")
        name = place_of(value, value.__qualname__)
        if is_compiled(value.__module__):
            raise OpaqueError(f"{name} (a compiled class)")
        own = [(x, part) for x, part in vars(value).items() if x not in UNTOLD]
        above = [(None, part) for part in (type(value), *value.__bases__)]
        parts = [(f"{name}.{x}", part) for x, part in own if not isinstance(part, types.GetSetDescriptorType)]
        return _Node(f"class {value.__qualname__} {[x for x, _ in own]}", [*above, *parts])


def _pickled(value: Any, name: str | None) -> _Node:
    """The pickled state of an object; an object that pickle stores only by name is refused."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reduce = copyreg.dispatch_table.get(type(value))
            reduced = reduce(value) if reduce else value.__reduce_ex__(4)
    except Exception:
        if not isinstance(value, torch.nn.Module):
            raise OpaqueError(f"{name or 'an object'} (type {_type_name(value)})") from None
        reduced = type(value), (), vars(value)  # parametrised modules refuse pickle, but hold no more state
    if isinstance(reduced, str):
        home = getattr(value, "__module__", None)
        if home and is_own_name(home) and type(value).__module__ != "typing":
            raise OpaqueError(f"{name or 'an object'} (type {_type_name(value)}, pickled by name only)")
        return _Node(f"named {installed(getattr(value, '__module__', None) or '', reduced)}")
    maker, arguments, state, *items = [*reduced, None, None, None][:5]
    children: list[Child] = [(None, maker), (name if arguments else None, arguments)]
    for some in state if isinstance(state, tuple) else (state,):
        if isinstance(some, dict) and all(isinstance(key, str) for key in some):
            # Private empty parts would hide the relevant ones.
            told = {key for key, part in some.items() if not (key.startswith("_") and _is_empty(part))}
            children.append((None, list(some)))
            children += [
                (f"{name}.{key}" if name and key in told else None, part) for key, part in some.items()
            ]
        else:
            children.append((None if some is None else name, some))
    children += [(None, None) if some is None else (name, list(some)) for some in items]
    return _Node(f"object {_type_name(value)} {type(state).__name__}", children)


def _items(name: str | None, items: Iterable[tuple[object, object]], number: int) -> list[Child]:
    written = name is not None and number <= MOST
    return [(f"{name}[{key!r}]" if written and type(key) in LEAVES else None, part) for key, part in items]


def _code_text(code: types.CodeType) -> str:
    arguments = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return f"code {_hash(code.co_code, code.co_exceptiontable, *arguments, *names)}"


def _tensor_bytes(tensor: torch.Tensor) -> np.ndarray | None:
    """The numbers of a tensor, or None for sparse, quantized and similar tensors."""
    odd = tensor.is_quantized or tensor.is_meta or tensor.is_nested
    if tensor.layout != torch.strided or odd:
        return None
    whole = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return whole.reshape(-1).view(torch.uint8).numpy()


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, dict | list | tuple | set) and not value)


def _is_plain(value: object, depth: int = 3) -> bool:
    """Whether lists and tuples hold only leaves, so that they can be read at once."""
    if type(value) in (list, tuple):
        return depth > 0 and all(_is_plain(part, depth - 1) for part in value)  # pyright: ignore[reportGeneralTypeIssues]
    return type(value) in LEAVES


def _is_filled(cell: types.CellType) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:  # a variable without a value yet
        return False
    return True


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _short(text: str) -> str:
    """The text in full, or its beginning and a digest."""
    return text if len(text) <= SHORT else f"{text[:40]}... {_hash(text)[:16]}"


def _hash(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode(errors="surrogatepass")).hexdigest()
