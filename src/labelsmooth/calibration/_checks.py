"""Validation of logits, labels and options, and iteration over their rows."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from labelsmooth._core.checks import ROUNDING, check_tensor

CHUNK: Final = 1 << 17  # numbers in a chunk: 1 MiB of float64, which fits into a core's cache
SMALLEST: Final = torch.finfo(torch.float32).tiny  # the smallest probability, about 1e-38
WIDEST: Final = 1e90  # limits the bounds of a temperature, so that the clamp of logits at -1e100 works


class Array(Protocol):
    """A NumPy array, or an object that converts itself to one."""

    def __array__(self) -> Any: ...


Given = Tensor | Array | Sequence[Any]
"""Logits or labels: a tensor, an array or a nested list."""


@dataclass(frozen=True)
class Rows:
    """The given logits, and the rows that are not ignored. They are read in chunks, without a copy."""

    logits: Tensor  # (N, K)
    labels: Tensor | None = None  # (N,), int64
    counted: Tensor | None = None  # indices of the rows that are not ignored; all if None
    shape: torch.Size | None = None  # the original shape of the rows

    def __len__(self) -> int:
        return len(self.logits if self.counted is None else self.counted)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits in float64, ``(n, K)``, read-only, and labels, ``(n,)``, or ``(n, 0)`` without labels."""
        step = max(1, CHUNK // self.logits.size(1))
        labels = self.logits.new_empty(len(self.logits), 0) if self.labels is None else self.labels
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            at = some if self.counted is None else self.counted[some]
            yield self.logits[at].double(), labels[at]

    def every(self, step: int) -> "Rows":
        """Every ``step``-th of the rows that are not ignored."""
        counted = (
            torch.arange(len(self.logits), device=self.logits.device)
            if self.counted is None
            else self.counted
        )
        return replace(self, counted=counted[::step])

    def place(self, position: int) -> int | tuple[int, ...]:
        """The caller's index of the row at ``position``."""
        number = position if self.counted is None else int(self.counted[position])
        if self.shape is None or len(self.shape) == 1:
            return number
        return tuple(int(i) for i in torch.unravel_index(torch.tensor(number), self.shape))


def as_rows(logits: object, labels: object = None, ignore_index: int | None = -100) -> Rows:
    """Validated rows for a metric: finite logits, not probabilities."""
    rows = as_labelled(logits, labels, ignore_index)
    check_finite(rows, masked=True)
    if are_probabilities(rows):
        raise ValueError(
            "logits must be logits, got probabilities: every row is at least 0 and sums to 1; "
            "pass probabilities.log()"
        )
    return rows


def as_labelled(
    logits: object, labels: object, ignore_index: int | None, *, name: str = "logits", binary: bool = False
) -> Rows:
    """Rows with valid shapes, dtypes and labels; the values of the logits are not checked.

    ``binary`` also accepts a single column, ``(N,)`` or ``(N, 1)``, for class 1 of two classes.
    """
    logits = as_logits(logits, name)
    if binary and (logits.dim() == 1 or logits.shape[1:] == (1,)):
        # Class 0 has the logit 0, or the complementary probability.
        column = logits.reshape(-1, 1)
        logits = torch.cat([torch.zeros_like(column) if name == "logits" else 1 - column, column], 1)
    if logits.dim() < 2:
        raise ValueError(_shape_rule(name, logits))
    shape, num_classes = logits.shape[:-1], logits.size(-1)
    flat = logits if logits.dim() == 2 else logits.reshape(-1, num_classes)
    if labels is None:
        return Rows(flat, shape=shape)
    labels = as_tensor("labels", labels)
    if labels.device != logits.device:
        raise ValueError(f"labels must be on the logits' device {logits.device}, got {labels.device}")
    whole = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if labels.shape != shape or not whole:
        raise ValueError(
            f"labels must be integers of shape {tuple(shape)}, got {labels.dtype} {tuple(labels.shape)}"
            + _hint(labels, logits)
        )
    labels = labels.reshape(-1).long()
    counted = None
    if ignore_index is not None:
        if not isinstance(ignore_index, Integral) or isinstance(ignore_index, bool):
            raise ValueError(f"ignore_index must be an integer or None, got {ignore_index!r}")
        kept = labels != int(ignore_index)
        if not bool(kept.all()):
            counted = kept.nonzero().squeeze(-1)
            if not len(counted):
                raise ValueError(
                    f"labels must name a class in at least one row, got ignore_index={ignore_index} in all"
                )
    present = labels if counted is None else labels[counted]
    least, most = int(present.min()), int(present.max())
    if not 0 <= least <= most < num_classes:
        ignored = "" if ignore_index is None else f"; rows of ignore_index={ignore_index} are left out"
        from_one = "; if labels start at 1, pass labels - 1" if least == 1 and most == num_classes else ""
        raise ValueError(f"labels must lie in [0, {num_classes}), got {least} to {most}{ignored}{from_one}")
    return Rows(flat, labels, counted, shape)


def as_logits(logits: object, name: str = "logits") -> Tensor:
    logits = as_tensor(name, logits).detach()
    if not logits.dim() or not logits.is_floating_point():
        raise ValueError(_shape_rule(name, logits))
    if not logits.numel():
        raise ValueError(f"{name} must have at least one row and class, got shape {tuple(logits.shape)}")
    return logits


def _shape_rule(name: str, got: Tensor) -> str:
    rule = "be floating point of shape (..., K), classes last, such as (N, K)"
    return f"{name} must {rule}, got {got.dtype} {tuple(got.shape)}"


def check_finite(rows: Rows, *, masked: bool) -> None:
    """Raise a ``ValueError`` for NaN or infinite logits; ``masked`` allows -inf for some classes of a row."""
    start = 0
    for z, _ in rows.chunks():
        good = z.amax(-1).isfinite()  # amax propagates NaN
        if not masked:
            good &= z.amin(-1).isfinite()
        if not bool(good.all()):
            first = int((~good).nonzero()[0])
            # Names NaN or +inf rather than -inf, which may be a masked class.
            bad = z[first][~z[first].isfinite()]
            odd = bad[bad != -math.inf]
            where = f"got {float(odd[0] if len(odd) else bad[0])} in row {rows.place(start + first)}"
            rule = "be finite, or -inf for some of a row's classes" if masked else "be finite"
            raise ValueError(f"logits must {rule}, {where}")
        start += len(z)


def check_possible(rows: Rows) -> None:
    """Raise a ``ValueError`` if a label has probability 0, since its NLL is infinite."""
    start = 0
    for z, labels in rows.chunks():
        bad = z.gather(-1, labels.unsqueeze(-1)).squeeze(-1) == -math.inf
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                "labels must name classes with logits above -inf, or the NLL is infinite at every "
                f"temperature, got class {int(labels[first])} in row {rows.place(start + first)}"
            )
        start += len(z)


