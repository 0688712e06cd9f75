"""The flow head: a small flow model of one token, given the trunk's state.

    B batch   K tokens   R rows (one token of one image)   D channels of a token
    W width of the trunk   V of the head   T modulations of a block   M of all blocks

The net predicts the token itself, and its velocity follows: where the condition all but decides a
token, a net that must predict the velocity spends itself on passing the noise through. The blocks
are modulated by the timestep alone and the trunk's state enters by one added projection, so that a
sampler computes all modulations once, not once per token.

Sources: Li et al. 2024, "Autoregressive Image Generation without Vector Quantization" (MAR),
section 3.2, https://arxiv.org/abs/2406.11838; the prediction: Li and He 2025, "Back to Basics: Let
Denoising Generative Models Denoise", section 3, https://arxiv.org/abs/2511.13720.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from orderer.flow import euler, guide, logit_normal_timesteps, on_path

from ..config import ARConfig

FREQUENCIES = 64
"""Sines and as many cosines that describe a timestep."""


class FlowHead(nn.Module):
    """Predicts a token from its noisy copy."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        width = config.head_width
        self.draws = config.draws
        self.timestep_location = config.timestep_location
        self.token_dim = config.token_dim
        self.embed = nn.Linear(config.token_dim, width)
        self.condition = nn.Linear(config.width, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU())
        self.modulate = nn.Linear(width, 3 * width * config.head_layers)
        self.blocks = nn.ModuleList(HeadBlock(width) for _ in range(config.head_layers))
        self.norm = nn.LayerNorm(width)
        self.to_data = nn.Linear(width, config.token_dim)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        nn.init.zeros_(self.to_data.weight)
        nn.init.zeros_(self.to_data.bias)

    def loss(
        self,
        tokens: Float[Tensor, "B *K D"],
        states: Float[Tensor, "B *K W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B *K"]:
        """Squared error of the predicted token, the mean over `draws` noises and timesteps.

        The tokens of an image share its timesteps, so that modulations, half of the head's work,
        are computed once per image and draw.
        """
        data = tokens.float().expand(self.draws, *tokens.shape)  # [draws, B, K, D]
        images = self.draws * len(tokens)
        t = logit_normal_timesteps(images, self.timestep_location, data.device, generator)
        t = t.view(self.draws, len(tokens), *[1] * (tokens.ndim - 2))  # [draws, B, 1]
        noise = torch.randn(data.shape, device=data.device, generator=generator)
        x = on_path(data, noise, t)
        predicted = self._predict(x, self.condition(states), self.modulations(t))
        return F.mse_loss(predicted.float(), data, reduction="none").mean(dim=(0, -1))

    def sample(
        self,
        states: Float[Tensor, "R W"],
        unguided: Float[Tensor, "R W"] | None,
        modulations: list[Float[Tensor, "1 M"]],
        noise: Float[Tensor, "R D"],
        guidance_scale: float,
    ) -> Float[Tensor, "R D"]:
        """Draw a token for each row, with one Euler step for each entry of `modulations`.

        Args:
            states: the trunk's states given the condition.
            unguided: the same without the condition; None when there is no guidance.
            modulations: see `schedule`.
            noise: the start of each row's path.
            guidance_scale: 1.0 is off.
        """
        condition = self.condition(states if unguided is None else torch.cat([states, unguided]))
        steps = len(modulations)

        def velocity(x: Tensor, step: int) -> Tensor:
            if unguided is None:
                data = self._predict(x, condition, modulations[step])
            else:
                both = self._predict(torch.cat([x, x]), condition, modulations[step])
                conditional, unconditional = both.chunk(2)
                data = guide(conditional, unconditional, guidance_scale)
            return (data - x) / (1 - step / steps)

        return euler(velocity, noise, steps)

    def schedule(self, steps: int) -> list[Float[Tensor, "1 M"]]:
        """The modulations of all Euler steps, computed once per sampler.

        Raises:
            ValueError: for fewer than 1 step.
        """
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        t = torch.arange(steps, device=self.modulate.weight.device) / steps
        return list(self.modulations(t).split(1))

    def modulations(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n M"]:
        """Shift, scale and gate of every block at each timestep."""
        rates = torch.exp(
            -math.log(10_000) * torch.arange(FREQUENCIES, device=t.device) / FREQUENCIES
        )
        angles = 1_000 * t[..., None] * rates  # [*n, FREQUENCIES]
        return self.modulate(self.time(torch.cat([angles.sin(), angles.cos()], dim=-1)))

    def _predict(
        self,
        x: Float[Tensor, "*n D"],
        condition: Float[Tensor, "*#n V"],
        modulation: Float[Tensor, "*#n M"],
    ) -> Float[Tensor, "*n D"]:
        h = self.embed(x) + condition  # [*n, V]
        parts = modulation.chunk(len(self.blocks), dim=-1)
        for block, part in zip(self.blocks, parts, strict=True):
            h = block(h, part)
        return self.to_data(self.norm(h))


class HeadBlock(nn.Module):
    """A residual MLP whose input is shifted and scaled, and whose output is gated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self, h: Float[Tensor, "*n V"], modulation: Float[Tensor, "*#n T"]
    ) -> Float[Tensor, "*n V"]:
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return h + (1 + gate) * self.mlp(self.norm(h) * (1 + scale) + shift)
