"""What comes in, checked: each mistake that is easily made is told in a sentence.

B batch   C colours   H, W image height and width   K tokens   D channels of a token
L word pieces
"""

from numbers import Integral
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

LOUDEST = 10.0
"""Of a float pixel: what interpolation or noise adds to [-1, 1] is less, levels of 0..255 more."""


def in_range(images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images with values in [-1, 1].

    Raises:
        ValueError: for pixels that are neither uint8 nor finite floats, or far out of that range.
    """
    if images.dtype == torch.uint8:
        return images / 127.5 - 1
    if not images.is_floating_point():
        raise ValueError(f"pixels must be uint8 in 0..255 or floats in [-1, 1], got {images.dtype}")
    if not bool(images.isfinite().all()):
        raise ValueError("pixels must be finite, got NaN or infinity")
    if bool((images.detach().abs() > LOUDEST).any()):
        raise ValueError(
            "floats must lie in [-1, 1] (levels in 0..255 are read as uint8), got "
            f"{images.min().item():.4g}..{images.max().item():.4g}"
        )
    return images


def check_colours(images: object) -> None:
    """Refuse what is no batch of images of three colours."""
    if not isinstance(images, Tensor):
        raise ValueError(
            "an orderer reads pixels as OrdererProcessor.pixels makes them, "
            f"got {type(images).__name__}"
        )
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"an orderer reads images of 3 colours, [B, 3, H, W], got {list(images.shape)}"
        )


def check_tokens(tokens: Tensor, most: int, channels: int) -> None:
    """Refuse tokens of another orderer: k of them, in 1..`most`."""
    if tokens.ndim != 3 or tokens.shape[2] != channels:
        raise ValueError(f"tokens must be [B, k, {channels}], got {list(tokens.shape)}")
    check_prefix(tokens.shape[1], most)
    if not tokens.is_floating_point():
        raise ValueError(f"tokens must be floats, got {tokens.dtype}")
    if not bool(tokens.isfinite().all()):
        raise ValueError("tokens must be finite, got NaN or infinity")


def check_prefix(prefix: Any, most: int) -> None:
    """Refuse a prefix outside 1..`most`."""
    is_whole = isinstance(prefix, Integral) and not isinstance(prefix, bool)
    if not is_whole or not 1 <= prefix <= most:
        raise ValueError(f"prefix must lie in 1..{most}, got {prefix!r}")


def check_text(text: object, longest: int, vocabulary: int) -> None:
    """Refuse captions that nobody has tokenised, or for another context length or vocabulary."""
    if not isinstance(text, Tensor):
        raise ValueError(
            "captions must be tokenised by OrdererProcessor.text before they are embedded, "
            f"got {type(text).__name__}"
        )
    if text.ndim != 2 or not 1 <= text.shape[1] <= longest:
        raise ValueError(
            f"tokenised captions must be [B, L] with L in 1..{longest}, got {list(text.shape)}"
        )
    if text.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"tokenised captions must be whole numbers, got {text.dtype}")
    outside = text[(text < 0) | (text >= vocabulary)]
    if len(outside):
        raise ValueError(f"word pieces must lie in 0..{vocabulary - 1}, got {int(outside[0])}")
