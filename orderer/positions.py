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
    """A learned blend: each of `outputs` rows its own mixture of `inputs` vectors.

    The start is a random orthonormal matrix. Without this path all tokens collapse to one mean for
    hundreds of steps; being random, it ties no query to a place, so no raster order leaks in.
    """

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)))

    def forward(self, vectors: Float[Tensor, "B n W"]) -> Float[Tensor, "B m W"]:
        return torch.einsum("mn,bnw->bmw", self.weight[:, : vectors.shape[1]], vectors)
