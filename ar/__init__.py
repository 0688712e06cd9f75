"""Stage 2: a causal transformer over an orderer's tokens, with a flow model as its loss."""

import orderer  # noqa: F401  (declares torchvision's operators before transformers needs them)

from .config import ARConfig
from .joint import Alignment
from .model import ARModel
from .trunk import Condition

__all__ = ["ARConfig", "ARModel", "Alignment", "Condition"]
