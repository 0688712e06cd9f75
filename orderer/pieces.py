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


def check_pieces(known: Sequence[int], vocabulary: int = PIECES) -> None:
    """Refuse word pieces that no model could write captions with.

    Raises:
        ValueError: if they do not rise, lack the end of a text, or lie outside the vocabulary.
    """
    if list(known) != sorted(set(known)):
        raise ValueError("caption_pieces must rise, each standing there once")
    if END_PIECE not in known:
        raise ValueError(f"caption_pieces must hold the end of a text, {END_PIECE}")
    if not 0 <= known[0] <= known[-1] < vocabulary:
        raise ValueError(
            f"caption_pieces must lie in 0..{vocabulary - 1}, got {known[0]}..{known[-1]}"
        )


def spoken(text: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """True up to the end of each text, False for the padding after it."""
    places = torch.arange(text.shape[1], device=text.device)
    return places <= text.argmax(dim=1, keepdim=True)  # the end has the largest number


def numbered(text: Int[Tensor, "B L"], known: Sequence[int]) -> Int[Tensor, "B L"]:
    """The place of each piece among the known ones, which rise; UNKNOWN for others."""
    pieces = torch.tensor(known, device=text.device)
    at = torch.searchsorted(pieces, text.contiguous()).clamp(max=len(pieces) - 1)
    return at.where(pieces[at] == text, UNKNOWN)
