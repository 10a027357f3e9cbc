"""Lazy logits: a linear head's output that is computed only when it is used."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(NamedTuple):
    """The logits scale * (W h + b) of a linear head, bent to softcap * tanh(z / softcap) if it has one."""

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    scale: float | None
    softcap: float | None


class LazyLogits(Tensor):
    """after * tanh(before * (W h + b)), or before * (W h + b), not yet computed.

    A factor, a bias, a soft cap and a conversion are recorded. Any other operation computes the logits.
    """

    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    before: float
    after: float | None  # None where there is no tanh

    @staticmethod
    def __new__(
        cls,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        before: float = 1.0,
        after: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> "LazyLogits":
        make: Any = Tensor._make_wrapper_subclass  # pyright: ignore[reportAttributeAccessIssue]
        shape = (*hidden.shape[:-1], weight.shape[0])
        with torch._C.DisableTorchFunctionSubclass():
            self: LazyLogits = make(cls, shape, dtype=dtype or _product_dtype(hidden), device=hidden.device)
        self.hidden, self.weight, self.bias = hidden, weight, bias
        self.before, self.after = before, after
        return self

    def head(self) -> Head:
        """As a linear head with a soft cap."""
        scale = self.before if self.after is None else self.before * self.after
        if math.isclose(scale, 1.0, rel_tol=1e-12):  # a division by the cap, and a product with it
            scale = None
        return Head(self.hidden, self.weight, self.bias, scale, self.after)

    def made(self) -> Tensor:
        """The logits, computed."""
        z = F.linear(self.hidden, self.weight, self.bias)
        z = z if self.before == 1.0 else z * self.before
        return (z if self.after is None else z.tanh() * self.after).to(self.dtype)

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"LazyLogits(shape={tuple(self.shape)}, dtype={self.dtype})"

    def _like(self, **changed: Any) -> "LazyLogits":
        own = {name: getattr(self, name) for name in ("hidden", "weight", "bias", "before", "after", "dtype")}
        return LazyLogits(**{**own, **changed})

    def _recorded(self, name: str, arguments: tuple[Any, ...]) -> "LazyLogits | None":
        """The lazy result of an operation, or None if it needs the values."""
        match name, arguments:
            case ("mul" | "__mul__" | "__rmul__", (Real() as factor,)):
                return self._scaled(float(factor))
            case ("div" | "__truediv__" | "true_divide", (Real() as divisor,)) if divisor:
                return self._scaled(1 / float(divisor))
            case ("tanh", ()) if self.after is None:
                return self._like(after=1.0)
            case ("add" | "__add__", (Tensor() as bias,)) if self._is_bias(bias):
                added = bias.reshape(-1) / self.before
                return self._like(bias=added if self.bias is None else self.bias + added)
            case ("float", ()):
                return self._like(dtype=torch.float32)
            case ("to" | "type", (torch.dtype() as dtype,)):
                return self._like(dtype=dtype)
            case ("to", (torch.device() | str() as device,)) if torch.device(device) == self.device:
                return self
            case ("contiguous", ()):
                return self
            case _:
                return None

    def _scaled(self, factor: float) -> "LazyLogits | None":
        if not 0 < factor < math.inf:
            return None
        if self.after is None:
            return self._like(before=self.before * factor)
        return self._like(after=self.after * factor)

    def _is_bias(self, x: Tensor) -> bool:
        """Whether x has one number per class and is added before a soft cap."""
        classes = self.shape[-1]
        plain = type(x) in (Tensor, torch.nn.Parameter, torch.nn.Buffer)
        return (
            plain and self.after is None and self.before != 0 and x.numel() == x.shape[-1:].numel() == classes
        )

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _WITHOUT_VALUES:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if args and isinstance(args[0], LazyLogits) and not kwargs:
            name = getattr(func, "__name__", "")
            if (recorded := args[0]._recorded(name, tuple(args[1:]))) is not None:
                return recorded
        with torch._C.DisableTorchFunctionSubclass():
            return func(*_made(args), **_made(kwargs))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} was asked of logits that were never made")


@contextmanager
def lazily(head: nn.Linear | None) -> Iterator[None]:
    """Let the output head return lazy logits; nothing changes if it is None."""
    if head is None:
        yield
        return
    vars(head)["forward"] = lambda hidden: LazyLogits(hidden, head.weight, head.bias)
    try:
        yield
    finally:
        del vars(head)["forward"]


_WITHOUT_VALUES: Final = {
    *(
        getattr(Tensor, name).__get__
        for name in (
            *("shape", "dtype", "device", "ndim", "layout", "requires_grad", "grad_fn", "is_leaf", "grad"),
            *("is_cpu", "is_cuda", "is_meta", "is_mps", "is_quantized", "is_sparse", "is_xpu"),
        )
    ),
    *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.is_floating_point, Tensor.__len__),
}


def _product_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype of the product of a linear head."""
    device = hidden.device.type
    if device != "meta" and torch.is_autocast_enabled(device) and hidden.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return hidden.dtype


def _made(x: Any) -> Any:
    """x with all lazy logits in it computed."""
    match x:
        case LazyLogits():
            return x.made()
        case torch.Size():
            return x
        case list() | tuple():
            return type(x)(map(_made, x))
        case dict():
            return {key: _made(value) for key, value in x.items()}
        case _:
            return x
