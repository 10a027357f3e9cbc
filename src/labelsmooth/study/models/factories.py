"""Models by name: a built-in model, or a function in a module of the user."""

import difflib
import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import nn

from labelsmooth.study.models.cnn import CNN

Factory = Callable[..., nn.Module]  # called with num_classes=K and inputs=(D,), or (C, H, W) for images
HIDDEN, WIDTH, DROPOUT = 256, 16, 0.5


def mlp(*, num_classes: int, inputs: tuple[int, ...]) -> nn.Module:
    """Two hidden layers with dropout."""
    return nn.Sequential(
        nn.Flatten(), *_hidden(math.prod(inputs)), *_hidden(HIDDEN), nn.Linear(HIDDEN, num_classes)
    )


def cnn(*, num_classes: int, inputs: tuple[int, ...]) -> nn.Module:
    """A small residual network, for images."""
    if len(inputs) != 3:
        raise ValueError(f"model cnn requires images, (C, H, W), got rows of shape {inputs}")
    return CNN(inputs[0], WIDTH, num_classes)


def linear(*, num_classes: int, inputs: tuple[int, ...]) -> nn.Module:
    """Logistic regression."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(inputs), num_classes))


def factory(name: str) -> Factory:
    """The factory of a model by its name: ``mlp``, ``cnn``, ``linear`` or ``module:function``.

    It is called as ``function(num_classes=K, inputs=shape)``, with the shape of one row: ``(D,)``, or
    ``(C, H, W)`` for images. The current folder is searched for the module, too.

    Raises:
        ValueError: if there is no such model, module or function.
    """
    match name:
        case "mlp":
            return mlp
        case "cnn":
            return cnn
        case "linear":
            return linear
    module_name, colon, function = name.partition(":")
    if not (module_name and colon and function):
        raise ValueError(f"model must be mlp, cnn, linear or module:function, got {name!r}")
    module = _imported(module_name, name)
    found = getattr(module, function, None)
    if not callable(found):
        close = difflib.get_close_matches(function, vars(module), n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        raise ValueError(f"model {name!r} must be a function in its module, {module_name} has none{hint}")
    return cast("Factory", found)


def made(name: str, factory: Factory, num_classes: int, inputs: tuple[int, ...]) -> nn.Module:
    """The model from a factory.

    Raises:
        ValueError: if the call fails, or returns something else.
    """
    call = f"{name}(num_classes={num_classes}, inputs={inputs})"
    try:
        model = factory(num_classes=num_classes, inputs=inputs)
    except TypeError as error:
        raise ValueError(f"model must be made by {call}, which fails: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a torch.nn.Module, got {type(model).__name__} from {call}")
    return model


def _hidden(inputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)]


def _imported(module: str, name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:  # console scripts do not search it, and workers copy this process's path
        sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"model {name!r}: module {module} cannot be imported: {error}") from error
