"""Structural similarity: do rebuilt images have the originals' light, contrast and structure?

Both are uint8, in 0..255. Letters, in the shapes below:

    N images   H, W height and width   h, w places where the window fits

Source: Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural
Similarity", section III, https://doi.org/10.1109/TIP.2003.819861.
"""

import torch
from jaxtyping import Float64, Shaped
from torch import Tensor

from .reconstruction import check_comparable

WINDOW = 11
"""Pixels of a side."""
SIGMA = 1.5
"""Of the window, a Gaussian, in pixels."""
STABLE_LIGHT, STABLE_CONTRAST = 0.01**2, 0.03**2
"""The paper's constants, of a range of 1."""
CHUNK = 64
"""Images at once."""


def ssim(images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "..."]) -> Float64[Tensor, "N"]:
    """The similarity of each image, the mean over colours and places: at most 1.

    Raises:
        ValueError: unless both are uint8, of one shape, and no smaller than the window.
    """
    check_comparable(images, rebuilt)
    if min(images.shape[2:]) < WINDOW:
        height, width = images.shape[2:]
        raise ValueError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels, got {height} x {width}"
        )
    parts = zip(images.split(CHUNK), rebuilt.split(CHUNK), strict=True)
    return torch.cat([_similarity(*part).mean(dim=(1, 2, 3)) for part in parts])


def mean_ssim(images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "..."]) -> float:
    """The mean of the images' similarity."""
    return ssim(images, rebuilt).mean().item()


def _similarity(
    images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "N 3 H W"]
) -> Float64[Tensor, "N 3 h w"]:
    x, y = images.double() / 255, rebuilt.double() / 255
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x = _windowed(x.square()) - mean_x.square()
    var_y = _windowed(y.square()) - mean_y.square()
    cov = _windowed(x * y) - mean_x * mean_y
    light = (2 * mean_x * mean_y + STABLE_LIGHT) / (
        mean_x.square() + mean_y.square() + STABLE_LIGHT
    )
    return light * (2 * cov + STABLE_CONTRAST) / (var_x + var_y + STABLE_CONTRAST)


def _windowed(x: Float64[Tensor, "N 3 H W"]) -> Float64[Tensor, "N 3 h w"]:
    """The mean in the window around each place where it fits."""
    down, along = (_window_at_each_place(side).to(x.device) for side in x.shape[2:])
    return down @ x @ along.T


def _window_at_each_place(side: int) -> Float64[Tensor, "h H"]:
    """A Gaussian in each row, one pixel further on: quicker than a convolution at our sizes."""
    pixels = torch.arange(side).double()
    middles = pixels[WINDOW // 2 : side - WINDOW // 2, None]
    weights = (-((pixels - middles) ** 2) / (2 * SIGMA**2)).exp()
    weights = weights * ((pixels - middles).abs() <= WINDOW // 2)
    return weights / weights.sum(dim=1, keepdim=True)
