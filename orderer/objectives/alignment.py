"""Feature alignment: the decoder's states half-way say what a frozen network sees at each place.

B batch   N patches   W width of the states   F channels of the network   H, W image size

Only states of patches are aligned, never tokens: tokens that are aligned with patches by their
position turn into a raster order (EOSTok: Kang et al. 2026, https://arxiv.org/abs/2605.00503).
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..positions import Grid
from .teacher import Teacher


class Alignment(nn.Module):
    """Negative cosine similarity of projected states and the teacher's features.

    Source: Yu et al. 2024 (REPA), equation 8, https://arxiv.org/abs/2410.06940; a projector of
    three layers is theirs too.
    """

    def __init__(self, width: int, teacher: Teacher, size: int | None) -> None:
        super().__init__()
        self.teacher = teacher
        self.size = size
        """Shorter side in pixels to which the teacher has images resized; None leaves them."""
        self.projector = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, 2 * width),
            nn.SiLU(),
            nn.Linear(2 * width, teacher.channels),
        )

    def forward(
        self, states: Float[Tensor, "B N W"], images: Float[Tensor, "B 3 H V"], grid: Grid
    ) -> Float[Tensor, ""]:
        """Compare states of the patches on a grid with images whose values lie in [-1, 1]."""
        with torch.no_grad():
            features = self.teacher.last(self._resized(images))  # [B, F, h, w]
            wanted = _on_grid(features, grid)  # [B, N, F]
        return -F.cosine_similarity(self.projector(states).float(), wanted, dim=-1).mean()

    def _resized(self, images: Tensor) -> Tensor:
        if self.size is None:
            return images
        scale = self.size / min(images.shape[2:])
        size = [round(side * scale) for side in images.shape[2:]]
        return F.interpolate(images, size, mode="bilinear", antialias=True)


def _on_grid(features: Float[Tensor, "B F h w"], grid: Grid) -> Float[Tensor, "B N F"]:
    if features.shape[2:] != grid:
        features = F.interpolate(features, grid, mode="bilinear", antialias=True)
    return features.flatten(2).mT
