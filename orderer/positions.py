"""Where things are: learned positions, and mixings that tie no query to a place.

A model has them for the grid of patches it was made for; on another grid they are resampled.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, int]
"""Rows and columns of patches."""

POSITION_STD = 0.02
"""Of everything but patches. Small beside the embeddings: larger ones left every token at one mean
for hundreds of steps."""

PATCH_POSITION_STD = 0.3
"""As large as the patches' embeddings: with small ones, text learns what is in an image long before
it learns where (R@1 on 500 scenes after 600 steps: 0.90 with 0.02, 0.95 with 0.3)."""


def learned_positions(number: int, width: int, std: float = POSITION_STD) -> nn.Parameter:
    """One vector for each of `number` positions."""
    return nn.Parameter(torch.randn(number, width) * std)


def resampled(field: Float[Tensor, "n W"], grid: Grid, to: Grid) -> Float[Tensor, "m W"]:
    """Read a vector field over the patches of one grid at those of another, row by row."""
    if grid == to:
        return field
    image = field.float().T.unflatten(1, grid)[None]  # [1, W, rows, columns]
    image = F.interpolate(image, to, mode="bicubic", align_corners=False, antialias=True)
    return image[0].flatten(1).T.to(field.dtype)


class Mixing(nn.Module):
    """A learned blend: each of m outputs its own mixture of n vectors.

    It starts as an orthonormal matrix. Without this path all tokens collapse to one mean for
    hundreds of steps. A random one ties no query to a place, so no raster order leaks in; one of
    cosines goes from low to high frequencies of the image.
    """

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)))  # [m, n]

    def start_as_cosines(self, grid: Grid) -> None:
        """Start as the lowest frequencies of the two-dimensional DCT-II over the inputs' grid.

        Raises:
            ValueError: if there are more outputs than frequencies.
        """
        outputs, inputs = self.weight.shape
        if outputs > inputs:
            raise ValueError(
                f"mixing 'dct' needs a patch for every token, got {inputs} patches and {outputs} "
                "tokens"
            )
        down, across = map(_cosines, grid)
        waves = torch.einsum("ui,vj->uvij", down, across).reshape(inputs, inputs)
        order = sorted(range(inputs), key=lambda wave: (sum(divmod(wave, grid[1])), wave))
        with torch.no_grad():
            self.weight.copy_(waves[order[:outputs]])

    def start_as_mirror_of(self, other: "Mixing") -> None:
        """Start as the transpose of another mixing, hence undo it as far as that can be done.

        The decoder's mixing does so with the encoder's: from the first step on, what a patch put
        into the tokens comes back to that patch. It cuts the steps to a given error to a quarter.
        """
        with torch.no_grad():
            self.weight.copy_(other.weight.T)

    def forward(self, vectors: Float[Tensor, "B n W"]) -> Float[Tensor, "B m W"]:
        return torch.einsum("mn,bnw->bmw", self.weight, vectors)

    def from_grid(
        self, vectors: Float[Tensor, "B n W"], grid: Grid, to: Grid
    ) -> Float[Tensor, "B m W"]:
        """Blend the vectors of a grid; on a finer one each weighs less, in the same sum."""
        weight = resampled(self.weight.T, grid, to).T * (math.prod(grid) / math.prod(to))
        return torch.einsum("mn,bnw->bmw", weight, vectors)

    def to_grid(
        self, vectors: Float[Tensor, "B n W"], grid: Grid, to: Grid
    ) -> Float[Tensor, "B m W"]:
        """Blend vectors into one for each patch of a grid."""
        return torch.einsum("mn,bnw->bmw", resampled(self.weight, grid, to), vectors)


def _cosines(length: int) -> Float[Tensor, "L L"]:
    """The orthonormal DCT-II matrix: one row for each frequency."""
    places = (torch.arange(length) + 0.5) / length
    waves = torch.cos(math.pi * torch.arange(length)[:, None] * places)
    return F.normalize(waves, dim=1)


def start_mixing(mixing: Mixing, kind: Literal["random", "dct"], grid: Grid) -> None:
    """Give the encoder's mixing its start."""
    if kind == "dct":
        mixing.start_as_cosines(grid)
