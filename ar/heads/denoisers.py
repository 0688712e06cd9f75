"""Nets that denoise one token, given the trunk's state: modulated by time alone, or MAR's.

    *n, R rows (one token of one image)   D channels of a token   W width of the trunk
    V width of the net   S steps of a sampler   M modulations of all blocks

Both do what depends on a sampler's timesteps alone once (`schedule`), and what depends on a row's
state once a token (`given`), so that a step is left with what depends on the noisy token.

Source: Li et al. 2024, "Autoregressive Image Generation without Vector Quantization" (MAR), section
3.2 and its code, https://arxiv.org/abs/2406.11838.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

FREQUENCIES = 64
"""Sines and as many cosines that describe a timestep to the net that it alone modulates."""
MAR_FREQUENCIES = 128
"""The same in MAR's."""
EPSILON = 1e-6
"""Of MAR's norms."""

Step = Callable[[Float[Tensor, "R D"], int], Float[Tensor, "R D"]]
"""Runs the net on noisy tokens at the i-th step of a schedule."""


class Denoiser(nn.Module, ABC):
    """Reads a noisy token, what the clock shows (0..1000), and the trunk's state."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*n D"], clock: Float[Tensor, "*#n"], states: Float[Tensor, "*#n W"]
    ) -> Float[Tensor, "*n D"]:
        """Predict."""

    @abstractmethod
    def schedule(self, clock: Float[Tensor, "*n"]) -> Tensor:
        """What all rows and tokens share at each step."""

    @abstractmethod
    def given(self, states: Float[Tensor, "R W"], schedule: Tensor) -> Step:
        """What all steps share, given the states."""


def waves(clock: Float[Tensor, "*n"], frequencies: int) -> Float[Tensor, "*n F"]:
    """Cosines, then sines, of a time in 0..1000, from fast to slow."""
    share = torch.arange(frequencies, device=clock.device, dtype=clock.dtype) / frequencies
    rates = torch.exp(-math.log(10_000) * share)
    angles = clock[..., None] * rates  # [*n, frequencies]
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeDenoiser(Denoiser):
    """Blocks modulated by the timestep alone; the state enters by one added projection."""

    def __init__(self, token_dim: int, state_width: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(token_dim, width)
        self.condition = nn.Linear(state_width, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU())
        self.modulate = nn.Linear(width, 3 * width * layers)
        self.blocks = nn.ModuleList(TimeBlock(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.to_token = nn.Linear(width, token_dim)
        for layer in (self.modulate, self.to_token):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "*n D"], clock: Float[Tensor, "*#n"], states: Float[Tensor, "*#n W"]
    ) -> Float[Tensor, "*n D"]:
        return self._run(x, self.condition(states), self.schedule(clock))

    def schedule(self, clock: Float[Tensor, "*n"]) -> Float[Tensor, "*n M"]:
        """Shift, scale and gate of every block."""
        return self.modulate(self.time(waves(clock, FREQUENCIES)))

    def given(self, states: Float[Tensor, "R W"], schedule: Float[Tensor, "S M"]) -> Step:
        condition = self.condition(states)
        return lambda x, step: self._run(x, condition, schedule[step])

    def _run(
        self,
        x: Float[Tensor, "*n D"],
        condition: Float[Tensor, "*#n V"],
        modulations: Float[Tensor, "*#n M"],
    ) -> Float[Tensor, "*n D"]:
        h = self.embed(x) + condition  # [*n, V]
        parts = modulations.chunk(len(self.blocks), dim=-1)
        for block, part in zip(self.blocks, parts, strict=True):
            h = block(h, part)
        return self.to_token(self.norm(h))


class TimeBlock(nn.Module):
    """A residual MLP whose input is shifted and scaled, and whose output is gated.

    Where its modulation is 0, as it starts, it is a plain residual MLP.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = _mlp(width)

    def forward(
        self, h: Float[Tensor, "*n V"], modulation: Float[Tensor, "*#n T"]
    ) -> Float[Tensor, "*n V"]:
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return h + (1 + gate) * self.mlp(self.norm(h) * (1 + scale) + shift)


class TokenDenoiser(Denoiser):
    """MAR's: blocks modulated by timestep and state together, with gates that start closed."""

    def __init__(self, token_dim: int, state_width: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Linear(token_dim, width)
        self.condition = nn.Linear(state_width, width)
        self.time = nn.Sequential(
            nn.Linear(2 * MAR_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(TokenBlock(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width, eps=EPSILON, elementwise_affine=False)
        self.modulate = nn.Linear(width, 2 * width)
        self.to_token = nn.Linear(width, token_dim)
        for layer in (self.modulate, self.to_token):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, x: Float[Tensor, "*n D"], clock: Float[Tensor, "*#n"], states: Float[Tensor, "*#n W"]
    ) -> Float[Tensor, "*n D"]:
        y = nn.functional.silu(self.schedule(clock) + self.condition(states))  # [*n, V]
        return self._run(x, [layer(y) for layer in self._modulating()])

    def schedule(self, clock: Float[Tensor, "*n"]) -> Float[Tensor, "*n V"]:
        """The embedded timesteps."""
        return self.time(waves(clock, MAR_FREQUENCIES))

    def given(self, states: Float[Tensor, "R W"], schedule: Float[Tensor, "S V"]) -> Step:
        y = nn.functional.silu(schedule[:, None] + self.condition(states))  # [S, R, V]
        of_all = [layer(y) for layer in self._modulating()]  # of all steps in one product each
        return lambda x, step: self._run(x, [of_one[step] for of_one in of_all])

    def _modulating(self) -> list[nn.Module]:
        blocks: list[Any] = list(self.blocks)
        return [*(block.modulate for block in blocks), self.modulate]

    def _run(
        self, x: Float[Tensor, "*n D"], modulations: list[Float[Tensor, "*n _"]]
    ) -> Float[Tensor, "*n D"]:
        h = self.embed(x)  # [*n, V]
        for block, part in zip(self.blocks, modulations[:-1], strict=True):
            h = block(h, part)
        shift, scale = modulations[-1].chunk(2, dim=-1)
        return self.to_token(self.norm(h) * (1 + scale) + shift)


class TokenBlock(nn.Module):
    """A residual MLP, shifted, scaled and gated; `modulate` is applied by who holds the block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.mlp = _mlp(width)
        self.modulate = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self, h: Float[Tensor, "*n V"], modulation: Float[Tensor, "*#n T"]
    ) -> Float[Tensor, "*n V"]:
        shift, scale, gate = modulation.chunk(3, dim=-1)
        return h + gate * self.mlp(self.norm(h) * (1 + scale) + shift)


class PlainNet(nn.Module):
    """A residual MLP from the trunk's state, and from noise where it gets any."""

    def __init__(
        self, state_width: int, width: int, layers: int, out: int, noise_channels: int = 0
    ) -> None:
        super().__init__()
        self.condition = nn.Linear(state_width, width)
        self.embed = nn.Linear(noise_channels, width) if noise_channels else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.blocks = nn.ModuleList(_mlp(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self, states: Float[Tensor, "*n W"], noise: Float[Tensor, "*m C"] | None = None
    ) -> Float[Tensor, "*m O"]:
        h = self.condition(states)  # [*n, V]
        if self.embed is not None and noise is not None:
            h = h + self.embed(noise)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            h = h + block(norm(h))
        return self.out(self.norm(h))


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
