"""Batches by step: batch `step` is a pure function, so the step is all that a resumed run needs.

Letters: B samples in this process' share of the batch, H, W height and width in pixels, K tokens,
D channels of a token.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .captions import choose_caption
from .order import global_indices
from .sample import Pairs
from .tokens import TokenStore


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images, one caption for each, and which pairs they are."""

    images: UInt8[Tensor, "B 3 H W"]
    captions: tuple[str, ...]
    indices: Int64[Tensor, "B"]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """Tokens of images and one caption for each."""

    tokens: Float[Tensor, "B K D"]
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """Which samples make up each batch, in an order that the world size does not change."""

    _: KW_ONLY
    batch_size: int
    """Samples in the global batch, over all processes."""
    seed: int
    rank: int = 0
    world: int = 1
    last_share: float = 0.0
    """Chance that a sample shows its last caption rather than any, see `choose_caption`."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must be in 0..{self.world - 1}, got {self.rank}")
        if not 0 <= self.last_share <= 1:
            raise ValueError(f"last_share must lie in 0..1, got {self.last_share}")
        if self.batch_size % self.world:
            raise ValueError(
                f"batch_size must divide by the {self.world} processes, got {self.batch_size}"
            )

    def _draw(
        self, step: int, captions: Sequence[Sequence[str]]
    ) -> tuple[Int64[Tensor, "B"], tuple[str, ...]]:
        """Draw this process' slice of global batch `step`: which samples, and a caption of each."""
        share = self.batch_size // self.world
        start = step * self.batch_size + self.rank * share
        indices, epochs = global_indices(self.seed, start, share, len(captions))
        chosen = (
            choose_caption(captions[index], self.seed, epoch, index, self.last_share)
            for index, epoch in zip(indices.tolist(), epochs.tolist(), strict=True)
        )
        return torch.from_numpy(indices), tuple(chosen)


@dataclass(frozen=True, eq=False)
class Batches(Draw):
    """The stream of batches over a split."""

    pairs: Pairs

    def at(self, step: int) -> Batch:
        """Return this process' slice of global batch `step`, counted from 0."""
        indices, captions = self._draw(step, self.pairs.captions)
        return Batch(images=self.pairs.images[indices], captions=captions, indices=indices)


@dataclass(frozen=True, eq=False)
class TokenBatches(Draw):
    """The same stream over the tokens of a split."""

    store: TokenStore

    def at(self, step: int) -> TokenBatch:
        """Return this process' slice of global batch `step`, counted from 0."""
        indices, captions = self._draw(step, self.store.captions)
        return TokenBatch(tokens=self.store.tokens[indices], captions=captions)
