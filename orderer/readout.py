"""The readout: an image embedding at every prefix, in one pass.

B batch   K tokens   D channels of a token   J prefixes asked for   W width
E size of the embedding
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .config import OrdererConfig
from .layers import Block, causal_mask
from .positions import learned_positions


class Readout(nn.Module):
    """A small transformer over the tokens, read at the last token of each prefix.

    It is causal, so that one pass serves all prefixes. Where tokens have no order (`pooled`) each
    prefix has a pass of its own, without a mask and without positions, and the mean is read.
    """

    def __init__(self, config: OrdererConfig, *, pooled: bool) -> None:
        super().__init__()
        self.pooled = pooled
        self.embed = nn.Linear(config.token_dim, config.text_width)
        if not self.pooled:
            self.positions = learned_positions(config.tokens, config.text_width)
        self.blocks = nn.ModuleList(
            Block(config.text_width, config.text_heads, config.mlp_ratio)
            for _ in range(config.readout_layers)
        )
        self.norm = nn.LayerNorm(config.text_width)
        self.project = nn.Linear(config.text_width, config.embed_dim, bias=False)

    def forward(
        self, tokens: Float[Tensor, "B K D"], prefixes: Sequence[int] | None = None
    ) -> Float[Tensor, "B J E"]:
        """Unit embeddings at some prefix lengths, in 1..K; by default at all of them."""
        prefixes = range(1, tokens.shape[1] + 1) if prefixes is None else prefixes
        x = self.embed(tokens)  # [B, K, W]
        if self.pooled:
            states = torch.stack([self._states(x[:, :k]).mean(dim=1) for k in prefixes], dim=1)
        else:
            mask = causal_mask(x.shape[1], x.device)
            states = self._states(x + self.positions[: x.shape[1]], mask)
            states = states[:, [k - 1 for k in prefixes]]  # [B, J, W]
        return F.normalize(self.project(self.norm(states)), dim=-1)

    def _states(
        self, x: Float[Tensor, "B k W"], mask: Tensor | None = None
    ) -> Float[Tensor, "B k W"]:
        for block in self.blocks:
            x = block(x, mask)
        return x
