"""Flow matching: pure functions, shared by every model that has a flow.

Timestep t runs from 0 (noise) to 1 (data). The path is straight, x_t = (1 - t) noise + t data, and
its velocity is data - noise. The signal-to-noise ratio on it is (t / (1 - t))^2.

Source: Lipman et al. 2022, "Flow Matching for Generative Modeling", equations 20-23 with
sigma_min = 0, https://arxiv.org/abs/2210.02747.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Velocity = Callable[[Float[Tensor, "*B D"], int], Float[Tensor, "*B D"]]
"""Of (x, i) at the i-th of the solver's timesteps; given its number, so that whatever depends on
the timestep alone can be computed before."""

Density = Literal["uniform", "logit_normal", "laplace"]
"""Where training draws its timesteps, see `draw_timesteps`."""

MIN_SNR = 5.0
"""Bound of the signal-to-noise ratio in `min_snr`, its authors'."""


def on_path(
    data: Float[Tensor, "*B D"], noise: Float[Tensor, "*B D"], t: Float[Tensor, "*#B"]
) -> Float[Tensor, "*B D"]:
    """Where the straight path from noise to data stands at t."""
    return torch.lerp(noise, data, t[..., None])


def draw_timesteps(
    density: Density,
    number: int,
    location: float,
    scale: float,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "{number}"]:
    """Draw timesteps by one of the densities that training may have.

    Args:
        density: `uniform` in t; `logit_normal`; `laplace` in log-SNR.
        number: of timesteps.
        location: centre of the density, in logit(t) or log-SNR = 2 logit(t); 0 favours the middle
            of the path, less favours noise. `uniform` has none.
        scale: its deviation (`logit_normal`) or Laplace's scale.
        device: of the timesteps.
        generator: on that device.

    Source: Laplace: Hang and Gu 2024, "Improved Noise Schedule for Diffusion Training", section 3,
    https://arxiv.org/abs/2407.03297.
    """
    if density == "logit_normal":
        return logit_normal_timesteps(number, location, device, generator, scale=scale)
    u = torch.rand(number, device=device, generator=generator)
    if density == "uniform":
        return u
    tail = (2 * torch.minimum(u, 1 - u)).clamp(min=torch.finfo(u.dtype).tiny)
    log_snr = location + scale * tail.log() * torch.sign(0.5 - u)
    return (log_snr / 2).sigmoid()


def logit_normal_timesteps(
    number: int,
    location: float,
    device: torch.device,
    generator: torch.Generator | None = None,
    *,
    scale: float = 1.0,
) -> Float[Tensor, "{number}"]:
    """Draw timesteps that favour a part of the path: the sigmoid of a normal.

    Args:
        number: of timesteps.
        location: mean of the normal; 0 favours the middle, less favours noise.
        device: of the timesteps.
        generator: on that device.
        scale: deviation of the normal.

    Source: Esser et al. 2024 (Stable Diffusion 3), section 3.1, https://arxiv.org/abs/2403.03206.
    """
    normal = torch.randn(number, device=device, generator=generator)
    return (normal * scale + location).sigmoid()


def logit_normal_density(
    t: Float[Tensor, "*B"], location: float, scale: float = 1.0
) -> Float[Tensor, "*B"]:
    """How densely `logit_normal_timesteps` lie at t; 0 at both ends.

    Weighing uniform timesteps by it has the mean of drawing them from it.
    """
    smallest = torch.finfo(t.dtype).eps
    inside = t.clamp(smallest, 1 - smallest)
    away = (inside.logit() - location) / scale
    height = (-0.5 * away.square()).exp() / (scale * math.sqrt(2 * math.pi))
    return (height / (inside * (1 - inside))).where(t == inside, 0.0)


