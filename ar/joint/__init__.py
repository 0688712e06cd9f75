"""Stage 3: how the AR model reaches the orderer, and what must not happen on the way."""

from .alignment import Alignment, frozen
from .collapse import Limits, broken
from .junction import Junction
from .rate import rate
from .routes import ROUTES, Route, own_loss

__all__ = [
    "ROUTES",
    "Alignment",
    "Junction",
    "Limits",
    "Route",
    "broken",
    "frozen",
    "own_loss",
    "rate",
]
