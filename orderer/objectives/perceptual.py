"""Perceptual distance: how differently a frozen network sees rebuilt images and originals.

B batch   H, W image height and width   C channels of a stage   h, w height and width of its map
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from .teacher import Teacher

MOST_STAGES = 5
"""That are compared, spread over the network's."""


def perceptual_distance(
    teacher: Teacher, rebuilt: Float[Tensor, "B 3 H W"], images: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, ""]:
    """LPIPS with equal weights of all channels: both images have values in [-1, 1].

    The features of each place are scaled to unit length; what is taken is their squared distance,
    the mean over places and the sum over stages. The learned channel weights of the `lpips` package
    are left out: they and the networks under them come as pickles, which are never loaded here.

    Source: Zhang et al. 2018, equation 1, https://arxiv.org/abs/1801.03924.
    """
    with torch.no_grad():
        wanted = _spread(teacher.stages(images))
    seen = _spread(teacher.stages(rebuilt))
    distances = [_distance(a, b) for a, b in zip(seen, wanted, strict=True)]
    return torch.stack(distances).sum()


def _distance(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, ""]:
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean()


def _spread(maps: list[Tensor]) -> list[Tensor]:
    number = min(len(maps), MOST_STAGES)
    last = len(maps) - 1
    return [maps[round(last * place / max(1, number - 1))] for place in range(number)]
