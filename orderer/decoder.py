"""The deterministic decoder: pixels from any prefix, in one pass.

    B batch   N patches   P values of a patch   K tokens   W width   D channels of a token

Mask tokens, one for each patch, stand beside the tokens and leave as patches. Each also starts from
its own blend of the kept tokens, the mirror of the encoder's mixing.

Source: Yu et al. 2024, "An Image is Worth 32 Tokens" (TiTok), section 3.2,
https://arxiv.org/abs/2406.07550.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .config import OrdererConfig
from .layers import Block
from .positions import Grid, Mixing, learned_positions, resampled
from .prefix import cut_to_prefix


class Rebuilt(NamedTuple):
    """What a decoder gives in training."""

    loss: Float[Tensor, ""]
    """The reconstruction term."""
    patches: Float[Tensor, "B N P"]
    """Its guess of the patches, through which gradients flow."""
    states: Float[Tensor, "B N W"]
    """What it knows of each patch half-way through its layers."""


class Placed(nn.Module):
    """How every decoder begins: mask tokens, one for each patch, and the tokens beside them.

    A token that `keep` cuts is replaced by the null token, and no blend has a part of it.
    """

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.null = nn.Parameter(torch.zeros(config.token_dim))
        self.embed = nn.Linear(config.token_dim, config.width)
        self.token_positions = learned_positions(config.tokens, config.width)
        self.masks = learned_positions(config.patches, config.width)
        self.mixing = Mixing(config.patches, config.tokens)

    def place(
        self, tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"], grid: Grid
    ) -> tuple[Float[Tensor, "B N W"], Float[Tensor, "B K W"]]:
        """Give the mask tokens of a grid, each with its blend of kept tokens, and the tokens."""
        x = self.embed(cut_to_prefix(tokens, keep, self.null))  # [B, K, W]
        masks = resampled(self.masks, self.grid, grid)  # [N, W]
        masks = masks + self.mixing.to_grid(x * keep[..., None], self.grid, grid)  # [B, N, W]
        return masks, x + self.token_positions


class Decoder(Placed):
    """Tokens to patches in one pass."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.mlp_ratio)
            for _ in range(config.decoder_layers)
        )
        self.norm = nn.LayerNorm(config.width)
        self.to_patch = nn.Linear(config.width, config.patch_values)

    def forward(
        self, tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"], grid: Grid | None = None
    ) -> tuple[Float[Tensor, "B N P"], Float[Tensor, "B N W"]]:
        """Give the patches of a grid (that of the config by default), and the states half-way."""
        masks, x = self.place(tokens, keep, grid or self.grid)
        number = masks.shape[1]
        x = torch.cat([masks, x], dim=1)  # [B, N + K, W]
        states = x
        for layer, block in enumerate(self.blocks, start=1):
            is_last = layer == len(self.blocks)  # nobody reads its tokens
            x = block(x, wanted=slice(number if is_last else None))  # [B, N + K, W], then [B, N, W]
            states = x if layer == (len(self.blocks) + 1) // 2 else states
        return self.to_patch(self.norm(x)), states[:, :number]

    def rebuild(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        patches: Float[Tensor, "B N P"],
        grid: Grid,
        generator: torch.Generator | None = None,
    ) -> Rebuilt:
        """Rebuild patches whose values lie in [-1, 1]; the term is their mean squared error."""
        guess, states = self(tokens, keep, grid)
        return Rebuilt((guess.float() - patches).square().mean(), guess, states)

    def decode(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        grid: Grid,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B N P"]:
        """Draw patches; nothing about it is random."""
        return self(tokens, keep, grid)[0]
