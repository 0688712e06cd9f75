"""The rate of tokens: how many nats it takes to say them, through noise that does not shrink.

    B batch   K tokens   D channels of a token   T noise levels

A token with noise of deviation s in every channel holds finitely many nats. What an AR model needs
to say it, given those before it, is the divergence of the noisy token's density from the model's,
and for a head that denoises

    rate(z) = 1/2 * integral over the SNR, from 0 to 1/s^2, of  E |z - guess(z at that SNR)|^2

which is an upper bound, and the mutual information of token and noisy token for a perfect model.
Where the error falls with the scale of a token, the integral falls with it, but then the noise
drowns the token: a rate cannot be cheated, only paid for.

Source: Kingma et al. 2021, "Variational Diffusion Models", equations 12 and 17,
https://arxiv.org/abs/2107.00630; the identity behind it: Guo, Shamai and Verdu 2005, "Mutual
information and minimum mean-square error in Gaussian channels", theorem 1,
https://arxiv.org/abs/cs/0412108.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..model import ARModel
from ..trunk import Condition

LEAST_SNR = 1e-4
"""Below it noise says so little that the guess is taken to be the mean, 0."""
LEVELS = 4
"""Drawn for each image, spread evenly over the logarithm of the SNR."""


def rate(
    model: ARModel,
    tokens: Float[Tensor, "B K D"],
    condition: Condition,
    noise: float,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B K"]:
    """Nats of each token, given the noisy ones before it: an estimate without bias of the bound.

    Gradients reach the model, and the tokens both as what is said and as what is looked back at.

    Args:
        model: with a head that denoises.
        tokens: without noise.
        condition: before them.
        noise: s, in deviations of each channel as the model's statistics have them; above 0, below
            1 / sqrt(LEAST_SNR).
        generator: of noise and levels, on the tokens' device.

    Raises:
        ValueError: for noise out of range, or a head that knows no timesteps.
    """
    drawn = draw_errors(model, tokens, condition, noise, generator)
    return drawn.span / 2 * drawn.weighed.mean(dim=0) + drawn.least


@dataclass(frozen=True, kw_only=True)
class DrawnErrors:
    """Errors at noise levels of a rate's integral, drawn evenly over the logarithm of the SNR.

    Attributes:
        place: of each level in the integral, from 0, the most noise, to 1.
        weighed: the head's squared error of each token, times the SNR.
        plain: the same of a guess that only shrinks the noisy token: the best for tokens that are
            standard normal and independent.
        span: the integral's length, in nats of the SNR.
        least: nats below the least SNR, for any guess.
    """

    place: Float[Tensor, "T B 1"]
    weighed: Float[Tensor, "T B K"]
    plain: Float[Tensor, "T B K"]
    span: float
    least: Float[Tensor, "B K"]


def draw_errors(
    model: ARModel,
    tokens: Float[Tensor, "B K D"],
    condition: Condition,
    noise: float,
    generator: torch.Generator | None = None,
) -> DrawnErrors:
    """What `rate` is the mean of; arguments and refusals are its own."""
    if not 0 < noise < LEAST_SNR**-0.5:
        raise ValueError(
            f"the noise of a rate must be above 0 and below {LEAST_SNR**-0.5:g}, got {noise}"
        )
    device = tokens.device
    condition, (standard,) = model.ordered(condition, generator, model.standardise(tokens))
    context = standard + noise * torch.randn(standard.shape, device=device, generator=generator)
    low, high = math.log(LEAST_SNR), -2 * math.log(noise)
    first = torch.rand(1, len(tokens), 1, device=device, generator=generator)
    place = (first + torch.arange(LEVELS, device=device)[:, None, None]) / LEVELS
    log_snr = low + (high - low) * place
    guess = model.head.guess_through(
        model.trunk, standard, context, condition, (log_snr / 2).sigmoid(), generator
    )
    snr, squares = log_snr.exp(), standard.square().sum(dim=-1)
    return DrawnErrors(
        place=place,
        weighed=snr * (guess - standard).square().sum(dim=-1),
        plain=snr * (squares + snr * tokens.shape[2]) / (1 + snr).square(),
        span=high - low,
        least=LEAST_SNR / 2 * squares,
    )
