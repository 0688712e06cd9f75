"""Small sets are decoded once: each pair is kept, as it will be shown, from its first use on."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .images import fit_image
from .sample import Damaged, Pair, PairSource, decoded

MOST_BYTES = 2**30
"""Of pixels, in each process; a larger set is decoded again every epoch."""


class Kept:
    """A source whose images are cropped, resized and kept in memory as they are read."""

    def __init__(self, source: PairSource, size: int) -> None:
        self.source, self.size = source, size
        self._pairs: dict[int, Pair | Damaged] = {}

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def fingerprint(self) -> str:
        return self.source.fingerprint

    @property
    def counts(self) -> tuple[int, ...]:
        return self.source.counts

    @property
    def skipped(self) -> Mapping[str, int]:
        return self.source.skipped

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> Pair | Damaged:
        """Read pair `index`; its image is a square of `size` pixels."""
        pair = self._pairs.get(index)
        if pair is None:
            pair = decoded(self.source.read(index))
            if isinstance(pair, Pair):
                pair = replace(pair, image=np.array(fit_image(pair.image, self.size)))
            self._pairs[index] = pair
        return pair

    def captions_of(self, index: int) -> tuple[str, ...]:
        return self.source.captions_of(index)


def fits(source: PairSource, size: int) -> bool:
    """Say whether all images of a source can be kept."""
    return len(source) * 3 * size**2 <= MOST_BYTES
