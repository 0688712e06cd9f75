"""Patches: a lossless reshape of pixels, and back.

B batch   C channels   H, W image height and width   p side of a patch   N patches, H*W / p^2
"""

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor


def patchify(images: Shaped[Tensor, "B C H W"], patch_size: int) -> Shaped[Tensor, "B N P"]:
    """Cut images into patches, row by row; a patch is its C * p * p values.

    Raises:
        ValueError: if the patch does not divide the image.
    """
    height, width = images.shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(f"patches of {patch_size} do not tile an image of {height} x {width}")
    return rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=patch_size, q=patch_size)


def unpatchify(
    patches: Shaped[Tensor, "B N P"], patch_size: int, rows: int
) -> Shaped[Tensor, "B C H W"]:
    """Put patches back together; `rows` is how many stand above each other."""
    return rearrange(
        patches, "b (h w) (c p q) -> b c (h p) (w q)", p=patch_size, q=patch_size, h=rows
    )
