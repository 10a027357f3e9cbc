"""Options of a module: how it keeps them, and shows them."""

from collections.abc import Mapping

from torch import Tensor, nn

from labelsmooth.checks import readable


def keep(module: nn.Module, name: str, option: object) -> None:
    """A tensor as a buffer, so that it moves with the module; a parameter, or anything else, as it is."""
    if option is None or (isinstance(option, Tensor) and not isinstance(option, nn.Parameter)):
        module.register_buffer(name, option)
    else:
        setattr(module, name, option)


def shown(options: Mapping[str, object]) -> str:
    """For ``extra_repr``. A module, such as a schedule, shows itself inside of the one that holds it."""
    return ", ".join(
        f"{name}={_told(value) if isinstance(value, Tensor) else value}"
        for name, value in options.items()
        if value is not None and not isinstance(value, nn.Module)
    )


def _told(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)}" if tensor.dim() or not readable(tensor) else f"{tensor:.6g}"
