"""How a module stores and shows its options."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any, Self

import torch
from torch import Tensor, nn

from labelsmooth._core.modes import readable
from labelsmooth._core.precision import accurate


class Exact(nn.Module):
    """A module that keeps its floating-point buffers in float32 or float64.

    ``half()`` and loading a half-precision state do not round them. Parameters are cast as usual.
    """

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        exact = dict(self._buffers)
        super()._apply(*args, **kwargs)
        for name, moved in self._buffers.items():
            before = exact[name]
            if before is None or moved is None or not moved.is_floating_point():
                continue
            if before.is_meta and not moved.is_meta:
                moved.fill_(torch.nan)  # uninitialised memory: the loss is NaN until it is loaded or reset
            elif moved.dtype != accurate(moved.dtype):
                self._buffers[name] = widened(before.to(moved.device))
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        for name, loaded in self._buffers.items():
            self._buffers[name] = None if loaded is None else widened(loaded)


def widened(x: Tensor) -> Tensor:
    """Convert half precision to float32; other tensors are unchanged."""
    return x.to(accurate(x.dtype)) if x.is_floating_point() else x


def keep(module: nn.Module, name: str, option: object) -> None:
    """Store an option of a module: None or a plain tensor as a buffer, anything else as an attribute."""
    if option is None or (isinstance(option, Tensor) and not isinstance(option, nn.Parameter)):
        module.register_buffer(name, None if option is None else widened(option))
    else:
        setattr(module, name, own(option))


def moved(parts: Iterable[Any], move: Callable[[Tensor], Tensor]) -> list[Any]:
    """The parts in their order, the tensors among them moved."""
    return [move(x) if isinstance(x, Tensor) else x for x in parts]


def own(option: Any) -> Any:
    """Convert a NumPy number to a Python number, as torch.compile does not support it."""
    number: Any = option
    return number.item() if isinstance(option, Real) and not isinstance(option, (int, float)) else option


def shown(options: Mapping[str, object]) -> str:
    """The text for ``extra_repr``. Options that are modules, such as schedules, are shown as submodules."""
    return ", ".join(
        f"{name}={_told(value) if isinstance(value, Tensor) else value}"
        for name, value in options.items()
        if value is not None and not isinstance(value, nn.Module)
    )


def _told(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}" if tensor.dim() or not readable(tensor) else f"{tensor:.6g}"
