"""The joint encoder: learned queries stand beside the patches and leave as tokens.

    B batch   N patches   P values of a patch   K queries   W width   D channels of a token

Queries are causal among themselves and see every patch; patches never see queries. Token k is
therefore the same whatever stands behind it: encoding a prefix is the prefix of the encoding.

Sources: Yu et al. 2024, "An Image is Worth 32 Tokens" (TiTok), section 3.2,
https://arxiv.org/abs/2406.07550; the causal queries as in Semanticist,
https://arxiv.org/abs/2503.08685.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import OrdererConfig
from .layers import Block, causal_query_mask
from .positions import PATCH_POSITION_STD, Mixing, learned_positions


class JointEncoder(nn.Module):
    """Patches to tokens; a shorter `prefix` runs fewer queries and costs less."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(config.patch_values, config.width)
        self.patch_positions = learned_positions(config.patches, config.width, PATCH_POSITION_STD)
        self.queries = learned_positions(config.tokens, config.width)
        self.mixing = Mixing(config.tokens, config.patches)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio)
            for _ in range(config.encoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_token = nn.Linear(config.width, config.token_dim)

    def forward(self, patches: Float[Tensor, "B N P"], prefix: int) -> Float[Tensor, "B k D"]:
        x = self.embed(patches) + self.patch_positions  # [B, N, W]
        queries = (self.queries + self.mixing(x))[:, :prefix]  # [B, k, W]
        number = x.shape[1]
        mask = causal_query_mask(number, prefix, x.device)  # [N + k, N + k]
        x = torch.cat([x, queries], dim=1)  # [B, N + k, W]
        for block in self.blocks:
            x = block(x, mask)
        return self.to_token(self.norm(x[:, number:]))  # [B, k, D]
