"""The causal readout: an image embedding at every prefix, in one pass.

B batch   K tokens   D channels of a token   W width   E size of the embedding
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from .config import OrdererConfig
from .layers import Block, causal_mask
from .positions import learned_positions


class Readout(nn.Module):
    """A small causal transformer over the tokens; output k has seen the first k tokens alone."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.embed = nn.Linear(config.token_dim, config.text_width)
        self.positions = learned_positions(config.tokens, config.text_width)
        self.blocks = nn.ModuleList(
            Block(config.text_width, config.text_heads, config.mlp_ratio)
            for _ in range(config.readout_layers)
        )
        self.norm = nn.LayerNorm(config.text_width)
        self.project = nn.Linear(config.text_width, config.embed_dim, bias=False)

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K E"]:
        length = tokens.shape[1]
        x = self.embed(tokens) + self.positions[:length]  # [B, K, W]
        mask = causal_mask(length, x.device)
        for block in self.blocks:
            x = block(x, mask)
        return F.normalize(self.project(self.norm(x)), dim=-1)  # [B, K, E]
