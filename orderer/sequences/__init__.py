"""Orders that are not learned, and what all orders have in common."""

from .config import SequenceConfig
from .image_sequence import ImageSequence, load_sequence
from .model import FixedOrder
from .paths import PATHS

__all__ = ["PATHS", "FixedOrder", "ImageSequence", "SequenceConfig", "load_sequence"]
