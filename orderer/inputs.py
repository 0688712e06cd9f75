"""What comes in, checked: each mistake that is easily made is told in a sentence.

B batch   C colours   H, W image height and width   K tokens   D channels of a token
L word pieces
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def in_range(images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Images with values in [-1, 1].

    Raises:
        ValueError: for pixels that are neither uint8 nor finite floats.
    """
    if images.dtype == torch.uint8:
        return images / 127.5 - 1
    if not images.is_floating_point():
        raise ValueError(f"pixels must be uint8 in 0..255 or floats in [-1, 1], got {images.dtype}")
    if not bool(images.isfinite().all()):
        raise ValueError("pixels must be finite, got NaN or infinity")
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


def check_prefix(prefix: int | float, most: int) -> None:
    """Refuse a prefix outside 1..`most`."""
    if isinstance(prefix, bool | float) or not 1 <= prefix <= most:
        raise ValueError(f"prefix must lie in 1..{most}, got {prefix}")


def check_text(text: object, longest: int) -> None:
    """Refuse captions that nobody has tokenised, or for another context length."""
    if not isinstance(text, Tensor):
        raise ValueError(
            "captions must be tokenised by OrdererProcessor.text before they are embedded, "
            f"got {type(text).__name__}"
        )
    if text.ndim != 2 or not 1 <= text.shape[1] <= longest:
        raise ValueError(
            f"tokenised captions must be [B, L] with L in 1..{longest}, got {list(text.shape)}"
        )
