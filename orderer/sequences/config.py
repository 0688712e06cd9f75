"""The settings of a fixed order: what a token is, and in which order tokens stand."""

from typing import Any, Literal

from ..pretrained import CheckedConfig

Order = Literal[
    "raster",
    "spiral",
    "z",
    "hilbert",
    "centre_out",
    "shuffled",
    "scales",
    "depth",
    "principal",
    "noise",
]
"""Paths over the patches have one token for each; how many the others have, see `tokens`."""


class SequenceConfig(CheckedConfig):
    """What a fixed order is made of.

    Raises:
        ValueError: for an unknown key, or a value out of its range, naming both.
    """

    model_type = "sightline_sequence"

    order: Order = "raster"
    """Paths over the patches: `raster`, `spiral`, `z` (Morton's), `hilbert`, `centre_out` and
    `shuffled` (at random, the same for every image). `scales`: averages of the whole image, then of
    its quarters, and so on, each of what is left (VAR's idea). `depth`: of each patch half of its
    channels, the larger ones, then the others. `principal`: components of the whole image, those of
    most variance first. `noise`: the whole image in falling noise."""
    image_size: int = 32
    patch_size: int = 8
    channels: int = 16
    """Principal components that are kept of a patch, of whole images that number times the patches;
    3 * patch_size^2 keeps all."""
    draw: int = 1
    """Which of the random orders `shuffled` takes, and which noise `noise`."""
    levels: int = 8
    """Tokens of `noise`."""
    context_length: int = 77
    """Most word pieces of a caption, for an AR model with words of its own."""
    refined: bool = False
    """Whether a decoder adds to what components say of an image, see `Refining`. Tokens stay."""

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patches of {self.patch_size} do not tile an image of {self.image_size}"
            )
        if self.channels > (most := 3 * self.patch_size**2):
            raise ValueError(
                f"channels must be at most {most}, a patch's values, got {self.channels}"
            )
        if self.order == "depth" and self.channels % 2:
            raise ValueError(f"depth needs an even number of channels, got {self.channels}")
        if self.order == "scales" and self.side & (self.side - 1):
            raise ValueError(
                f"scales need a power of two of patches on a side, got {self.side} (image_size "
                f"{self.image_size}, patch_size {self.patch_size})"
            )
        if self.order == "noise" and self.levels < 2:
            raise ValueError(f"noise needs at least 2 levels, got {self.levels}")
        if self.order == "noise" and self.refined:
            raise ValueError("refined needs tokens that add up to an image, got the order noise")

    @property
    def side(self) -> int:
        """Patches on a side."""
        return self.image_size // self.patch_size

    @property
    def cell(self) -> int:
        """Side of the squares whose components are taken."""
        return self.image_size if self.order == "principal" else self.patch_size

    @property
    def cell_values(self) -> int:
        return 3 * self.cell**2

    @property
    def components(self) -> int:
        """That are kept of a cell."""
        return self.channels * (self.cell // self.patch_size) ** 2

    @property
    def tokens(self) -> int:
        match self.order:
            case "scales":
                return sum(self.side**2 // 4**halved for halved in range(self.side.bit_length()))
            case "depth":
                return 2 * self.side**2
            case "noise":
                return self.levels
        return self.side**2

    @property
    def token_dim(self) -> int:
        match self.order:
            case "depth":
                return self.channels // 2
            case "noise":
                return self.side**2 * self.channels
        return self.channels
