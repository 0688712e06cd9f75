"""Tokens to images as they are saved and judged."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from orderer.sequences import ImageSequence

BATCH = 250


@torch.no_grad()
def decoded(orderer: ImageSequence, tokens: Float[Tensor, "N k D"]) -> UInt8[Tensor, "N 3 S S"]:
    """Images of any prefix, on the CPU."""
    images = torch.cat([orderer.decode(some).float().cpu() for some in tokens.split(BATCH)])
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
