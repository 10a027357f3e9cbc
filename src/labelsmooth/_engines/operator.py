"""Engines as torch operators, which are opaque to torch.compile and differentiable any number of times.

The engine computes the gradient. If the gradient is differentiated or transformed in turn, the reference
computes it instead, in operations that torch can trace.
"""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from labelsmooth._core.modes import transformed
from labelsmooth._core.precision import compute_dtype
from labelsmooth._core.statistics import DIFFERENTIABLE, STATISTICS, Linear, Measures, RowStatistics
from labelsmooth._engines import reference
from labelsmooth._engines.layout import rows_like

LIBRARY = torch.library.Library("labelsmooth", "FRAGMENT")
# The fields of Measures, as a schema.
MEASURES = (
    "Tensor target, Tensor counted, Tensor? prior, Tensor? weight, bool exclude_target=False, "
    "Tensor? shares=None, bool per_row=False, Tensor? classes=None, float? margin=None, bool squared=False, "
    "bool spread=False"
)


# The dtypes of the kernels, in the compiled kernel's order, which native.py checks.
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def unserved(z: Tensor, measures: Measures) -> str | None:
    """Why no kernel serves the call on any device, or None if they do."""
    if z.dtype not in DTYPES:
        return f"it has no {z.dtype}"
    if measures.mixed:
        return "it does not mix priors by class: a (K, K) prior or off_target='others' with several labels"
    if measures.classes is not None and measures.margin is not None:
        return "it has no hinge over priors of a few classes each"
    return None


class Forward(Protocol):
    def __call__(self, z: Tensor, measures: Measures) -> Tensor:
        """The statistics of each row, stacked: (STATISTICS, ...)."""
        ...


class Backward(Protocol):
    def __call__(
        self,
        grad: Tensor,
        z: Tensor,
        measures: Measures,
        statistics: Tensor,
        out: Tensor | None = None,
    ) -> Tensor:
        """The gradient with respect to z, given the gradient with respect to the statistics.

        The latter is a stacked Gradient; ``out`` may be z.
        """
        ...


class Kernels(Protocol):
    """The forward and backward of an engine, for callers that run them outside of autograd."""

    @property
    def forward(self) -> Forward: ...

    @property
    def backward(self) -> Backward: ...

    @property
    def row_statistics(self) -> Callable[[Tensor, Measures], RowStatistics]:
        """The statistics by torch functions, which autograd and torch.compile support."""
        ...

    @property
    def evaluate(self) -> Callable[[Tensor, Linear], tuple[Tensor, Callable[[Tensor], Tensor]]]:
        """Losses that are linear in the statistics, (10, ...), and a function for their gradient.

        It takes the gradient with respect to the losses, and returns the gradient with respect to the
        differentiable statistics, (5, ...).
        """
        ...


def operator(
    name: str,
    device: str,
    serves: Callable[[Tensor, Measures], str | None],
    forward: Forward,
    backward: Backward,
    place: Callable[[Tensor], Tensor] = rows_like,
) -> Callable[[Tensor, Measures], RowStatistics]:
    """Register an engine as an operator, and return a function with the signature of the reference's.

    ``place`` allocates a tensor with the strides of the gradient that ``backward`` returns.
    """
    LIBRARY.define(f"{name}(Tensor z, {MEASURES}) -> Tensor")
    LIBRARY.define(f"{name}_backward(Tensor grad, Tensor z, Tensor statistics, {MEASURES}) -> Tensor")

    def forward_impl(z: Tensor, *measures: Any) -> Tensor:
        return forward(z, checked(z, Measures(*measures)))

    def backward_impl(grad: Tensor, z: Tensor, statistics: Tensor, *measures: Any) -> Tensor:
        return backward(grad, z, checked(z, Measures(*measures)), statistics)

    def checked(z: Tensor, measures: Measures) -> Measures:
        """Check a call again, as an operator can be called from outside of this package."""
        if obstacle := serves(z, measures):
            raise ValueError(f"the {name} engine cannot serve: {obstacle}")
        return measures

    LIBRARY.impl(name, forward_impl, device)
    LIBRARY.impl(f"{name}_backward", backward_impl, device)

    @torch.library.register_fake(f"labelsmooth::{name}", lib=LIBRARY)
    def _(z: Tensor, *measures: Any) -> Tensor:
        return z.new_empty((STATISTICS, *z.shape[:-1]), dtype=compute_dtype(z))

    @torch.library.register_fake(f"labelsmooth::{name}_backward", lib=LIBRARY)
    def _(grad: Tensor, z: Tensor, *rest: Any) -> Tensor:
        return place(z)

    op = getattr(torch.ops.labelsmooth, name).default
    op_backward = getattr(torch.ops.labelsmooth, f"{name}_backward").default

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        z, *measures = inputs
        ctx.save_for_backward(z, *Measures(*measures).tensors, output)
        ctx.options = [None if isinstance(x, Tensor) else x for x in measures]

    def differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        z, *tensors, statistics = ctx.saved_tensors
        measures = Measures(*ctx.options).with_tensors(*tensors)
        grad = grad[:DIFFERENTIABLE]
        if torch.is_grad_enabled() or transformed(grad):
            by_z = reference.gradient(grad, z, measures)
        else:
            by_z = op_backward(grad, z, statistics, *measures)
        return by_z, *[None] * len(measures)

    torch.library.register_autograd(
        f"labelsmooth::{name}", differentiate, setup_context=setup_context, lib=LIBRARY
    )

    def row_statistics(z: Tensor, measures: Measures) -> RowStatistics:
        return RowStatistics(*op(z, *measures).unbind())

    return row_statistics
