"""Engines find the row statistics of logits; the formulas above them do not know which one did."""

from labelsmooth.engines.route import Availability as Availability
from labelsmooth.engines.route import Engine as Engine
from labelsmooth.engines.route import available as available

__all__ = ["Availability", "Engine", "available"]
