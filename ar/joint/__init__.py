"""Stage 3: how the AR model reaches the orderer, and what must not happen on the way."""

from .alignment import TrunkAlignment, frozen
from .collapse import Limits, broken, kept_deviations
from .junction import Junction
from .rate import DrawnErrors, draw_errors, rate
from .routes import ROUTES, Route, own_loss

__all__ = [
    "ROUTES",
    "DrawnErrors",
    "Junction",
    "Limits",
    "Route",
    "TrunkAlignment",
    "broken",
    "draw_errors",
    "frozen",
    "kept_deviations",
    "own_loss",
    "rate",
]
