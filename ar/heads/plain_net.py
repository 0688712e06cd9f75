"""A net that reads the trunk's state once, for heads that need no noisy token.

*n rows (one token of one image)   *m the same, or draws of them   W width of the trunk
V width of the net   C channels of noise   O outputs
"""

from jaxtyping import Float
from torch import Tensor, nn

from .denoisers import mlp


class PlainNet(nn.Module):
    """A residual MLP from the trunk's state, and from noise where it gets any."""

    def __init__(
        self, state_width: int, width: int, layers: int, out: int, noise_channels: int = 0
    ) -> None:
        super().__init__()
        self.condition = nn.Linear(state_width, width)
        self.embed = nn.Linear(noise_channels, width) if noise_channels else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.blocks = nn.ModuleList(mlp(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, states: Float[Tensor, "*n W"], noise: Float[Tensor, "*m C"] | None = None
    ) -> Float[Tensor, "*m O"]:
        h = self.condition(states)  # [*n, V]
        if self.embed is not None and noise is not None:
            h = h + self.embed(noise.to(self.embed.weight.dtype))
        for norm, block in zip(self.norms, self.blocks, strict=True):
            h = h + block(norm(h))
        return self.out(self.norm(h))
