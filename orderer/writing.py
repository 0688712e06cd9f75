"""Writing: one word piece after another, until the end.

B captions   L word pieces of the longest   l those so far   V word pieces that can be written
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .pieces import END_PIECE, START_PIECE

Speaker = Callable[[Int[Tensor, "B l"]], Float[Tensor, "B V"]]
"""Scores what comes after some word pieces."""


def write(
    speaker: Speaker,
    piece: Callable[[Int[Tensor, "B"]], Int[Tensor, "B"]],
    start: Int[Tensor, "B"],
    longest: int,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Int[Tensor, "B L"]:
    """Write a batch of captions, each from its start to its end piece, padded with 0.

    Args:
        speaker: scores the next piece.
        piece: which word piece an output stands for.
        start: the first pieces, see `starts`.
        longest: most pieces of a caption; the end is written there where it has not come before.
        temperature: 0 takes the likeliest piece, 1 draws from what the speaker says.
        generator: source of the draws, on the model's device.

    Raises:
        ValueError: for a temperature below 0.
    """
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    text = start[:, None]
    ended = torch.zeros_like(start, dtype=torch.bool)
    while text.shape[1] < longest - 1 and not bool(ended.all()):
        chosen = piece(_choose(speaker(text), temperature, generator)).masked_fill(ended, 0)
        text = torch.cat([text, chosen[:, None]], dim=1)
        ended = ended | (chosen == END_PIECE)
    last = torch.where(ended, 0, END_PIECE)
    return text if bool(ended.all()) else torch.cat([text, last[:, None]], dim=1)


def starts(number: int, device: torch.device) -> Int[Tensor, "B"]:
    """The piece that every caption starts with."""
    return torch.full((number,), START_PIECE, device=device)


def _choose(
    logits: Float[Tensor, "B V"], temperature: float, generator: torch.Generator | None
) -> Int[Tensor, "B"]:
    if temperature == 0:
        return logits.argmax(dim=1)
    shares = (logits.float() / temperature).softmax(dim=1)
    return torch.multinomial(shares, 1, generator=generator)[:, 0]
