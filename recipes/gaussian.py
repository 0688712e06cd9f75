"""A Gaussian of all tokens of an image together: what it guesses from noisy ones, and its price.

N, M images   K tokens   D channels of a token   d = K D values of an image
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaussian:
    """Fitted to tokens without noise."""

    mean: Float64[Tensor, "d"]
    variances: Float64[Tensor, "d"]
    """Along its axes."""
    axes: Float64[Tensor, "d d"]

    @classmethod
    def fit(cls, train: Float[Tensor, "M K D"]) -> "Gaussian":
        """Take the mean and the covariance, drawn towards a sphere as far as M is small.

        Source: Chen et al. 2010, "Shrinkage Algorithms for MMSE Covariance Estimation", eq. 23,
        https://arxiv.org/abs/0907.4698

        Raises:
            ValueError: for fewer than 2 images, or tokens that are all the same.
        """
        number, values = len(train), train[0].numel()
        if number < 2:
            raise ValueError(f"a Gaussian of all tokens needs 2 images or more, got {number}")
        flat = train.double().flatten(1)
        apart = flat - flat.mean(dim=0)
        covariance = apart.mT @ apart / number
        whole, squares = covariance.trace().item(), covariance.square().sum().item()
        if not whole > 0:
            raise ValueError(f"tokens of {number} images do not differ")
        drawn = (1 - 2 / values) * squares + whole**2
        spread = (number + 1 - 2 / values) * (squares - whole**2 / values)
        share = min(1.0, drawn / spread) if spread > 0 else 1.0
        sphere = whole / values * torch.eye(values, dtype=flat.dtype, device=flat.device)
        variances, axes = torch.linalg.eigh((1 - share) * covariance + share * sphere)
        return cls(mean=flat.mean(dim=0), variances=variances.clamp(min=0.0), axes=axes)

    def guess(self, noisy: Float[Tensor, "N K D"], noise: float) -> Float[Tensor, "N K D"]:
        """The mean of tokens, given them with white noise of a deviation: Wiener's filter."""
        kept = self.variances / (self.variances + noise**2)
        guessed = self.mean + (self._along(noisy) * kept) @ self.axes.mT
        return guessed.to(noisy.dtype).view(noisy.shape)

    def nats(self, noisy: Float[Tensor, "N K D"], noise: float) -> float:
        """What noisy tokens tell of an image, if they are written down by this Gaussian.

        Never less than they tell, in the mean: another distribution's code is only longer.
        """
        total = self.variances + noise**2
        far = (self._along(noisy).square() / total).sum(dim=1).mean().item()
        return (total.log().sum().item() - len(total) * math.log(noise**2) + far - len(total)) / 2

    def _along(self, tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "N d"]:
        return (tokens.double().flatten(1) - self.mean) @ self.axes