def are_probabilities(rows: Rows) -> bool:
    """Whether every row is at least 0 and sums to 1, which is unlikely for logits of two classes or more."""
    return rows.logits.size(1) > 1 and all(
        bool((z >= 0).all()) and bool(((z.sum(-1) - 1).abs() <= ROUNDING).all()) for z, _ in rows.chunks()
    )


def log_of_probabilities(rows: Rows) -> Tensor:
    """The logarithms of probabilities, ``(N, K)``, with 0 replaced by ``SMALLEST``."""
    z = rows.logits
    good = (z >= 0).all(-1) & ((z.double().sum(-1) - 1).abs() <= ROUNDING)  # False for NaN
    if not bool(good.all()):
        first = int((~good).nonzero()[0])
        total = float(z[first].double().sum())
        raise ValueError(
            f"probabilities must be at least 0 and sum to 1 in every row, got {z[first].tolist()}, whose sum "
            f"is {total:.6g}, in row {rows.place(first)}; {ROUNDING:g} is allowed for rounding"
        )
    return z.to(torch.promote_types(z.dtype, torch.float32)).clamp_min(SMALLEST).log()


def as_count(name: str, value: object) -> int:
    if as_integer(name, value) < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return as_integer(name, value)


def as_integer(name: str, value: object) -> int:
    """An integer, also NumPy's, that fits into 64 bits."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{name} must fit into 64 bits, got {value}")
    return int(value)


def as_number(name: str, value: object, *, finite: bool = True) -> float:
    """A number above 0, also NumPy's, or a tensor with one element."""
    one = isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex()
    if not (one or isinstance(value, Real)) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r}")
    number = float(value.detach() if isinstance(value, Tensor) else value)  # pyright: ignore[reportArgumentType]
    if not number > 0 or (finite and number == math.inf):
        raise ValueError(f"{name} must be {'finite and ' if finite else ''}above 0, got {number}")
    return number


def as_bounds(bounds: object) -> tuple[float, float]:
    try:
        low, high = (as_number("bounds", bound) for bound in bounds)  # pyright: ignore[reportGeneralTypeIssues]
        if not low < high:
            raise ValueError("bounds must increase")
    except (TypeError, ValueError):
        raise ValueError(f"bounds must be two increasing positive numbers, got {bounds!r}") from None
    if not 1 / WIDEST <= low < high <= WIDEST:
        raise ValueError(f"bounds must lie in [{1 / WIDEST}, {WIDEST}], got {bounds!r}")
    return low, high


def as_tensor(name: str, value: Any) -> Tensor:
    """A tensor unchanged, an array without a copy if possible, or nested lists in float64."""
    if not isinstance(value, Tensor):
        is_array = hasattr(value, "__array__")
        try:
            if is_array:
                value = value.__array__()
                if any(stride < 0 for stride in value.strides):  # torch has no negative strides
                    value = value.copy()
            with warnings.catch_warnings():
                # The tensor is only read, and a list may hold arrays.
                warnings.filterwarnings(
                    "ignore", "The given NumPy array is not writable|Creating a tensor from"
                )
                listed = torch.float64 if name in ("logits", "probabilities") and not is_array else None
                value = torch.as_tensor(value, dtype=listed)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            batches = isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value)
            hint = "; join batches with torch.cat" if batches else ""
            raise ValueError(
                f"{name} must be a tensor, an array or a nested list of numbers, "
                f"got {type(value).__name__} ({error}){hint}"
            ) from None
    check_tensor(name, value)
    return value


def _hint(labels: Tensor, logits: Tensor) -> str:
    """A hint at the likely fix."""
    shape = logits.shape[:-1]
    if labels.shape == shape and labels.is_floating_point():
        return "; pass labels.long()"
    if labels.shape == logits.shape and labels.size(-1) > 1:
        return "; for one-hot labels pass labels.argmax(-1)"
    if labels.shape == (*shape, 1):
        return "; pass labels.squeeze(-1)"
    if logits.dim() > 2 and labels.shape == (logits.size(0), *logits.shape[2:]):
        return "; classes come last: pass logits.movedim(1, -1)"
    return ""
