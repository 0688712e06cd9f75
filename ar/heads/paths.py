"""The paths between noise and a token on which denoising heads learn, as one family.

Every path is the straight one of `orderer.flow` up to a scale, so that solvers and likelihoods are
written once, for the straight path, and t is its timestep. What differs: where training looks, what
the net reads and is told, and what it predicts.

    *B batch   D channels of a token

Sources: straight path and velocity: Lipman et al. 2022, https://arxiv.org/abs/2210.02747; diffusion
as a scaled path: Kingma et al. 2021, "Variational Diffusion Models", section 3 and appendix A,
https://arxiv.org/abs/2107.00630.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from orderer.flow import (
    MIN_SNR,
    draw_timesteps,
    logit_normal_density,
    min_snr,
    shifted,
    uniform_times,
)

from ..config import ARConfig

DIFFUSION_STEPS = 1000
"""Of the diffusion whose schedule is respaced for sampling."""
OFFSET = 0.008
"""Of the cosine schedule, its authors'."""
NEAREST = 0.02
"""Least t that predicted noise is turned into data with: at t = 0 it says nothing of them."""


class FlowPath:
    """The straight path, read as it is."""

    def __init__(self, config: ARConfig) -> None:
        self.config = config

    def draw(
        self, number: int, device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "{number}"]:
        """Timesteps to train on."""
        config = self.config
        return draw_timesteps(
            config.timesteps,
            number,
            config.timestep_location,
            config.timestep_scale,
            device,
            generator,
        )

    def times(self, steps: int, shift: float = 1.0) -> list[float]:
        """Timesteps of a solver, see `Sampling.shift`."""
        return [shifted(t, shift) for t in uniform_times(steps)]

    def clock(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """What the net is told of the timestep, in 0..1000."""
        return 1_000 * t

    def scale(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Factor of the point that the net reads."""
        return torch.ones_like(t)

    def target(
        self, data: Float[Tensor, "*B D"], noise: Float[Tensor, "*B D"], t: Float[Tensor, "*#B 1"]
    ) -> Float[Tensor, "*B D"]:
        """What the net should predict."""
        match self.config.prediction:
            case "data":
                return data
            case "velocity":
                return data - noise
            case _:
                return noise

    def to_data(
        self, output: Float[Tensor, "*B D"], x: Float[Tensor, "*B D"], t: Float[Tensor, "*#B 1"]
    ) -> Float[Tensor, "*B D"]:
        """What its output says of the data, at a point x of the straight path."""
        match self.config.prediction:
            case "data":
                return output
            case "velocity":
                return x + (1 - t) * output
            case _:
                return (x - (1 - t) * output) / t.clamp(min=NEAREST)

    def weight(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Of the squared error of what the net predicts."""
        config = self.config
        if config.weighting == "none":
            return torch.ones_like(t)
        if config.weighting == "density":
            return logit_normal_density(t, config.timestep_location, config.timestep_scale)
        match config.prediction:
            case "data":
                return min_snr(t)
            case "velocity":  # whose error is that of the data / (1 - t)
                return min_snr(t) * (1 - t).square()
            case _:  # that of the data x the ratio
                return (MIN_SNR * ((1 - t) / t).square()).clamp(max=1)


class DiffusionPath(FlowPath):
    """DDPM's path, whose variance stays 1 if that of the data is, with the cosine schedule.

    Training looks at whole steps, all alike; sampling at as few as it is told.

    Source: Nichol and Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models", equation
    17 and section 4, https://arxiv.org/abs/2102.09672; v: Salimans and Ho 2022, appendix D,
    https://arxiv.org/abs/2202.00512.
    """

    def draw(
        self, number: int, device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "{number}"]:
        n = torch.randint(
            1, DIFFUSION_STEPS + 1, (number,), device=device, generator=generator
        ).float()
        return _timestep(n)

    def times(self, steps: int, shift: float = 1.0) -> list[float]:
        n = torch.tensor(uniform_times(steps)[::-1], dtype=torch.float64) * DIFFUSION_STEPS
        return [0.0, *(shifted(t, shift) for t in _timestep(n)[1:].tolist())]

    def clock(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        angle = torch.atan2(1 - t, t)  # cos is the share of the data, sin that of the noise
        cosine = angle.cos() * math.cos(OFFSET / (1 + OFFSET) * math.pi / 2)
        n = cosine.acos() / (math.pi / 2) * (1 + OFFSET) - OFFSET
        return (n * DIFFUSION_STEPS).clamp(0, DIFFUSION_STEPS)

    def scale(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return (t.square() + (1 - t).square()).rsqrt()

    def target(
        self, data: Float[Tensor, "*B D"], noise: Float[Tensor, "*B D"], t: Float[Tensor, "*#B 1"]
    ) -> Float[Tensor, "*B D"]:
        if self.config.prediction == "velocity":
            return self.scale(t) * (t * noise - (1 - t) * data)
        return super().target(data, noise, t)

    def to_data(
        self, output: Float[Tensor, "*B D"], x: Float[Tensor, "*B D"], t: Float[Tensor, "*#B 1"]
    ) -> Float[Tensor, "*B D"]:
        if self.config.prediction == "velocity":
            scale = self.scale(t)
            return scale * (scale * t * x - (1 - t) * output)
        return super().to_data(output, x, t)

    def weight(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        if self.config.weighting == "min_snr" and self.config.prediction == "velocity":
            # whose error is that of the data / the share of the noise
            return min_snr(t) * ((1 - t) * self.scale(t)).square()
        return super().weight(t)


def _timestep(n: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The straight path's timestep that is as noisy as step n of the diffusion."""
    angle = (n / DIFFUSION_STEPS + OFFSET) / (1 + OFFSET) * math.pi / 2
    cosine = (angle.cos() / math.cos(OFFSET / (1 + OFFSET) * math.pi / 2)).clamp(0, 1)
    sine = (1 - cosine.square()).sqrt()
    return cosine / (cosine + sine)
