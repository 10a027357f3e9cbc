"""Options of a loss that is a module: what it keeps of them, and how they change over time."""

from torch import Tensor, nn

from labelsmooth.checks import UNIT, Interval, check_strength
from labelsmooth.schedules import Schedule


def keep(module: nn.Module, name: str, option: object) -> None:
    """A tensor as a buffer, so that it moves with the module; a parameter, or anything else, as it is."""
    if option is None or (isinstance(option, Tensor) and not isinstance(option, nn.Parameter)):
        module.register_buffer(name, option)
    else:
        setattr(module, name, option)


def check_strengths(name: str, eps: float | Tensor | Schedule, within: Interval = UNIT) -> None:
    """Every strength that will come has to lie in the range."""
    for bound in eps.extremes if isinstance(eps, Schedule) else (eps,):
        check_strength(name, bound, within)


def step(eps: object) -> None:
    """Move a strength on, if it is one that changes over time."""
    if isinstance(eps, Schedule):
        eps.step()
