"""How training shows an image: cut, resized and perhaps mirrored, the same in every run.

Letters: H, W height and width in pixels; S pixels on a side.
"""

from dataclasses import dataclass
from math import exp, log

import numpy as np
from jaxtyping import UInt8

from .images import fit_image, resize
from .order import hashed

ASPECTS = (3 / 4, 4 / 3)
"""Widths over heights of random crops."""


@dataclass(frozen=True, kw_only=True)
class Framing:
    """A size, and how far an image may differ from epoch to epoch."""

    size: int
    """Pixels on a side."""
    crop_area: float = 1.0
    """Least share of an image's area that a random crop keeps; 1 takes the centred square, always.
    Source: Szegedy et al. 2015, section 6, https://arxiv.org/abs/1409.4842."""
    mirrored: float = 0.0
    """Share of the images that are turned left to right: captions that name a side then lie."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"image_size must be at least 1, got {self.size}")
        if not 0 < self.crop_area <= 1:
            raise ValueError(f"crop_area must be above 0 and at most 1, got {self.crop_area}")
        if not 0 <= self.mirrored <= 1:
            raise ValueError(f"mirrored must lie in 0..1, got {self.mirrored}")

    def show(
        self, image: UInt8[np.ndarray, "H W 3"], seed: int, epoch: int, index: int
    ) -> UInt8[np.ndarray, "S S 3"]:
        """Show image `index` as it looks in an epoch: a pure function of its arguments."""
        if self.crop_area < 1:
            draws = [hashed(seed, epoch, index, 1, which) / 2**64 for which in range(4)]
            image = resize(_random_crop(image, self.crop_area, *draws), self.size, self.size)
        else:
            image = fit_image(image, self.size)
        turned = self.mirrored > 0 and hashed(seed, epoch, index, 2) < self.mirrored * 2**64
        return image[:, ::-1] if turned else image


def _random_crop(
    image: UInt8[np.ndarray, "H W 3"], least: float, size: float, shape: float, y: float, x: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Cut a part of a random area, shape and place; the last four are draws in [0, 1)."""
    height, width, _ = image.shape
    area = (least + (1 - least) * size) * height * width
    aspect = exp(log(ASPECTS[0]) + (log(ASPECTS[1]) - log(ASPECTS[0])) * shape)
    tall = min(height, max(1, round((area / aspect) ** 0.5)))
    wide = min(width, max(1, round((area * aspect) ** 0.5)))
    top, left = int(y * (height - tall + 1)), int(x * (width - wide + 1))
    return image[top : top + tall, left : left + wide]
