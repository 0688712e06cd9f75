"""Nets that denoise one token, given the trunk's state: modulated by time alone, or MAR's.

    *n, R rows (one token of one image)   D channels of a token   W width of the trunk
    V width of the net   S steps of a sampler

Both do what depends on a sampler's timesteps alone once (`schedule`), and what depends on a row's
state once a token (`given`), so that a step is left with what depends on the noisy token.

Source: Li et al. 2024, "Autoregressive Image Generation without Vector Quantization" (MAR), section
3.2 and its code, https://arxiv.org/abs/2406.11838.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
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

Modulations = Sequence[tuple[Tensor, ...]]
"""For every block what its input is shifted by and multiplied with, and its gate."""


class Denoiser(nn.Module, ABC):
    """Reads a noisy token, what the clock shows (0..1000), and the trunk's state."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "*n D"], clock: Float[Tensor, "*#n"], states: Float[Tensor, "*#n W"]
    ) -> Float[Tensor, "*n D"]:
        """Predict."""

    @abstractmethod
    def schedule(self, clock: Float[Tensor, "S"]) -> Any:
        """What all rows and tokens share at each step."""

    @abstractmethod
    def given(self, states: Float[Tensor, "R W"], schedule: Any) -> Step:
        """What all steps share, given the states.

        Args:
            states: the trunk's.
            schedule: from `schedule`.
        """


def by_step(modulations: Modulations) -> list[Modulations]:
    """Cut modulations of all steps apart, once: at each step that takes as long as a norm."""
    of_blocks = [zip(*(part.unbind() for part in block), strict=True) for block in modulations]
    return list(zip(*of_blocks, strict=True))


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
        return self._run(x, self.condition(states), self._modulations(clock))

    def schedule(self, clock: Float[Tensor, "S"]) -> list[Modulations]:
        return by_step(self._modulations(clock))

    def given(self, states: Float[Tensor, "R W"], schedule: list[Modulations]) -> Step:
        condition = self.condition(states)
        return lambda x, step: self._run(x, condition, schedule[step])

    def _modulations(self, clock: Float[Tensor, "*n"]) -> Modulations:
        of_all = self.modulate(self.time(waves(clock, FREQUENCIES).to(self.embed.weight.dtype)))
        of_blocks = (of_one.chunk(3, dim=-1) for of_one in of_all.chunk(len(self.blocks), dim=-1))
        return [(shift, 1 + scale, 1 + gate) for shift, scale, gate in of_blocks]

    def _run(
        self,
        x: Float[Tensor, "*n D"],
        condition: Float[Tensor, "*#n V"],
        modulations: Modulations,
    ) -> Float[Tensor, "*n D"]:
        h = self.embed(x.to(self.embed.weight.dtype)) + condition  # [*n, V]
        for block, part in zip(self.blocks, modulations, strict=True):
            h = block(h, *part)
        return self.to_token(self.norm(h))


class TimeBlock(nn.Module):
    """A residual MLP whose input is shifted and multiplied, and whose output is gated.

    Where nothing modulates it, as it starts, it is a plain residual MLP.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = mlp(width)

    def forward(
        self,
        h: Float[Tensor, "*n V"],
        shift: Float[Tensor, "*#n V"],
        factor: Float[Tensor, "*#n V"],
        gate: Float[Tensor, "*#n V"],
    ) -> Float[Tensor, "*n V"]:
        return torch.addcmul(h, gate, self.mlp(torch.addcmul(shift, factor, self.norm(h))))


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
        time = self.time(waves(clock, MAR_FREQUENCIES).to(self.embed.weight.dtype))
        return self._run(x, self._modulations(time, states))

    def schedule(self, clock: Float[Tensor, "S"]) -> Float[Tensor, "S 1 V"]:
        """The embedded timesteps."""
        return self.time(waves(clock, MAR_FREQUENCIES).to(self.embed.weight.dtype))[:, None]

    def given(self, states: Float[Tensor, "R W"], schedule: Float[Tensor, "S 1 V"]) -> Step:
        steps = by_step(self._modulations(schedule, states))  # each layer one product for all
        return lambda x, step: self._run(x, steps[step])

    def _modulations(
        self, time: Float[Tensor, "*#m V"], states: Float[Tensor, "*#n W"]
    ) -> Modulations:
        y = nn.functional.silu(time + self.condition(states))
        blocks: list[Any] = list(self.blocks)
        of_blocks = (block.modulate(y).chunk(3, dim=-1) for block in blocks)
        shift_last, scale_last = self.modulate(y).chunk(2, dim=-1)
        return [
            *((shift, 1 + scale, gate) for shift, scale, gate in of_blocks),
            (shift_last, 1 + scale_last),
        ]

    def _run(self, x: Float[Tensor, "*n D"], modulations: Modulations) -> Float[Tensor, "*n D"]:
        h = self.embed(x.to(self.embed.weight.dtype))  # [*n, V]
        *of_blocks, (shift, factor) = modulations
        for block, part in zip(self.blocks, of_blocks, strict=True):
            h = block(h, *part)
        return self.to_token(torch.addcmul(shift, factor, self.norm(h)))


class TokenBlock(TimeBlock):
    """The same with a norm that learns; `modulate` is applied by who holds the block."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.modulate = nn.Linear(width, 3 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)


def mlp(width: int) -> nn.Sequential:
    """What a residual block adds."""
    return nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
