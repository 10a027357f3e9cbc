"""The one place that validates: every message names the argument, the value and the rule."""

import difflib
import functools
import inspect
import math
import sys
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral, Real
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, TypeGuard

import torch
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

P = ParamSpec("P")
NO_DISPATCH: Final = Tensor.__torch_dispatch__  # pyright: ignore[reportAttributeAccessIssue]
DEPTH_IS_TRACED: Final = torch.__version__ >= "2.13"


def readable(*tensors: Tensor) -> bool:
    """Whether values may be read: eagerly, on a CPU, outside every transform. Elsewhere it would cost a
    synchronisation or a graph break, or is impossible."""
    return (
        not torch.compiler.is_compiling()
        and not transformed()
        and not recorded()
        and all(plain(t) and t.device.type == "cpu" for t in tensors)
    )


def transformed(*tensors: Tensor) -> bool:
    """Whether a transform of ``torch.func`` is at work, or one of the tensors is a batch of gradients."""
    functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]
    # Of the ways to ask, torch.compile understands the first since 2.13, and before that the second.
    if DEPTH_IS_TRACED:
        if functorch.get_dynamic_layer_stack_depth() > 0:
            return True
    elif functorch.maybe_current_level() is not None:
        return True
    return bool(tensors) and any(map(functorch.is_legacy_batchedtensor, tensors))


def recorded() -> bool:
    """Whether somebody records or fakes torch's operators, to whom values do not exist."""
    if torch.compiler.is_compiling():  # whose older versions cannot ask the rest
        return False
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or _get_current_dispatch_mode() is not None


def captured() -> bool:
    """Whether operators go into a graph, which sees what a kernel does if that is an operator too."""
    if torch.compiler.is_compiling():
        return True
    proxy = torch._C._TorchDispatchModeKey.PROXY  # pyright: ignore[reportAttributeAccessIssue]
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return tracing or torch._C._get_dispatch_mode(proxy) is not None


def plain(tensor: Tensor) -> bool:
    """Whether its numbers lie in memory with strides: torch's own kind, or a subclass without a dispatch."""
    kind = type(tensor)
    own = kind in (Tensor, torch.nn.Parameter) or getattr(kind, "__torch_dispatch__", None) is NO_DISPATCH
    return own and tensor.layout is torch.strided and not tensor._is_zerotensor()


def is_dtensor(x: object) -> "TypeGuard[DTensor]":
    """Whether x is a DTensor, without importing what would tell."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def check_choice(name: str, value: object, choices: Any) -> None:
    """``choices`` is a Literal type."""
    allowed = choices.__args__  # get_args is beyond older versions of torch.compile
    if not isinstance(value, str) or value not in allowed:  # an array would compare by element
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")


def check_tensor(name: str, value: object, *, typed: bool = False) -> None:
    """``typed`` where the caller has a rule of its own for the type."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a tensor, got {type(value).__name__}")
    if not typed and value.is_complex():
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")
    if value.is_quantized:
        raise ValueError(f"{name} must not be quantized, got {value.dtype}")
    if value.layout is not torch.strided:
        raise ValueError(f"{name} must be dense, got {value.layout}")


def check_local(**tensors: object) -> None:
    """Whether none is a DTensor, whose numbers lie in several processes."""
    for name, value in tensors.items():
        if is_dtensor(value):
            raise ValueError(
                f"{name} must be a plain tensor here, got a DTensor placed by {value.placements}"
            )


def check_values(name: str, rule: str, values: Tensor, good: Tensor) -> None:
    if readable(values, good) and not bool(good.all()):
        raise ValueError(f"{name} must {rule}, got {_first(values, ~good)}")


def check_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


PARTS: Final = ("probabilities", "classes", "first", "second", "lam", "eps")
"""Where a prior, labels that are mixed, and a strength by class or over time keep their tensors."""


def check_devices(device: torch.device, **others: object) -> None:
    """Whether all tensors of a call are on the device of its input."""
    for name, value in others.items():
        if value is None or isinstance(value, (int, float)):  # of which torch.compile knows no attributes
            continue
        held = {"": value} if isinstance(value, Tensor) else {p: getattr(value, p, None) for p in PARTS}
        for part, x in held.items():
            if not isinstance(x, Tensor) or x.device == device:
                continue
            # A number on a CPU goes with every device, as in torch; a label is an index, and does not.
            number = x.dim() == 0 or name == "denominator"
            if not number or x.device.type != "cpu" or (name == "target" and part != "lam"):
                raise ValueError(f"{name} must be on input's device {device}, got {x.device}")


