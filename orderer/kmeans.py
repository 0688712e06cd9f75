"""k-means: a few centres for many points, so that a point can be told by a number.

    N points   D channels   V centres

Source: Lloyd 1982, "Least squares quantization in PCM", https://doi.org/10.1109/TIT.1982.1056489.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROUNDS = 15


def find_centres(points: Float[Tensor, "N D"], number: int) -> Float[Tensor, "V D"]:
    """Find centres, beginning with the first points: their order should be random.

    Raises:
        ValueError: if there are fewer points than centres.
    """
    if len(points) < number:
        raise ValueError(f"{number} codes need as many tokens, got {len(points)}")
    centres = points[:number].clone()
    for _ in range(ROUNDS):
        at = nearest(points, centres)
        counts = torch.bincount(at, minlength=number)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, at, points)
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
    return centres


def nearest(points: Float[Tensor, "N D"], centres: Float[Tensor, "V D"]) -> Int[Tensor, "N"]:
    """The number of the centre nearest to each point."""
    return torch.cdist(points, centres).argmin(dim=1)
