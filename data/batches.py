"""Batches by step: batch `step` is a pure function, so the step is all that a resumed run needs.

    epoch, position = divmod(step * batch_size, pairs)

Letters: B samples in this process' share of the batch, H, W height and width in pixels, K tokens,
D channels of a token.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from .captions import choose_caption
from .framing import Framing
from .order import global_indices, hashed, mixed_indices, thousandths
from .sample import Damaged, Pair, PairSource, decoded, in_words
from .skips import JUDGED_FROM, MAX_SKIPPED, Skips
from .templates import check_templates, choose_phrase
from .tokens import TokenStore

MOST_POWER = 10
SUBSTITUTES = 100
"""Tried in the place of a damaged sample, before all of them are taken to be damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Images, one caption for each, and which pairs they are."""

    images: UInt8[Tensor, "B 3 H W"]
    captions: tuple[str, ...]
    phrases: tuple[str, ...]
    """The same, put into a template where there are any."""
    every: tuple[tuple[str, ...], ...]
    """All captions of each image."""
    indices: Int64[Tensor, "B"]
    keys: tuple[str, ...]
    """Their names in the source."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """Tokens of images and one caption for each."""

    tokens: Float[Tensor, "B K D"]
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    """Of the images."""


@dataclass(frozen=True)
class Draw:
    """Which samples make up each batch, in an order that the world size does not change."""

    _: KW_ONLY
    batch_size: int
    """Samples in the global batch, over all processes."""
    seed: int
    rank: int = 0
    world: int = 1
    weights: tuple[float, ...] = ()
    """How often the sets that the source is joined of come beside each other, each in epochs of
    its own; none: all their samples once an epoch."""
    last_share: float = 0.0
    """Chance that a sample shows its last caption rather than any, see `choose_caption`."""
    length_power: float = 0.0
    """Above 0 its long captions come more often, below 0 the short ones, see `choose_caption`."""
    templates: tuple[str, ...] = ()
    """What captions that are labels are put into, one drawn for each image and epoch."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank must be in 0..{self.world - 1}, got {self.rank}")
        if not 0 <= self.last_share <= 1:
            raise ValueError(f"last_share must lie in 0..1, got {self.last_share}")
        if not -MOST_POWER <= self.length_power <= MOST_POWER:
            raise ValueError(
                f"length_power must lie in -{MOST_POWER}..{MOST_POWER}, got {self.length_power}"
            )
        check_templates(self.templates)
        if self.batch_size % self.world:
            raise ValueError(
                f"batch_size must divide by the {self.world} processes, got {self.batch_size}"
            )

    def check_weights(self, counts: tuple[int, ...]) -> None:
        """Refuse weights that do not go with the sets of a source.

        Raises:
            ValueError: if there is not one for each set, or a set has no pair.
        """
        if self.weights and len(self.weights) != len(counts):
            raise ValueError(f"{len(counts)} sets need as many weights, got {len(self.weights)}")
        if self.weights and not all(counts):
            raise ValueError(f"sets with weights must have a pair each, got {list(counts)}")

    def _indices(self, step: int, counts: tuple[int, ...]) -> tuple[list[int], list[int]]:
        """Which samples, and in which of their epochs, are this process' slice of batch `step`."""
        share = self.batch_size // self.world
        start = step * self.batch_size + self.rank * share
        if self.weights:
            shares = thousandths(self.weights)
            indices, epochs = mixed_indices(self.seed, start, share, counts, shares)
        else:
            indices, epochs = global_indices(self.seed, start, share, sum(counts))
        return indices.tolist(), epochs.tolist()

    def _caption(self, captions: tuple[str, ...], epoch: int, index: int) -> str:
        return choose_caption(captions, self.seed, epoch, index, self.last_share, self.length_power)

    def _phrase(self, caption: str, epoch: int, index: int) -> str:
        return choose_phrase(self.templates, caption, self.seed, epoch, index)


