"""Stage 2: a causal transformer over an orderer's tokens, whose loss is a model of each token."""

import orderer  # noqa: F401  (declares torchvision's operators before transformers needs them)

from .config import ARConfig
from .model import ARModel
from .search import Found, Score, Search, search_tokens
from .settings import Sampling
from .start import complete_settings, start_ar
from .trunk import Condition

__all__ = [
    "ARConfig",
    "ARModel",
    "Condition",
    "Found",
    "Sampling",
    "Score",
    "Search",
    "complete_settings",
    "search_tokens",
    "start_ar",
]
