"""Flow matching: pure functions, shared by every model that has a flow.

Timestep t runs from 0 (noise) to 1 (data). The path is straight, x_t = (1 - t) noise + t data, and
its velocity is data - noise.

Source: Lipman et al. 2022, "Flow Matching for Generative Modeling", equations 20-23 with
sigma_min = 0, https://arxiv.org/abs/2210.02747.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def on_path(
    data: Float[Tensor, "*B D"], noise: Float[Tensor, "*B D"], t: Float[Tensor, "*#B"]
) -> Float[Tensor, "*B D"]:
    """Where the straight path from noise to data stands at t."""
    return torch.lerp(noise, data, t[..., None])


def logit_normal_timesteps(
    number: int, location: float, device: torch.device, generator: torch.Generator | None = None
) -> Float[Tensor, "{number}"]:
    """Draw timesteps that favour a part of the path: the sigmoid of a normal of deviation 1.

    Args:
        number: of timesteps.
        location: mean of the normal; 0 favours the middle, less favours noise.
        device: of the timesteps.
        generator: on that device.

    Source: Esser et al. 2024 (Stable Diffusion 3), section 3.1, https://arxiv.org/abs/2403.03206.
    """
    return (torch.randn(number, device=device, generator=generator) + location).sigmoid()


def euler(
    velocity: Callable[[Float[Tensor, "*B D"], int], Float[Tensor, "*B D"]],
    noise: Float[Tensor, "*B D"],
    steps: int,
) -> Float[Tensor, "*B D"]:
    """Follow a velocity from noise to data in equal steps.

    Args:
        velocity: of (x, i) at timestep i / steps; given the step's number so that whatever depends
            on the timestep alone can be computed before.
        noise: the start, at t = 0.
        steps: at least 1.
    """
    x = noise
    for step in range(steps):
        x = x + velocity(x, step) / steps
    return x


def heun(
    velocity: Callable[[Float[Tensor, "*B D"], int], Float[Tensor, "*B D"]],
    noise: Float[Tensor, "*B D"],
    steps: int,
) -> Float[Tensor, "*B D"]:
    """Follow a velocity as `euler` does, with the mean of those at both ends of each step.

    The last step is Euler's: a velocity that follows from predicted data has no value at t = 1.
    It costs 2 * steps - 1 calls.

    Source: Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models",
    algorithm 1, https://arxiv.org/abs/2206.00364.
    """
    x = noise
    for step in range(steps - 1):
        first = velocity(x, step)
        second = velocity(x + first / steps, step + 1)
        x = x + (first + second) / (2 * steps)
    return x + velocity(x, steps - 1) / steps


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
