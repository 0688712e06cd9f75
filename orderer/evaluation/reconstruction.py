"""Reconstruction: how far are rebuilt images from the originals?

Both are uint8, in 0..255. Letters, in the shapes below:

    N images   H, W height and width
"""

import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor

MOST_PSNR = 100.0
"""In dB. What equal images get, whose true value is infinite and would spoil every mean."""


def psnr(images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "..."]) -> Float64[Tensor, "N"]:
    """Peak signal-to-noise ratio of each image in dB, at most MOST_PSNR.

    Raises:
        ValueError: unless both are uint8 and of one shape.
    """
    mse = squared_errors(images, rebuilt).mean(dim=(1, 2, 3), dtype=torch.float64)
    return (-10 * mse.log10()).clamp(max=MOST_PSNR)


def mean_psnr(images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "..."]) -> float:
    """The mean of the images' PSNR in dB (not the PSNR of their mean error)."""
    return psnr(images, rebuilt).mean().item()


def squared_errors(
    images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "..."]
) -> Float[Tensor, "N 3 H W"]:
    """Squared differences of the values, as shares of the range: 1 is black against white."""
    check_comparable(images, rebuilt)
    return ((images.float() - rebuilt.float()) / 255).square()


def check_comparable(images: Shaped[Tensor, "N 3 H W"], rebuilt: Shaped[Tensor, "..."]) -> None:
    """Refuse values of another range than 0..255, other sizes, and nothing to compare."""
    if images.dtype != torch.uint8 or rebuilt.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, got {images.dtype} and {rebuilt.dtype}")
    if images.shape != rebuilt.shape:
        raise ValueError(
            f"rebuilt images must have the originals' shape {tuple(images.shape)}, "
            f"got {tuple(rebuilt.shape)}"
        )
    if len(images) == 0:
        raise ValueError("there are no images to compare")
