"""The Triton engine as an operator. Triton is imported on first use, as that takes a second and may fail."""

import os
from importlib.util import find_spec

from torch import Tensor

from labelsmooth._core.statistics import Measures
from labelsmooth._engines import reference
from labelsmooth._engines.operator import operator, unserved

_INSTALLED = find_spec("triton") is not None
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # for tests on a CPU


def absence() -> str | None:
    """Why the engine is not available, or None if it is."""
    if not _INSTALLED:
        return "triton is not installed"
    from labelsmooth._engines import triton

    return triton.absence()


def serves(z: Tensor, measures: Measures) -> str | None:
    """Why the engine cannot serve the call, or None if it can."""
    if not _INSTALLED:
        return "triton is not installed"
    if not z.is_cuda and not _INTERPRETED:
        return f"it runs on CUDA, and input is on {z.device}"
    return unserved(z, measures)


def forward(z: Tensor, measures: Measures) -> Tensor:
    from labelsmooth._engines import triton

    return triton.forward(z, measures)


def backward(
    grad: Tensor, z: Tensor, measures: Measures, statistics: Tensor, out: Tensor | None = None
) -> Tensor:
    from labelsmooth._engines import triton

    return triton.backward(grad, z, measures, statistics, out)


row_statistics = operator("triton", "CompositeExplicitAutograd", serves, forward, backward)
evaluate = reference.evaluate
