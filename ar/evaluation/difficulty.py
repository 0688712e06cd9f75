"""Difficulty: how many nats context and condition give at each position, and how evenly.

    N images   M training images   K tokens   D channels of a token

A raw loss says little of how hard a position is: noise is hard to predict and nothing is to be
learned of it. So each token's density, by `ARModel.log_prob`, is taken over that of a Gaussian of
its position, which knows neither the tokens before it nor the condition. A head that knows a shape
which no Gaussian has gains by that too, context or not.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def marginal_log_prob(
    train: Float[Tensor, "M K D"], tokens: Float[Tensor, "N K D"], noise: Float[Tensor, "K D"]
) -> Float64[Tensor, "N K"]:
    """The density of noisy tokens by a Gaussian for each position, in nats.

    Args:
        train: tokens whose means and full covariances the Gaussians have.
        tokens: without noise; the mean over their noise is taken in closed form.
        noise: deviation of the noise, above 0; in `ARModel.log_prob` it is NOISE_FLOOR deviations.

    Raises:
        ValueError: for fewer than D + 1 training images, whose covariance has no full rank.
    """
    channels = train.shape[2]
    if len(train) <= channels:
        raise ValueError(
            f"a Gaussian of {channels} channels needs at least {channels + 1} training images, "
            f"got {len(train)}"
        )
    mean = train.double().mean(dim=0)  # [K, D]
    apart = (train.double() - mean).transpose(0, 1)  # [K, M, D]
    blur = noise.double().square().diag_embed()  # [K, D, D]
    covariance = apart.mT @ apart / (len(train) - 1) + blur
    precision = torch.linalg.inv(covariance)
    away = tokens.double() - mean  # [N, K, D]
    far = torch.einsum("nkd,kde,nke->nk", away, precision, away)
    of_noise = (precision * blur).sum(dim=(1, 2))  # [K]
    return -0.5 * (far + of_noise + torch.logdet(covariance) + channels * math.log(2 * math.pi))


def variation(gains: Float[Tensor, "K"]) -> float:
    """The coefficient of variation: the deviation over positions, in means.

    Raises:
        ValueError: if nothing is gained on the whole.
    """
    gains = _gained(gains)
    return (gains.std(correction=0) / gains.mean()).item()


def gini(gains: Float[Tensor, "K"]) -> float:
    """Gini's index: 0 if all positions gain alike, near 1 if one of many gains all.

    It is the mean distance of two positions' gains, in two means. A loss counts as no gain.

    Raises:
        ValueError: if nothing is gained on the whole.
    """
    gains = _gained(gains).clamp(min=0)
    apart = (gains[:, None] - gains).abs().mean()
    return (apart / (2 * gains.mean())).item()


def _gained(gains: Float[Tensor, "K"]) -> Float64[Tensor, "K"]:
    if not bool(gains.mean() > 0):
        raise ValueError(f"gains must be above 0 in the mean, got {gains.mean().item():g}")
    return gains.double()
