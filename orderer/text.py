"""The text tower: open_clip's transformer, giving one embedding per text.

B batch   L word pieces, at most the context length   W width   E size of the embedding
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .config import OrdererConfig
from .layers import portable_attention


class TextTower(nn.Module):
    """A causal text transformer, read out at the end-of-text piece as CLIP does."""

    def __init__(self, config: OrdererConfig) -> None:
        from open_clip.transformer import TextTransformer  # slow to import

        super().__init__()
        self.tower = TextTransformer(
            context_length=config.context_length,
            vocab_size=config.vocabulary,
            width=config.text_width,
            heads=config.text_heads,
            layers=config.text_layers,
            output_dim=config.embed_dim,
            no_causal_mask=True,  # the mask is given at every call, cut to the batch's longest text
        )

    def words(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        """What each word piece is by itself, wherever it stands."""
        return self.tower.token_embedding(text)

    def forward(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        tower, length = self.tower, text.shape[1]
        unseen = torch.full((length, length), float("-inf"), device=text.device).triu(1)
        x = self.words(text) + tower.positional_embedding[:length]
        with portable_attention(text.device):
            states = tower.ln_final(tower.transformer(x, attn_mask=unseen))
        rows = torch.arange(len(text), device=text.device)
        end = states[rows, text.argmax(dim=-1)]  # the end-of-text piece has the largest number
        return F.normalize(end @ self.tower.text_projection, dim=-1)
