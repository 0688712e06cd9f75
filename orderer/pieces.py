"""Word pieces of open_clip's tokenizer, and the few of them that a model writes.

B batch   L word pieces
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

PIECES = 49408
"""How many there are; the end of a text has the last number."""

START_PIECE, END_PIECE = PIECES - 2, PIECES - 1

UNKNOWN = -100
"""In place of a word piece that cannot be written: torch's cross-entropy leaves it out."""


def spoken(text: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """True up to the end of each text, False for the padding after it."""
    places = torch.arange(text.shape[1], device=text.device)
    return places <= text.argmax(dim=1, keepdim=True)  # the end has the largest number


def numbered(text: Int[Tensor, "B L"], known: Sequence[int]) -> Int[Tensor, "B L"]:
    """The place of each piece among the known ones, which rise; UNKNOWN for others."""
    pieces = torch.tensor(known, device=text.device)
    at = torch.searchsorted(pieces, text.contiguous()).clamp(max=len(pieces) - 1)
    return at.where(pieces[at] == text, UNKNOWN)
