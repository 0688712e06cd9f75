"""Words of the AR model's own: a condition before the tokens, or a caption after them.

B batch   L word pieces   W width   V word pieces that it knows
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from orderer.pieces import UNKNOWN, numbered, spoken

from .config import ARConfig


class Words(nn.Module):
    """Embeds the pieces of `config.caption_pieces`, and any other as one more, and scores them."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.pieces = config.caption_pieces
        self.embed = nn.Embedding(len(self.pieces) + 1, config.width)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.to_piece = nn.Linear(config.width, len(self.pieces)) if config.writes else None

    def forward(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        numbers = numbered(text, self.pieces)
        return self.embed(numbers.where(numbers != UNKNOWN, len(self.pieces)))

    def targets(self, text: Int[Tensor, "B L"]) -> Int[Tensor, "B l"]:
        """What should follow each piece but the last: its number among the known ones, or UNKNOWN
        for padding and for others.
        """
        return numbered(text, self.pieces).where(spoken(text), UNKNOWN)[:, 1:]

    def piece(self, number: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The word pieces of some numbers."""
        return torch.tensor(self.pieces, device=number.device)[number]
