"""What one of the processes that read a stream of shards does: tars to batches.

Letters: S pixels on a side.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import count
from random import Random

import numpy as np
import torch
from jaxtyping import UInt8

from .batches import Batch, Draw
from .braces import without_query
from .framing import Framing
from .order import epoch_order, hashed
from .sample import Damaged, Pair, decoded
from .tar_stream import pairs_in_url

BUFFER = 1_000
"""Samples that each reader mixes, decoded: as many times 3 * S * S bytes."""
MIXED_FROM = 100
"""Samples in the buffer before the first is given."""
NOTHING = "no pair"
"""Of a reader that has gone through its shards and found none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A sample as training sees it."""

    image: UInt8[np.ndarray, "S S 3"]
    caption: str
    phrase: str
    every: tuple[str, ...]
    index: int
    key: str


@dataclass(frozen=True, eq=False)
class Reader(Draw):
    """Reads shares of batches without end, one process' shares; what is damaged comes between."""

    urls: tuple[str, ...]
    framing: Framing
    fits: Callable[[str], bool]
    _: KW_ONLY
    first: int
    """Number of the first epoch."""

    def read(self, reader: int, readers: int) -> Iterator[Batch | Damaged]:
        """Yield what reader number `reader` of this process reads."""
        gathered: list[Shown] = []
        for number in count(self.first):
            in_vain = True
            for sample in self.epoch(number, reader, readers):
                if isinstance(sample, Damaged):
                    yield sample
                    continue
                in_vain = False
                gathered.append(sample)
                if len(gathered) == self.batch_size // self.world:
                    yield _batch(gathered)
                    gathered = []
            if in_vain:
                yield Damaged(key="", reason=NOTHING)

    def epoch(self, number: int, reader: int, readers: int) -> Iterator[Shown | Damaged]:
        """Yield every sample of a reader's share of the shards once, mixed."""
        from webdataset import shuffle  # here alone: a machine that streams not may be without it

        # webdataset's own split_by_node and split_by_worker obey RANK and NUM_WORKERS of the
        # environment, also where those are another program's.
        order = epoch_order(self.seed, number, len(self.urls))[self.rank :: self.world]
        urls = (self.urls[shard] for shard in order[reader::readers])
        samples = (sample for url in urls for sample in self._shown(url, number))
        rng = Random(hashed(self.seed, number, self.rank, reader))
        yield from shuffle(BUFFER, initial=MIXED_FROM, rng=rng)(samples)

    def _shown(self, url: str, epoch: int) -> Iterator[Shown | Damaged]:
        for pair in map(decoded, pairs_in_url(url)):
            yield self._show(pair, url, epoch) if isinstance(pair, Pair) else _placed(pair, url)

    def _show(self, pair: Pair, url: str, epoch: int) -> Shown | Damaged:
        captions = tuple(filter(self.fits, pair.captions))
        if not captions:
            return _placed(Damaged(key=pair.key, reason="caption too long"), url)
        key = _place(pair.key, url)
        index = identity(key)
        image = self.framing.show(pair.image, self.seed, epoch, index)
        caption = self._caption(captions, epoch, index)
        return Shown(
            image=image.copy(),  # no part of a larger one
            caption=caption,
            phrase=self._phrase(caption, epoch, index),
            every=captions,
            index=index,
            key=key,
        )


def _batch(samples: Sequence[Shown]) -> Batch:
    images = np.stack([sample.image for sample in samples])
    return Batch(
        images=torch.from_numpy(images).permute(0, 3, 1, 2),
        captions=tuple(sample.caption for sample in samples),
        phrases=tuple(sample.phrase for sample in samples),
        every=tuple(sample.every for sample in samples),
        indices=torch.tensor([sample.index for sample in samples]),
        keys=tuple(sample.key for sample in samples),
    )


def _place(key: str, url: str) -> str:
    """Name a sample, or a shard, so that no other has the same name."""
    return key if key == without_query(url) else f"{without_query(url)} {key}"


def _placed(damaged: Damaged, url: str) -> Damaged:
    return Damaged(key=_place(damaged.key, url), reason=damaged.reason)


def identity(place: str) -> int:
    """Number a sample, the same in every process: 63 bits of the sha256 of its name."""
    return int.from_bytes(hashlib.sha256(place.encode()).digest()[:8]) >> 1