def check_number(name: str, value: object, *, above_zero: bool = False) -> None:
    if not isinstance(value, (int, float, Real)):
        raise ValueError(f"{name} must be a number, got {type(value).__name__}")
    number: Any = value
    if not 0 <= number < float("inf") or (above_zero and not number):
        raise ValueError(f"{name} must be finite and {'above' if above_zero else 'at least'} 0, got {value}")


class Interval(NamedTuple):
    """From ``low`` to ``high``, with both of them unless one is infinite, or ``high`` left out."""

    low: float
    high: float
    open: bool = False

    def has(self, x: Any) -> Any:
        below = x < self.high if self.open or self.high == math.inf else x <= self.high
        return (x >= self.low) & below & (x > -math.inf)

    def __str__(self) -> str:
        left = "(" if self.low == -math.inf else "["
        right = ")" if self.open or self.high == math.inf else "]"
        return f"{left}{self.low:g}, {self.high:g}{right}"


UNIT = Interval(0, 1)


def check_strength(name: str, eps: object, within: Interval = UNIT) -> None:
    if not isinstance(eps, (Tensor, int, float, Real)):
        raise ValueError(f"{name} must be a number or a tensor, got {type(eps).__name__}")
    if isinstance(eps, Tensor):
        check_tensor(name, eps)
        if readable(eps) and not bool(within.has(eps).all()):
            raise ValueError(f"{name} must lie in {within}, got {_first(eps, ~within.has(eps))}")
    elif not within.has(eps):
        raise ValueError(f"{name} must lie in {within}, got {eps}")


def check_broadcasts(name: str, value: Tensor, shape: torch.Size, what: str, hint: str = "") -> None:
    """Whether ``value`` broadcasts against ``shape`` without enlarging it."""
    trailing = shape[len(shape) - value.dim() :] if value.dim() <= len(shape) else None
    if trailing is None or any(v not in (1, s) for v, s in zip(value.shape, trailing, strict=True)):
        raise ValueError(
            f"{name} must broadcast against {what} {tuple(shape)}, got {tuple(value.shape)}{hint}"
        )


def check_one(name: str, eps: object) -> None:
    """Whether a strength is one for all."""
    if isinstance(eps, Tensor):
        hint = "; CrossEntropyLoss takes one for each sample, or by_class(...)"
        check_broadcasts(name, eps, torch.Size(), "a scalar's shape", hint)


ROUNDING: Final = torch.finfo(torch.bfloat16).eps
"""What the sum of a distribution may differ from 1 by: it may have been of a short type before."""


def as_strength(
    name: str, eps: float | Tensor, like: Tensor, what: str, within: Interval = UNIT, hint: str = ""
) -> Tensor:
    """A strength as a tensor that broadcasts against ``like``, and in its type; NaN where out of range."""
    check_strength(name, eps, within)
    if isinstance(eps, Tensor):
        check_broadcasts(name, eps, like.shape, what, hint)
        eps = eps.to(like.dtype)
        eps = torch.where(within.has(eps), eps, torch.nan)
        return eps if eps.device == like.device else like.new_ones(()) * eps  # a number on a CPU
    return like.new_ones(()) * eps  # arithmetic: torch.compile keeps the float open, one graph for all


def check_prior(prior: Tensor, num_classes: int) -> None:
    check_prior_shape(prior, num_classes)
    if not prior.is_floating_point():
        raise ValueError(f"prior must be floating point, got {prior.dtype}")
    if readable(prior):
        if not bool((prior >= 0).all()):
            raise ValueError(f"prior must not be negative or NaN, got {_first(prior, ~(prior >= 0))}")
        total = prior.sum(-1, dtype=torch.float64)
        sums_to_1 = (total - 1).abs() <= ROUNDING
        if not bool(sums_to_1.all()):
            raise ValueError(f"prior must sum to 1, got {_first(total, ~sums_to_1)}")


def check_prior_shape(prior: Tensor, num_classes: int) -> None:
    check_tensor("prior", prior, typed=True)
    check_local(prior=prior)
    # Number by number: a symbolic one is not found in a tuple.
    if prior.dim() not in (1, 2) or any(size != num_classes for size in prior.shape):
        raise ValueError(
            f"prior must have shape (K,) or (K, K) with K={num_classes} classes, got {tuple(prior.shape)}"
            + ("; see priors.per_sample for one of each sample" if prior.dim() > 1 else "")
        )


def check_weighting(weighting: str, weight: object) -> None:
    if weighting == "sample" and weight is None:
        raise ValueError('weighting="sample" goes with weight only, got weight=None')