@dataclass(frozen=True, eq=False)
class Batches(Draw):
    """The stream of batches over a source of pairs.

    Every sample comes once an epoch. Where one is damaged, another of the source stands in for it:
    which one is a pure function too. The damaged ones are counted in `skipped`.
    """

    source: PairSource
    framing: Framing
    max_skipped: float = MAX_SKIPPED
    """Share of damaged samples that is put up with, in 0..1; one always is."""
    skips: Skips = field(default_factory=Skips, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_weights(self.source.counts)

    @property
    def skipped(self) -> Mapping[str, int]:
        """Damaged samples that were met so far, by reason."""
        return self.skips.reasons

    def at(self, step: int) -> Batch:
        """Return this process' slice of global batch `step`, counted from 0.

        Raises:
            ValueError: if too many samples are damaged.
        """
        indices, epochs = self._indices(step, self.source.counts)
        images = np.empty((len(indices), self.framing.size, self.framing.size, 3), np.uint8)
        captions, phrases, every, keys = [], [], [], []
        for place, (index, epoch) in enumerate(zip(indices, epochs, strict=True)):
            into = images[place]
            indices[place], pair = self._whole(index, epoch, into)
            shown = self.framing.show(pair.image, self.seed, epoch, index)
            if shown is not into:  # else it was decoded there, and is shown as it is
                into[:] = shown.copy() if shown.base is images else shown
            captions.append(self._caption(pair.captions, epoch, index))
            phrases.append(self._phrase(captions[-1], epoch, index))
            every.append(pair.captions)
            keys.append(pair.key)
        return Batch(
            images=torch.from_numpy(images).permute(0, 3, 1, 2),
            captions=tuple(captions),
            phrases=tuple(phrases),
            every=tuple(every),
            indices=torch.tensor(indices),
            keys=tuple(keys),
        )

    def ahead(self, first: int, last: int, workers: int = 1) -> Iterator[tuple[int, Batch]]:
        """Yield each step in first..last-1 with its batch, made by threads while one is used."""
        yield from _ahead(self.at, range(first, last), workers)

    def _whole(self, index: int, epoch: int, into: UInt8[np.ndarray, "S S 3"]) -> tuple[int, Pair]:
        """Read and decode a pair, perhaps into its place; if it is damaged, a substitute."""
        wanted = index
        least = min(len(self.source), JUDGED_FROM)
        for attempt in range(SUBSTITUTES):
            sample = decoded(self.source.read(index), into)
            damaged = sample if isinstance(sample, Damaged) else None
            self.skips.met(index, damaged, self.source.name, least, self.max_skipped)
            if isinstance(sample, Pair):
                return index, sample
            index = hashed(self.seed, epoch, wanted, 3, attempt) % len(self.source)
        raise ValueError(f"{self.source.name} is damaged, {in_words(self.skipped)}")


@dataclass(frozen=True, eq=False)
class TokenBatches(Draw):
    """The same stream over the tokens of a split."""

    store: TokenStore

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_weights(self.store.counts)

    def at(self, step: int) -> TokenBatch:
        """Return this process' slice of global batch `step`, counted from 0."""
        indices, epochs = self._indices(step, self.store.counts)
        captions = tuple(
            self._caption(self.store.captions[index], epoch, index)
            for index, epoch in zip(indices, epochs, strict=True)
        )
        keys = tuple(self.store.keys[index] for index in indices)
        return TokenBatch(tokens=self.store.tokens[indices], captions=captions, keys=keys)


def _ahead(at: Callable[[int], Batch], steps: range, workers: int) -> Iterator[tuple[int, Batch]]:
    """Call `at` for the next steps in threads; results come in order, an error at its step."""
    with ThreadPoolExecutor(workers) as pool:
        waiting = deque(pool.submit(at, step) for step in steps[: workers + 1])
        try:
            for step in steps:
                following = step + len(waiting)
                batch = waiting.popleft().result()
                if following in steps:
                    waiting.append(pool.submit(at, following))
                yield step, batch
        finally:
            for future in waiting:
                future.cancel()
