"""The joint encoder: learned queries stand beside the patches and leave as tokens.

    B batch   N patches   F channels of a feature   K queries   W width   O channels of an output

Queries are causal among themselves and see every patch; patches never see queries. Token k is
therefore the same whatever stands behind it: encoding a prefix is the prefix of the encoding.

Sources: Yu et al. 2024, "An Image is Worth 32 Tokens" (TiTok), section 3.2,
https://arxiv.org/abs/2406.07550; the causal queries as in Semanticist,
https://arxiv.org/abs/2503.08685.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .config import OrdererConfig
from .layers import Block, query_mask
from .positions import (
    PATCH_POSITION_STD,
    Grid,
    Mixing,
    learned_positions,
    resampled,
    start_mixing,
)


class JointEncoder(nn.Module):
    """Features to tokens; a shorter `prefix` runs fewer queries and costs less.

    Args:
        config: the orderer's.
        features: channels of the features.
        grid: rows and columns of the features of an image of the config's size.
        outputs: channels of what comes out for each token.
    """

    def __init__(self, config: OrdererConfig, features: int, grid: Grid, outputs: int) -> None:
        super().__init__()
        self.grid, self.causal = grid, config.causal
        self.embed = nn.Linear(features, config.width)
        self.patch_positions = learned_positions(math.prod(grid), config.width, PATCH_POSITION_STD)
        self.queries = learned_positions(config.tokens, config.width)
        self.mixing = Mixing(config.tokens, math.prod(grid))
        start_mixing(self.mixing, config.mixing, grid)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio)
            for _ in range(config.encoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_token = nn.Linear(config.width, outputs)

    def forward(
        self, features: Float[Tensor, "B N F"], grid: Grid, prefix: int
    ) -> Float[Tensor, "B k O"]:
        x = self.embed(features) + resampled(self.patch_positions, self.grid, grid)  # [B, N, W]
        queries = self.queries + self.mixing.from_grid(x, self.grid, grid)  # [B, K, W]
        if self.causal:
            queries = queries[:, :prefix]  # [B, k, W]
        number = x.shape[1]
        mask = query_mask(number, queries.shape[1], self.causal, x.device)[number:]  # [k, N + k]
        x = torch.cat([x, queries], dim=1)  # [B, N + k, W]
        for block in self.blocks[:-1]:
            x = block(x, mask, apart=number)
        x = self.blocks[-1](x, mask, wanted=slice(number, None))  # nobody reads its patches
        return self.to_token(self.norm(x[:, :prefix]))  # [B, k, O]
