"""The plain loss in one pass of the CPU kernel: class indices, a uniform prior, one strength."""

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from labelsmooth._core.modes import plain, readable, recorded, transformed
from labelsmooth._core.statistics import class_dim_of
from labelsmooth._engines import dense
from labelsmooth._engines.operator import DTYPES
from labelsmooth._targets.criterion import DEFAULTS
from labelsmooth._targets.mixed import Mixed
from labelsmooth.schedules import Schedule


class OnePass(NamedTuple):
    """The arguments of :func:`labelsmooth._engines.uniform.eager`."""

    z: Tensor  # the classes last
    target: Tensor
    eps: float
    ignore_index: int
    divisor: float | None  # None: the number of rows that are not ignored


TAKEN = frozenset({"label_smoothing", "ignore_index", "reduction", "engine"})


def one_pass(
    input: Tensor,
    target: Tensor | Mixed,
    weight: Tensor | None,
    options: Mapping[str, Any],
    dim: int | None = None,
) -> OnePass | str:
    """The arguments of the one-pass kernel, or why it cannot serve the call.

    Invalid arguments are a reason too; the general path then raises the error.
    """
    compiling = torch.compiler.is_compiling()
    if compiling and torch.compiler.is_exporting():
        return "an exported graph has to run without this package"
    for name, value in options.items():
        default = DEFAULTS.get(name)
        if (
            name not in TAKEN
            and value is not default
            and not (type(value) is type(default) and value == default)
        ):
            return f"{name} is given"
    if weight is not None:
        return "weight is given"
    if isinstance(target, Mixed):
        return "target holds pairs of labels"
    if options.get("engine") not in (None, "dense"):
        return f"engine={options['engine']!r} is asked for"
    if dense.ABSENCE is not None:
        return dense.ABSENCE
    reduction = options.get("reduction", "mean")
    if reduction not in ("mean", "sum"):
        return f"reduction is {reduction!r}"
    own = _is_torchs if compiling else plain
    if not own(input) or not own(target):
        return "a tensor is of a subclass with a dispatch of its own"
    if not input.is_cpu or not target.is_cpu:
        return f"it runs on a CPU, and input is on {input.device}"
    if target.dtype != torch.int64:
        return f"target holds {target.dtype}, not int64 class indices"
    if input.dtype not in DTYPES or not input.dim():
        return f"it has no {input.dtype} of shape {tuple(input.shape)}"
    if transformed() or recorded() or forward_ad._current_level >= 0:
        return "a transform or somebody who records operators is at work"
    ignore_index = options.get("ignore_index", DEFAULTS["ignore_index"])
    if type(ignore_index) is not int or ignore_index.bit_length() > 63:
        return f"ignore_index is {ignore_index!r}"
    eps = _number(options.get("label_smoothing", DEFAULTS["label_smoothing"]))
    if not 0 <= eps <= 1:
        return "label_smoothing is not one number"
    dims = input.dim()
    class_dim = class_dim_of(dims, dim)
    if type(class_dim) is not int or not -dims <= class_dim < dims:
        return f"input has no class dimension {class_dim}"
    z = input if class_dim % dims == dims - 1 else input.movedim(class_dim, -1)
    if target.shape != z.shape[:-1] or not z.size(-1):
        return f"target has shape {tuple(target.shape)}"
    return OnePass(z, target, eps, ignore_index, None if reduction == "mean" else 1.0)


def _is_torchs(tensor: Tensor) -> bool:
    """:func:`labelsmooth._core.modes.plain` for torch.compile."""
    return type(tensor) in (Tensor, nn.Parameter)


def _number(eps: Any) -> float:
    """The strength as a number, or NaN if it is not a single one."""
    if type(eps) is float:
        return eps
    eps = eps.eps if isinstance(eps, Schedule) else eps
    if type(eps) is Tensor and readable(eps) and not eps.dim() and not eps.requires_grad:
        eps = eps.item()
    return float(eps) if isinstance(eps, (float, int, Real)) else math.nan
