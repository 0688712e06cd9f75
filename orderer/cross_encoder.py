"""The cross encoder: learned queries attend to each other and to the features, and leave as tokens.

    B batch   N features   F channels of a feature   K queries   W width   O channels of an output
    H heads   E = W / H

The layers are transformers' Q-Former: in each the queries attend to themselves, in every n-th also
to the features, which stay as they are. The features cost no attention among themselves, and keys
and values are made of them only where they are looked at. Query i sees the queries 0..i, hence
encoding a prefix is the prefix of the encoding.

As in the joint encoder each query begins with its own blend of the features: cross-attention starts
out as nearly a mean over the image, the same for all queries, and leaves them alike for long.

Sources: Li et al. 2023, "BLIP-2", section 3.1, https://arxiv.org/abs/2301.12597; the causal queries
as in Ge et al. 2023, "Making LLaMA SEE and Draw with SEED Tokenizer", section 3.1,
https://arxiv.org/abs/2310.01218.
"""

import math
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import AttentionInterface, Blip2QFormerConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerEncoder

from .config import OrdererConfig
from .layers import attend, causal_mask
from .positions import (
    PATCH_POSITION_STD,
    Grid,
    Mixing,
    learned_positions,
    resampled,
    start_mixing,
)

ATTENTION = "sightline"
"""The name under which transformers finds our attention: torch's fused one, but written out on a
CPU, where the fused one takes two to three times as long to train the demo's layers in bf16."""


class CrossEncoder(nn.Module):
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
        self.patch_positions = learned_positions(math.prod(grid), features, PATCH_POSITION_STD)
        self.queries = learned_positions(config.tokens, config.width)
        self.mixing = Mixing(config.tokens, math.prod(grid))
        start_mixing(self.mixing, config.mixing, grid)
        self.embed = nn.Linear(features, config.width)
        settings = qformer_config(config, features)
        self.norm = nn.LayerNorm(config.width, eps=settings.layer_norm_eps)
        self.qformer = Blip2QFormerEncoder(settings)
        self.to_token = nn.Linear(config.width, outputs)

    def forward(
        self, features: Float[Tensor, "B N F"], grid: Grid, prefix: int
    ) -> Float[Tensor, "B k O"]:
        return self.to_token(self.states(features, grid, prefix))

    def states(
        self, features: Float[Tensor, "B N F"], grid: Grid, prefix: int
    ) -> Float[Tensor, "B k W"]:
        """What the Q-Former knows at its end, of which the tokens are made."""
        x = features + resampled(self.patch_positions, self.grid, grid)  # [B, N, F]
        blends = self.embed(self.mixing.from_grid(x, self.grid, grid))  # [B, K, W]
        queries = self.norm(self.queries + blends)  # [B, K, W]
        if self.causal:
            queries = queries[:, :prefix]  # [B, k, W]
        number = queries.shape[1]
        mask = causal_mask(number, x.device) if self.causal else None  # [k, k]
        states = self.qformer(queries, mask, x, query_length=number).last_hidden_state
        return states[:, :prefix]  # [B, k, W]


def qformer_config(config: OrdererConfig, features: int) -> Blip2QFormerConfig:
    """The Q-Former that an orderer's config describes; like the other parts it drops nothing out.

    The text branch is left out, for queries alone never enter it.
    """
    return Blip2QFormerConfig(
        hidden_size=config.width,
        num_hidden_layers=config.encoder_layers,
        num_attention_heads=config.heads,
        intermediate_size=config.mlp_ratio * config.width,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        cross_attention_frequency=config.cross_every,
        encoder_hidden_size=features,
        attn_implementation=ATTENTION,
    )


def _attention(
    module: nn.Module,
    q: Float[Tensor, "B H Q E"],
    k: Float[Tensor, "B H L E"],
    v: Float[Tensor, "B H L E"],
    mask: Bool[Tensor, "Q L"] | None,
    **_: Any,
) -> tuple[Float[Tensor, "B Q H E"], None]:
    """Our attention as transformers calls it; the scale that it also passes is ours too."""
    return attend(q, k, v, mask).transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)