def check_class_weight(weight: Tensor, num_classes: int) -> None:
    check_tensor("weight", weight)
    check_local(weight=weight)
    if tuple(weight.shape) != (num_classes,):
        raise ValueError(
            f"weight must have shape (K,) with K={num_classes} classes, got {tuple(weight.shape)}"
        )


def check_head(input: Tensor, linear_weight: Tensor, linear_bias: Tensor | None) -> torch.dtype:
    """Whether the parts of a linear head fit together; the type that its product is computed in."""
    given = {"input": input, "linear_weight": linear_weight, "linear_bias": linear_bias}
    check_local(**given)
    for name, value in given.items():
        if name == "linear_bias" and value is None:
            continue
        check_tensor(name, value, typed=True)
        if not value.is_floating_point():
            raise ValueError(f"{name} must be floating point, got {value.dtype}")
    if linear_weight.dim() < 2 or linear_weight.size(0) == 0:
        raise ValueError(f"linear_weight must have shape (K, D), got {tuple(linear_weight.shape)}")
    features = linear_weight.size(-1)
    if input.dim() == 0 or input.size(-1) != features:
        raise ValueError(
            f"input must have shape (..., D) with D={features} as linear_weight, got {tuple(input.shape)}"
        )
    if linear_weight.dim() > 2 and input.dim() != 2:
        raise ValueError(
            f"input must have shape (N, D) for linear_weight of shape {tuple(linear_weight.shape)}, "
            f"got {tuple(input.shape)}"
        )
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:-1]:
        raise ValueError(
            f"linear_bias must have shape {tuple(linear_weight.shape[:-1])}, got {tuple(linear_bias.shape)}"
        )
    check_devices(input.device, linear_weight=linear_weight, linear_bias=linear_bias)
    device = input.device.type
    if autocast(device) and input.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    for name, value in given.items():
        if value is not None and value.dtype != input.dtype:
            raise ValueError(f"{name} must have input's type {input.dtype}, got {value.dtype}")
    return input.dtype


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


def check_denominator(denominator: float | Tensor, reduction: str) -> None:
    if reduction != "mean":
        raise ValueError(f'denominator goes with reduction="mean" only, got reduction={reduction!r}')
    if isinstance(denominator, Tensor):
        check_tensor("denominator", denominator)
        if denominator.numel() != 1:
            raise ValueError(
                f"denominator must be one number, got a tensor of shape {tuple(denominator.shape)}"
            )
        if not readable(denominator):
            return
    elif not isinstance(denominator, (int, float, Real)):
        raise ValueError(f"denominator must be a number or a tensor, got {type(denominator).__name__}")
    if not denominator >= 0:
        raise ValueError(f"denominator must not be negative or NaN, got {denominator}")


CLASSES_LAST: Final = (
    "; as in torch, the classes are in dimension 1: where they are last in input, take "
    "input.movedim(-1, 1), or input.flatten(0, -2) and target.flatten()"
)


def as_rows(input: Tensor, class_dim: int | None = None) -> Tensor:
    """Logits with the classes last: from torch's dimension unless given, 1, or 0 in unbatched logits."""
    check_tensor("input", input, typed=True)
    check_local(input=input)
    if class_dim is None:
        class_dim = min(1, input.dim() - 1)
    elif not isinstance(class_dim, Integral):
        raise ValueError(f"dim must be an integer, got {class_dim!r}")
    if not input.is_floating_point():
        raise ValueError(f"input must hold floating-point logits, got {input.dtype}")
    if input.dim() == 0 or not -input.dim() <= class_dim < input.dim():
        raise ValueError(f"input of shape {tuple(input.shape)} has no class dimension {class_dim}")
    if input.size(class_dim) == 0:
        raise ValueError(f"input must have at least one class, got shape {tuple(input.shape)}")
    return input.movedim(class_dim, -1)


