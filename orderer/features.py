"""What the encoder attends to: by default the patches themselves, which lose nothing.

B batch   H, W image height and width   N patches   F channels of a feature
"""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from .building import built_from
from .config import OrdererConfig
from .patches import patchify
from .positions import Grid


@runtime_checkable
class Features(Protocol):
    """Makes one vector for each patch of an image, row by row."""

    channels: int

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the features of an image of this size in pixels."""

    def __call__(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N F"]:
        """Make features of images with values in [-1, 1]."""


class RawPatches(nn.Module):
    """The patches' own pixels: nothing to learn, nothing lost."""

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.channels = 3 * patch_size**2

    def grid(self, height: int, width: int) -> Grid:
        return height // self.patch_size, width // self.patch_size

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N F"]:
        return patchify(images, self.patch_size)


def make_features(config: OrdererConfig) -> Features:
    """Make the features that a config names.

    Raises:
        ValueError: if its architecture builds no tower.
    """
    if config.features == "patches":
        return RawPatches(config.patch_size)
    from .backbones import OpenClipFeatures, TransformersFeatures  # slow to import

    kind = OpenClipFeatures if config.features == "open_clip" else TransformersFeatures
    with built_from("features_architecture", "tower"):
        made = kind(config.features_architecture or {}, config.features_trained)
    return made
