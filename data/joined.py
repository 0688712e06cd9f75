"""Several sources as one, and parts of a source as a source."""

import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np
from jaxtyping import Int64

from .sample import Damaged, Pair, PairSource, StoredPair


class Joined:
    """Sources one after the other; the keys of each get its prefix, so that they stay apart."""

    def __init__(self, sources: Sequence[PairSource], prefixes: Sequence[str]) -> None:
        self.sources, self.prefixes = tuple(sources), tuple(prefixes)
        self.name = "+".join(source.name for source in sources)
        self.fingerprint = _hash_of(source.fingerprint for source in sources)
        self.counts = tuple(len(source) for source in sources)
        self.skipped = dict(sum((Counter(source.skipped) for source in sources), Counter[str]()))
        self._ends = list(accumulate(self.counts))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int) -> StoredPair | Pair | Damaged:
        number, place = self._find(index)
        sample = self.sources[number].read(place)
        return replace(sample, key=self.prefixes[number] + sample.key)

    def captions_of(self, index: int) -> tuple[str, ...]:
        number, place = self._find(index)
        return self.sources[number].captions_of(place)

    def _find(self, index: int) -> tuple[int, int]:
        number = bisect_right(self._ends, index)
        return number, index - (self._ends[number] - self.counts[number])


class Chosen:
    """Some pairs of a source, by their indices, in order."""

    def __init__(self, source: PairSource, rows: Int64[np.ndarray, "N"], name: str) -> None:
        self.source, self.rows, self.name = source, rows, name
        chosen = np.ascontiguousarray(rows, dtype="<i8").tobytes()
        self.fingerprint = _hash_of([source.fingerprint, hashlib.sha256(chosen).hexdigest()])
        places = np.searchsorted(rows, np.cumsum([0, *source.counts]))
        self.counts = tuple(np.diff(places).tolist())
        self.skipped = source.skipped

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> StoredPair | Pair | Damaged:
        return self.source.read(int(self.rows[index]))

    def captions_of(self, index: int) -> tuple[str, ...]:
        return self.source.captions_of(int(self.rows[index]))


def first(source: PairSource, count: int) -> PairSource:
    """Take the first pairs of a source, of each of its sets in proportion to the set's size.

    Raises:
        ValueError: if it has fewer.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if count > len(source):
        raise ValueError(
            f"{source.name} has {len(source)} pairs, {count} were asked for (null asks for all)"
        )
    if count == len(source):
        return source
    ends = np.cumsum([0, *source.counts])
    shares = np.diff(ends * count // len(source))
    rows = [start + np.arange(share) for start, share in zip(ends, shares, strict=False)]
    return Chosen(source, np.concatenate(rows), source.name)


def apart(source: PairSource, number: int) -> tuple[PairSource, PairSource]:
    """Set some pairs of a source apart, evenly spread: the rest of it, and those.

    Raises:
        ValueError: if nothing would be left of either.
    """
    if not 1 <= number < len(source):
        raise ValueError(
            f"of the {len(source)} pairs of {source.name} at least 1 and not all can be set apart, "
            f"got {number}"
        )
    taken = np.arange(number) * len(source) // number
    rest = np.setdiff1d(np.arange(len(source)), taken)
    return Chosen(source, rest, source.name), Chosen(source, taken, source.name)


def _hash_of(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
