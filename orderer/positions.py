"""Where things are: learned positions, and mixings that tie no query to a place."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

POSITION_STD = 0.02
"""Small beside the embeddings: larger ones left every token at one mean for hundreds of steps."""


def learned_positions(number: int, width: int) -> nn.Parameter:
    """One vector for each of `number` positions."""
    return nn.Parameter(torch.randn(number, width) * POSITION_STD)


class Mixing(nn.Module):
    """A learned blend: each of m outputs its own mixture of n vectors, one for each channel group.

    It starts from random orthonormal matrices. Without this path all tokens collapse to one mean
    for hundreds of steps; being random, it ties no query to a place, so no raster order leaks in.
    """

    def __init__(self, outputs: int, inputs: int, groups: int) -> None:
        super().__init__()
        starts = [nn.init.orthogonal_(torch.empty(outputs, inputs)) for _ in range(groups)]
        self.weight = nn.Parameter(torch.stack(starts))  # [G, m, n]

    def forward(self, vectors: Float[Tensor, "B n W"]) -> Float[Tensor, "B m W"]:
        grouped = vectors.unflatten(-1, (len(self.weight), -1))  # [B, n, G, W / G]
        return torch.einsum("gmn,bngw->bmgw", self.weight, grouped).flatten(-2)
