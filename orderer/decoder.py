"""The deterministic decoder: pixels from any prefix, in one pass.

    B batch   N patches   P values of a patch   K tokens   W width   D channels of a token

Mask tokens, one for each patch, stand beside the tokens and leave as patches. Each also starts from
its own blend of the kept tokens, the mirror of the encoder's mixing.

Source: Yu et al. 2024, "An Image is Worth 32 Tokens" (TiTok), section 3.2,
https://arxiv.org/abs/2406.07550.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .config import OrdererConfig
from .layers import Block
from .positions import Mixing, learned_positions
from .prefix import cut_to_prefix


class Decoder(nn.Module):
    """Tokens to patches; a token that `keep` cuts is replaced by the null token."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.null = nn.Parameter(torch.zeros(config.token_dim))
        self.embed = nn.Linear(config.token_dim, config.width)
        self.token_positions = learned_positions(config.tokens, config.width)
        self.masks = learned_positions(config.patches, config.width)
        self.mixing = Mixing(config.patches, config.tokens)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_patch = nn.Linear(config.width, config.patch_values)

    def forward(
        self, tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"]
    ) -> Float[Tensor, "B N P"]:
        x = self.embed(cut_to_prefix(tokens, keep, self.null))  # [B, K, W]
        masks = self.masks + self.mixing(x * keep[..., None])  # [B, N, W]
        x = torch.cat([masks, x + self.token_positions], dim=1)  # [B, N + K, W]
        for block in self.blocks:
            x = block(x)
        return self.to_patch(self.norm(x[:, : masks.shape[1]]))  # [B, N, P]
