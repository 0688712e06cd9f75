"""The orderer as one writes it in plain torch: the same weights, the same outcome.

B batch   C colours   H, W sides of an image   N patches   P values of a patch   K tokens
D channels of a token   L places, N + K
"""

import copy
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from orderer import Orderer


class StockOrderer(nn.Module):
    """Every layer runs over patches and queries, with torch's attention under one mask."""

    mask: Bool[Tensor, "L L"]

    def __init__(self, orderer: Orderer) -> None:
        super().__init__()
        self.heads, self.patch = orderer.config.heads, orderer.config.patch_size
        self.encoder: Any = copy.deepcopy(orderer.encoder)
        self.decoder: Any = copy.deepcopy(orderer.decoder)
        places = orderer.config.patches + orderer.config.tokens
        mask = torch.ones(places, places, dtype=torch.bool).tril()
        mask[: orderer.config.patches, : orderer.config.patches] = True
        self.register_buffer("mask", mask)

    def encode(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K D"]:
        """Tokens of images with values in [-1, 1]."""
        encoder = self.encoder
        x = encoder.embed(self.patches(pixels)) + encoder.patch_positions  # [B, N, W]
        queries = encoder.queries + encoder.mixing.weight @ x  # [B, K, W]
        number = x.shape[1]
        x = torch.cat([x, queries], dim=1)  # [B, L, W]
        for block in encoder.blocks:
            x = self._run(block, x, self.mask)
        tokens = encoder.to_token(encoder.norm(x[:, number:]))  # [B, K, D]
        return F.layer_norm(tokens, tokens.shape[-1:])

    def loss(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, ""]:
        """Mean squared error of images that are rebuilt from all their tokens."""
        decoder = self.decoder
        x = decoder.embed(self.encode(pixels))  # [B, K, W]
        masks = decoder.masks + decoder.mixing.weight @ x  # [B, N, W]
        number = masks.shape[1]
        x = torch.cat([masks, x + decoder.token_positions], dim=1)  # [B, L, W]
        for block in decoder.blocks:
            x = self._run(block, x, None)
        guess = decoder.to_patch(decoder.norm(x[:, :number]))  # [B, N, P]
        return F.mse_loss(guess.float(), self.patches(pixels))

    def patches(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N P"]:
        return F.unfold(pixels, self.patch, stride=self.patch).mT

    def _run(
        self, block: Any, x: Float[Tensor, "B L W"], mask: Bool[Tensor, "L L"] | None
    ) -> Float[Tensor, "B L W"]:
        qkv = block.attention.qkv(block.norm_1(x))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + block.attention.out(seen.transpose(1, 2).flatten(2))
        return x + block.mlp(block.norm_2(x))
