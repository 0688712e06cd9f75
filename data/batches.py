"""Batches by step: batch `step` is a pure function, so the step is all that a resumed run needs.

Letters: B images in this process' share of the batch, H, W height and width in pixels.
"""

from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from .captions import choose_caption
from .order import global_indices
from .sample import Pairs


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images, one caption for each, and which pairs they are."""

    images: UInt8[Tensor, "B 3 H W"]
    captions: tuple[str, ...]
    indices: Int64[Tensor, "B"]


@dataclass(frozen=True, eq=False)
class Batches:
    """The stream of batches over a split, in an order that the world size does not change."""

    pairs: Pairs
    _: KW_ONLY
    batch_size: int
    """Images in the global batch, over all processes."""
    seed: int
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must be in 0..{self.world - 1}, got {self.rank}")
        if self.batch_size % self.world:
            raise ValueError(
                f"batch_size must divide by the {self.world} processes, got {self.batch_size}"
            )

    def at(self, step: int) -> Batch:
        """Return this process' slice of global batch `step`, counted from 0."""
        share = self.batch_size // self.world
        start = step * self.batch_size + self.rank * share
        indices, epochs = global_indices(self.seed, start, share, len(self.pairs))
        chosen = torch.from_numpy(indices)  # [B]
        return Batch(
            images=self.pairs.images[chosen],  # [B, 3, H, W]
            captions=tuple(
                choose_caption(self.pairs.captions[index], self.seed, epoch, index)
                for index, epoch in zip(indices.tolist(), epochs.tolist(), strict=True)
            ),
            indices=chosen,
        )