def min_snr(t: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """A weight of the squared error of predicted data that is bounded towards the end of the path.

    Source: Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy",
    section 3, https://arxiv.org/abs/2303.09556.
    """
    return (t / (1 - t)).square().clamp(max=MIN_SNR)


def uniform_times(steps: int) -> list[float]:
    """The timesteps of equal steps from noise to data, `steps` + 1 of them.

    Raises:
        ValueError: for fewer than 1 step.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return [step / steps for step in range(steps + 1)]


def shifted(t: float, shift: float) -> float:
    """Move a timestep towards noise, both ends staying: its signal-to-noise ratio is divided by
    `shift` squared.

    Source: Esser et al. 2024 (Stable Diffusion 3), equation 23, https://arxiv.org/abs/2403.03206.
    """
    return t / (t + shift * (1 - t))


def euler(
    velocity: Velocity, noise: Float[Tensor, "*B D"], times: list[float]
) -> Float[Tensor, "*B D"]:
    """Follow a velocity from noise to data.

    Args:
        velocity: of (x, i) at timestep `times[i]`; it is never asked for at the last one.
        noise: the start, at `times[0]`.
        times: rising, see `uniform_times`.
    """
    x = noise
    for step in range(len(times) - 1):
        x = x + (times[step + 1] - times[step]) * velocity(x, step)
    return x


def heun(
    velocity: Velocity, noise: Float[Tensor, "*B D"], times: list[float]
) -> Float[Tensor, "*B D"]:
    """Follow a velocity as `euler` does, with the mean of those at both ends of each step.

    The last step is Euler's: a velocity that follows from predicted data has no value at t = 1.
    It costs 2 * steps - 1 calls.

    Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
    algorithm 1, https://arxiv.org/abs/2206.00364.
    """
    x, last = noise, len(times) - 2
    for step in range(last):
        length = times[step + 1] - times[step]
        first = velocity(x, step)
        second = velocity(x + length * first, step + 1)
        x = x + length * (first + second) / 2
    return x + (times[last + 1] - times[last]) * velocity(x, last)


def multistep(
    velocity: Velocity, noise: Float[Tensor, "*B D"], times: list[float]
) -> Float[Tensor, "*B D"]:
    """Follow a velocity as `euler` does, each step bent by the one before: second order, one call.

    Source: Adams and Bashforth's second order with steps of any length, Hairer, Norsett and Wanner
    1993, "Solving Ordinary Differential Equations I", section III.5.
    """
    x, before, length_before = noise, None, 1.0
    for step in range(len(times) - 1):
        length = times[step + 1] - times[step]
        now = velocity(x, step)
        bend = 0 if before is None else length / (2 * length_before) * (now - before)
        x = x + length * (now + bend)
        before, length_before = now, length
    return x


def ancestral(
    velocity: Velocity,
    noise: Float[Tensor, "*B D"],
    times: list[float],
    fresh: Callable[[int], Float[Tensor, "*B D"]],
) -> Float[Tensor, "*B D"]:
    """Go from noise to data with new noise in every step but the last: an SDE's mode.

    Each step draws from what is known of the path at its end, given its start and the predicted
    data; on scaled paths this is the ancestral sampling of diffusion models.

    Args:
        velocity: see `euler`.
        noise: the start.
        times: see `euler`.
        fresh: noise of unit variance for step i; less makes samples more typical.

    Source: Song et al. 2020, "Denoising Diffusion Implicit Models", equation 12 with eta = 1,
    written for the straight path, https://arxiv.org/abs/2010.02502.
    """
    x = noise
    for step, (t, s) in enumerate(pairwise(times)):
        v = velocity(x, step)
        data, old = x + (1 - t) * v, x - t * v
        share = (1 - s) ** 2 / (1 - t) ** 2 * ((1 - t) ** 2 - (t * (1 - s) / s) ** 2)  # variance
        x = s * data + max((1 - s) ** 2 - share, 0.0) ** 0.5 * old
        if share > 0:
            x = x + share**0.5 * fresh(step)
    return x


def guide(
    conditional: Float[Tensor, "*B D"],
    unconditional: Float[Tensor, "*B D"],
    guidance_scale: float,
) -> Float[Tensor, "*B D"]:
    """Push a prediction away from the unconditional one; a scale of 1.0 leaves it as it is.

    Predictions of the data and of the velocity can both be guided, to the same end: at a given x
    and t one is the other, scaled and shifted.

    Source: Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", equation 6,
    https://arxiv.org/abs/2207.12598.
    """
    return torch.lerp(unconditional, conditional, guidance_scale)
