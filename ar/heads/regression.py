"""The regression head: a token is its mean. The control that continuous tokens need more than this.

    R rows   D channels of a token   W width of the trunk

Its likelihood is that of a Gaussian around the mean, whose deviation for each channel is learned
beside it and changes nothing about the mean: squared error means that every token is a Gaussian of
one shape.

Source: Sun et al. 2023, "Generative Multimodal Models are In-Context Learners" (Emu2), section 2.2,
https://arxiv.org/abs/2312.13286.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import ARConfig
from ..settings import Sampling
from .head import Draw, Seen, StateHead
from .plain_net import PlainNet
from .timesteps import guided_tokens


class RegressionHead(StateHead):
    """Predicts a token's mean; draws nothing else."""

    has_likelihood = True

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.net = PlainNet(config.width, config.head_width, config.head_layers, config.token_dim)
        self.log_deviation = nn.Parameter(torch.zeros(config.token_dim))

    def loss(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """Squared error, the mean over channels; the deviation learns beside it, and adds 0."""
        mean, tokens = self.net(states).float(), tokens.float()
        beside = -_gaussian(tokens.detach(), mean.detach(), self.log_deviation)
        return (tokens - mean).square().mean(dim=-1) + beside - beside.detach()

    def log_prob(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        variance = (2 * self.log_deviation).exp() + floor**2
        return _gaussian(tokens.float(), self.net(states).float(), variance.log() / 2)

    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        return 0, 0

    def drawing(self, sampling: Sampling) -> Draw:
        def draw(seen: Seen, noise: Tensor) -> Tensor:
            return guided_tokens(seen, self.net(seen.rows).float(), sampling.match_norm)

        return draw


def _gaussian(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    far = ((x - mean) / log_deviation.exp()).square()
    return -0.5 * (far + 2 * log_deviation + math.log(2 * math.pi)).sum(dim=-1)
