"""Words and tokens in one transformer: it writes captions from a prefix, and says which are true.

    B batch   K tokens   D channels of a token   L word pieces   T width of the text tower
    W width   V word pieces that it can write   k prefix length

Writing and matching share all weights and differ in what a word sees: the words before it, or all
of them. Both see the tokens of the prefix; tokens see only the words that match. What a word piece
is comes from the text tower: a table of our own would be most of the model, updated at every step
to learn what the contrastive term already teaches the tower.

Source: Li et al. 2023, "BLIP-2", section 3.1 and figure 2, https://arxiv.org/abs/2301.12597.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from .config import OrdererConfig
from .layers import Block, causal_mask
from .pieces import UNKNOWN, numbered, spoken
from .positions import learned_positions


class Fusion(nn.Module):
    """A transformer over [tokens of a prefix ; word pieces]; a token that `keep` cuts is unseen."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.pieces = config.caption_pieces
        self.embed_tokens = nn.Linear(config.token_dim, config.width)
        self.embed_words = nn.Linear(config.text_width, config.width)
        self.token_positions = learned_positions(config.tokens, config.width)
        self.word_positions = learned_positions(config.context_length, config.width)
        self.matching = learned_positions(1, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio)
            for _ in range(config.fusion_layers or 0)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_piece = nn.Linear(config.width, len(self.pieces or range(config.vocabulary)))
        self.to_match = nn.Linear(config.width, 1)

    def write(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        words: Float[Tensor, "B L T"],
    ) -> Float[Tensor, "B L V"]:
        """Score, after each word, what may come next."""
        count, length = keep.shape[1], words.shape[1]
        mask = causal_mask(count + length, keep.device)
        mask[:count, :count] = True
        mask = mask & _seen(keep, torch.ones_like(words[..., 0], dtype=torch.bool))
        return self.to_piece(self._states(tokens, self.embed_words(words), mask))

    def match(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        words: Float[Tensor, "B L T"],
        spoken: Bool[Tensor, "B L"],
    ) -> Float[Tensor, "B"]:
        """The logit that a caption is of the image; every word has its say.

        Args:
            tokens: of the images.
            keep: True for those in the prefix.
            words: embeddings of word pieces.
            spoken: False for padding.
        """
        states = self._states(tokens, self.embed_words(words) + self.matching, _seen(keep, spoken))
        said = (states * spoken[..., None]).sum(dim=1) / spoken.sum(dim=1, keepdim=True)  # [B, W]
        return self.to_match(said)[:, 0]

    def targets(self, text: Int[Tensor, "B L"]) -> Int[Tensor, "B l"]:
        """What `write` should say after each piece but the last: its number among those it can
        write, or UNKNOWN for padding and for pieces that it cannot.
        """
        numbers = text if self.pieces is None else numbered(text, self.pieces)
        return numbers.where(spoken(text), UNKNOWN)[:, 1:].long()

    def piece(self, number: Int[Tensor, "B"]) -> Int[Tensor, "B"]:
        """The word pieces that outputs of `write` stand for."""
        if self.pieces is None:
            return number
        return torch.tensor(self.pieces, device=number.device)[number]

    def _states(
        self,
        tokens: Float[Tensor, "B K D"],
        words: Float[Tensor, "B L W"],
        mask: Bool[Tensor, "B 1 S S"],
    ) -> Float[Tensor, "B L W"]:
        count, length = tokens.shape[1], words.shape[1]
        x = self.embed_tokens(tokens) + self.token_positions[:count]  # [B, K, W]
        x = torch.cat([x, words + self.word_positions[:length]], dim=1)  # [B, K + L, W]
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x[:, count:])


def _seen(keep: Bool[Tensor, "B K"], spoken: Bool[Tensor, "B L"]) -> Bool[Tensor, "B 1 S S"]:
    """Every place sees the kept tokens and the words, not what was cut and no padding."""
    columns = torch.cat([keep, spoken], dim=1)  # [B, K + L]
    return columns[:, None, None].expand(-1, 1, columns.shape[1], -1)
