"""What every order is to the stages after it, learned or not, and how one is loaded.

B batch   H, W image height and width   K tokens   D channels of a token   k prefix length
L word pieces   T width of a text tower
"""

from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from ..config import OrdererConfig
from ..model import Orderer
from ..saved import Saved, read_settings
from .config import SequenceConfig
from .model import FixedOrder


@runtime_checkable
class ImageSequence(Protocol):
    """A way to turn an image into a sequence of tokens, and any prefix of it into an image."""

    saved: Saved | None

    @property
    def config(self) -> OrdererConfig | SequenceConfig: ...

    @property
    def device(self) -> torch.device: ...

    def encode(
        self, images: Shaped[Tensor, "B 3 H W"], prefix: int | None = None
    ) -> Float[Tensor, "B k D"]:
        """The first `prefix` tokens of images, all by default."""

    def decode(
        self,
        tokens: Float[Tensor, "B k D"],
        size: tuple[int, int] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B 3 H W"]:
        """Images of the first k tokens, values in [-1, 1]."""

    def embed_words(
        self, text: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B L T"], Bool[Tensor, "B L"]]:
        """A text tower's embedding of every word piece, where there is a tower."""

    def encoding_hash(self) -> str:
        """A name for the encoding, which tokens and AR models carry."""


def load_sequence(folder: Path) -> Orderer | FixedOrder:
    """Load the orderer or the fixed order of a local folder; it comes in `eval` mode.

    Raises:
        OSError: if nothing that can be read is there.
        ValueError: if it is a model of another kind, or its weights are damaged.
    """
    kind = read_settings(folder, "config.json").get("model_type")
    loads = FixedOrder if kind == SequenceConfig.model_type else Orderer
    return loads.from_pretrained(folder)
