"""Adversarial term: a discriminator of patches, which learns against the orderer.

B batch   H, W image height and width   h, w height and width of the scores
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from .contrastive import gather

KEPT = 0.99
"""Of the moving averages of its scores, at each step."""


class Contest(NamedTuple):
    """Two losses of the same images; neither moves the parameters that the other moves."""

    orderer: Float[Tensor, ""]
    """Low where rebuilt images pass for real: moves what rebuilt them."""
    discriminator: Float[Tensor, ""]
    """Low where it tells them apart: moves the discriminator."""


class Discriminator(nn.Module):
    """Scores every patch of an image, high for real; hinge losses, held back by LeCam.

    As in pix2pix, but with group norm, which knows no other images of the batch, and with small
    last layers, so that small images keep their patches. A score sees 54 pixels.

    Sources: Isola et al. 2017, section 3.2, https://arxiv.org/abs/1611.07004; hinge losses: Lim and
    Ye 2017, https://arxiv.org/abs/1705.02894; LeCam: Tseng et al. 2021, equation 3,
    https://arxiv.org/abs/2104.03310.
    """

    real_average: Tensor
    rebuilt_average: Tensor

    def __init__(self, lecam: float, width: int = 32) -> None:
        super().__init__()
        self.lecam = lecam
        self.register_buffer("real_average", torch.zeros(()))
        self.register_buffer("rebuilt_average", torch.zeros(()))
        self.network = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            *_layer(width, 2 * width, 4, stride=2),
            *_layer(2 * width, 4 * width, 4, stride=2),
            *_layer(4 * width, 4 * width, 3, stride=1),
            nn.Conv2d(4 * width, 1, 3, padding=1),
        )

    def forward(
        self, rebuilt: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
    ) -> Contest:
        """Take both losses, of images with values in [-1, 1]."""
        fixed = {name: value.detach() for name, value in self.network.named_parameters()}
        passing = -functional_call(self.network, fixed, (rebuilt,)).float().mean()
        real = self.network(images).float()  # [B, 1, h, w]
        false = self.network(rebuilt.detach()).float()
        telling = F.relu(1 - real).mean() + F.relu(1 + false).mean()
        if self.lecam:
            telling = telling + self.lecam * self._lecam(real, false)
        return Contest(passing, telling)

    def _lecam(self, real: Tensor, false: Tensor) -> Float[Tensor, ""]:
        """Keep each score near the other side's moving average."""
        loss = (real - self.rebuilt_average).square().mean()
        loss = loss + (false - self.real_average).square().mean()
        if self.training:
            for average, scores in ((self.real_average, real), (self.rebuilt_average, false)):
                now = gather(scores.detach().mean().reshape(1)).mean()  # equal on all processes
                average.copy_(KEPT * average + (1 - KEPT) * now)
        return loss


def _layer(channels: int, out: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(channels, out, kernel, stride=stride, padding=1)
    return convolution, nn.GroupNorm(8, out), nn.LeakyReLU(0.2)