def as_targets(
    target: Tensor,
    shape: torch.Size,
    class_dim: int | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    ignore_index: int | None = -100,
    sample_weight: Tensor | None = None,
    soft: bool = True,
) -> tuple[Tensor, Tensor]:
    """Validate the targets of logits of that shape: the targets, classes last, and which of them count.

    Those that do not count are blanked out. No index is ignored if none is named. Class probabilities are
    taken if ``soft``.
    """
    check_tensor("target", target, typed=True)
    check_local(target=target, sample_weight=sample_weight)
    if not isinstance(
        ignore_index, (Integral, float, Tensor, torch.SymInt, NoneType)
    ):  # 1.0 is 1, numpy's too
        raise ValueError(f"ignore_index must be an integer, got {ignore_index!r}")
    if isinstance(ignore_index, Tensor):
        check_tensor("ignore_index", ignore_index)
        if ignore_index.dim():
            raise ValueError(f"ignore_index must be one number, got shape {tuple(ignore_index.shape)}")
    if class_dim is None:
        class_dim = min(1, len(shape) - 1)
    class_dim %= len(shape)
    num_classes, rows = shape[class_dim], shape[:class_dim] + shape[class_dim + 1 :]
    if target.shape == rows:
        counted, target = _hard_target(target, num_classes, ignore_index)
    elif target.shape == shape and soft and target.is_floating_point():
        counted, target = _soft_target(target, class_dim, ignore_index, dtype)
    elif target.shape == shape:
        probabilities = ", or floating-point class probabilities" if soft else ""
        raise ValueError(
            f"target must hold class indices of shape {tuple(rows)}{probabilities}; of one-hot labels take "
            f"target.argmax({class_dim}); got {target.dtype} of shape {tuple(shape)}"
        )
    else:
        probabilities = f" or {tuple(shape)} (class probabilities)" if soft else ""
        raise ValueError(
            f"target must have shape {tuple(rows)} (class indices){probabilities} for input of shape "
            f"{tuple(shape)}, got {tuple(target.shape)}{_meant(target, shape, class_dim)}"
        )
    if sample_weight is not None:
        check_tensor("sample_weight", sample_weight)
        check_broadcasts("sample_weight", sample_weight, rows, "the rows'")
        counted = counted & (sample_weight != 0)
    if target.is_floating_point():
        return blanked(target, counted), counted
    target = target.masked_fill(~counted, 0)
    if readable(target) and target.numel() and not 0 <= int(target.min()) <= int(target.max()) < num_classes:
        ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
        found = _first(target, (target < 0) | (target >= num_classes))
        hint = "; CrossEntropyLoss has an ignore_index"
        raise ValueError(
            f"target must hold class indices in [0, {num_classes}){ignored}, got {found}"
            + (hint if ignore_index is None and found < 0 else "")
        )
    return target, counted


def blanked(x: Tensor, counted: Tensor) -> Tensor:
    """``x`` with zeros in the rows that do not count; no copy where it is seen to change nothing."""
    blank = ~counted
    needed = not readable(blank) or bool(blank.any())
    return x.masked_fill(blank.unsqueeze(-1), 0.0) if needed else x


def as_given(device: torch.device) -> AbstractContextManager[object]:
    """Products in the types that they are given in, which autocast would shorten."""
    return torch.autocast(device.type, enabled=False) if autocast(device.type) else nullcontext()


def autocast(device: str) -> bool:
    """Whether products on such a device are shortened."""
    # The meta device has none, and to ask it whether it has is beyond older versions of torch.compile.
    return device != "meta" and torch.is_autocast_enabled(device)


def compute_dtype(input: Tensor) -> torch.dtype:
    return accurate(input.dtype)


def accurate(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything else is computed, and returned, in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _meant(target: Tensor, shape: torch.Size, class_dim: int) -> str:
    """What to do about targets whose shape is a common mistake, for a message."""
    if target.shape == (*shape[:class_dim], 1, *shape[class_dim + 1 :]):
        return f"; take target.squeeze({class_dim})"
    last = len(shape) - 1
    if class_dim == 1 < last and target.shape == shape[:-1]:
        return CLASSES_LAST
    if class_dim == last > 1 and target.shape == shape[:1] + shape[2:]:
        return "; the classes are in the last dimension: give dim=1 where they are not"
    return ""


def _hard_target(target: Tensor, num_classes: int, ignore_index: int | None) -> tuple[Tensor, Tensor]:
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ValueError(
            f"target must hold integer class indices when its shape is the input's without the "
            f"{num_classes} classes, got {target.dtype}"
            + ("; of labels take target.long()" if target.is_floating_point() else "")
        )
    target = target.long()
    counted = torch.ones_like(target, dtype=torch.bool) if ignore_index is None else target != ignore_index
    return counted, target


def _soft_target(
    target: Tensor, class_dim: int, ignore_index: int | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    if ignore_index is not None and ignore_index >= 0:
        raise ValueError(
            f"ignore_index goes with class indices only, got {ignore_index}; "
            "for class probabilities, give ignored rows a sample_weight of 0"
        )
    target = target.movedim(class_dim, -1).to(dtype)
    return torch.ones(target.shape[:-1], dtype=torch.bool, device=target.device), target


def _first(values: Tensor, bad: Tensor) -> float | int:
    """The first bad value, for a message."""
    return values.detach()[bad][0].item()
