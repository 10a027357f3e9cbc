"""What the metrics are given, and its rows: each message names the argument, the value and the rule."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from labelsmooth._core.checks import ROUNDING, check_tensor

CHUNK: Final = 1 << 17  # numbers that are read at once: a MiB of float64 stays in a core's cache
SMALLEST: Final = torch.finfo(torch.float32).tiny  # of a probability, about 1e-38
WIDEST: Final = 1e90  # a temperature's bounds; the clamp of logits at -1e100 holds within


class Array(Protocol):
    """NumPy's arrays, and what makes one of itself."""

    def __array__(self) -> Any: ...


Given = Tensor | Array | Sequence[Any]
"""Logits or labels: a tensor, an array or a nested list."""


@dataclass(frozen=True)
class Rows:
    """Logits as they were given, and which of them count. They are read in chunks: no copy is made."""

    logits: Tensor  # (N, K)
    labels: Tensor | None = None  # (N,), int64
    counted: Tensor | None = None  # the rows that count, by number; all if None
    shape: torch.Size | None = None  # of the rows as they were given

    def __len__(self) -> int:
        return len(self.logits if self.counted is None else self.counted)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits in float64, ``(n, K)``, not to be written to, and labels, ``(n,)``; empty where none are."""
        step = max(1, CHUNK // self.logits.size(1))
        labels = self.logits.new_empty(len(self.logits), 0) if self.labels is None else self.labels
        for start in range(0, len(self), step):
            some = slice(start, start + step)
            at = some if self.counted is None else self.counted[some]
            yield self.logits[at].double(), labels[at]

    def every(self, step: int) -> "Rows":
        """Those of every ``step``-th that counts."""
        counted = (
            torch.arange(len(self.logits), device=self.logits.device)
            if self.counted is None
            else self.counted
        )
        return replace(self, counted=counted[::step])

    def place(self, position: int) -> int | tuple[int, ...]:
        """Where the caller has the row that is read at ``position``."""
        number = position if self.counted is None else int(self.counted[position])
        if self.shape is None or len(self.shape) == 1:
            return number
        return tuple(int(i) for i in torch.unravel_index(torch.tensor(number), self.shape))


def as_rows(logits: object, labels: object = None, ignore_index: int | None = -100) -> Rows:
    """Rows that a metric can be computed of: finite logits, no probabilities."""
    rows = as_labelled(logits, labels, ignore_index)
    check_finite(rows, masked=True)
    if are_probabilities(rows):
        raise ValueError(
            "logits must be logits, got probabilities: every row is at least 0 and sums to 1; "
            "give probabilities.log()"
        )
    return rows


def as_labelled(
    logits: object, labels: object, ignore_index: int | None, *, name: str = "logits", binary: bool = False
) -> Rows:
    """Rows whose shapes, types and labels are right; their logits may be anything.

    ``binary`` takes one column too, ``(N,)`` or ``(N, 1)``, which tells class 1 from class 0.
    """
    logits = as_logits(logits, name)
    if binary and (logits.dim() == 1 or logits.shape[1:] == (1,)):
        # The other class's: a logit of 0, or what is left of a probability.
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
        from_one = "; labels from 1 need labels - 1" if least == 1 and most == num_classes else ""
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
    """Whether no logit is NaN or infinite; ``masked`` classes may be at -inf where another is above."""
    start = 0
    for z, _ in rows.chunks():
        good = z.amax(-1).isfinite()  # NaN wins, and is not finite
        if not masked:
            good &= z.amin(-1).isfinite()
        if not bool(good.all()):
            first = int((~good).nonzero()[0])
            # Beside a class above it, a class at -inf is not what is wrong.
            bad = z[first][~z[first].isfinite()]
            odd = bad[bad != -math.inf]
            where = f"got {float(odd[0] if len(odd) else bad[0])} in row {rows.place(start + first)}"
            rule = "be finite, or -inf for some of a row's classes" if masked else "be finite"
            raise ValueError(f"logits must {rule}, {where}")
        start += len(z)


def check_possible(rows: Rows) -> None:
    """Whether every label has a probability above 0, without which the NLL is infinite."""
    start = 0
    for z, labels in rows.chunks():
        bad = z.gather(-1, labels.unsqueeze(-1)).squeeze(-1) == -math.inf
        if bool(bad.any()):
            first = int(bad.nonzero()[0])
            raise ValueError(
                "labels must name classes whose logits are above -inf, or the NLL is infinite at every "
                f"temperature, got class {int(labels[first])} in row {rows.place(start + first)}"
            )
        start += len(z)


def are_probabilities(rows: Rows) -> bool:
    """Whether every row is at least 0 and sums to 1, as logits hardly ever do; one class says nothing."""
    return rows.logits.size(1) > 1 and all(
        bool((z >= 0).all()) and bool(((z.sum(-1) - 1).abs() <= ROUNDING).all()) for z, _ in rows.chunks()
    )


def log_of_probabilities(rows: Rows) -> Tensor:
    """Logits of probabilities, ``(N, K)``: their logarithms, 0 as if it were ``SMALLEST``."""
    z = rows.logits
    good = (z >= 0).all(-1) & ((z.double().sum(-1) - 1).abs() <= ROUNDING)  # False of NaN
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
    """A whole number that fits into 64 bits, NumPy's too."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if not -(2**63) <= int(value) < 2**63:
        raise ValueError(f"{name} must fit into 64 bits, got {value}")
    return int(value)


def as_number(name: str, value: object, *, finite: bool = True) -> float:
    """A number above 0, NumPy's too, or a tensor of one."""
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
    """A tensor as it is, an array without a copy where torch can, numbers in lists in full."""
    if not isinstance(value, Tensor):
        is_array = hasattr(value, "__array__")
        try:
            if is_array:
                value = value.__array__()
                if any(stride < 0 for stride in value.strides):  # torch has none
                    value = value.copy()
            with warnings.catch_warnings():
                # Nothing is written to it, and a list may hold arrays.
                warnings.filterwarnings(
                    "ignore", "The given NumPy array is not writable|Creating a tensor from"
                )
                listed = torch.float64 if name in ("logits", "probabilities") and not is_array else None
                value = torch.as_tensor(value, dtype=listed)
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            batches = isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value)
            hint = "; join batches by torch.cat" if batches else ""
            raise ValueError(
                f"{name} must be a tensor, an array or a nested list of numbers, "
                f"got {type(value).__name__} ({error}){hint}"
            ) from None
    check_tensor(name, value)
    return value


def _hint(labels: Tensor, logits: Tensor) -> str:
    """What the caller may have meant."""
    shape = logits.shape[:-1]
    if labels.shape == shape and labels.is_floating_point():
        return "; labels.long() makes them integers"
    if labels.shape == logits.shape and labels.size(-1) > 1:
        return "; of one-hot labels take labels.argmax(-1)"
    if labels.shape == (*shape, 1):
        return "; take labels.squeeze(-1)"
    if logits.dim() > 2 and labels.shape == (logits.size(0), *logits.shape[2:]):
        return "; classes come last: take logits.movedim(1, -1)"
    return ""
