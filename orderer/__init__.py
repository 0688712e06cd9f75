"""Stage 1: an image becomes an ordered sequence of tokens in which every prefix is useful."""

from .torchvision_operators import declare_missing_operators

declare_missing_operators()  # before transformers and open_clip, which import torchvision

from .borrowed import Borrowed  # noqa: E402
from .config import OrdererConfig  # noqa: E402
from .model import Orderer  # noqa: E402
from .objectives import Objectives, Terms, contrastive_loss  # noqa: E402
from .packed import pack  # noqa: E402
from .prefix import prefix_lengths  # noqa: E402
from .processor import OrdererProcessor, Said  # noqa: E402
from .stage1 import Stage1  # noqa: E402
from .start import (  # noqa: E402
    complete_settings,
    start_orderer,
    start_processor,
    weights_named,
)

__all__ = [
    "Borrowed",
    "Objectives",
    "Orderer",
    "OrdererConfig",
    "OrdererProcessor",
    "Said",
    "Stage1",
    "Terms",
    "complete_settings",
    "contrastive_loss",
    "pack",
    "prefix_lengths",
    "start_orderer",
    "start_processor",
    "weights_named",
]
