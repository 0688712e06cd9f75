"""The energy head: noise becomes a token in one step, trained by the energy score.

    R rows   D channels of a token   W width of the trunk

The score is twice the distance of draws to the token, less their distance to each other: its mean
is smallest where draws and tokens have one distribution. It needs no density, and has none.

Sources: Shao et al. 2025, "Continuous Visual Autoregressive Generation via Score Maximization"
(EAR), section 3, https://arxiv.org/abs/2505.07812; Gneiting and Raftery 2007, section 4.3,
https://doi.org/10.1198/016214506000001437.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import ARConfig
from ..settings import Sampling
from .head import Draw, Seen, StateHead
from .plain_net import PlainNet


class EnergyHead(StateHead):
    """Turns the trunk's state and noise into a token."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.net = PlainNet(
            config.width,
            config.head_width,
            config.head_layers,
            config.token_dim,
            config.noise_channels,
        )
        torch.nn.init.normal_(self.net.out.weight, std=config.head_width**-0.5)

    def loss(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """The energy score of two draws, per square root of the channels."""
        shape = (2, *tokens.shape[:-1], self.config.noise_channels)
        noise = torch.randn(shape, device=tokens.device, generator=generator)
        first, second = self.net(states, noise).float()
        to_token = _distance(first, tokens.float()) + _distance(second, tokens.float())
        return (to_token - _distance(first, second)) / tokens.shape[-1] ** 0.5

    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        return 1, self.config.noise_channels

    def drawing(self, sampling: Sampling) -> Draw:
        """Guidance acts on the states: there is no density to guide."""

        def draw(seen: Seen, noise: Tensor) -> Tensor:
            return self.net(seen.guided(seen.rows), sampling.temperature * noise[:, 0]).float()

        return draw


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Euclidean, with a gradient at 0 too."""
    return ((a - b).square().sum(dim=-1) + 1e-12).sqrt()
