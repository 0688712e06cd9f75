"""What is in a split, in numbers: one pass over its pairs, none of them kept.

What grows with the pairs looked at is 16 bytes for each; everything else has a bound.
Letters: N pairs looked at, H, W height and width in pixels.
"""

import hashlib
import os
import re
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice, pairwise
from math import log

import numpy as np
from jaxtyping import Int64, UInt8, UInt64

from .frequent import Frequencies, FrequentTexts
from .images import image_format
from .order import hashed
from .sample import Damaged, Pair, PairSource, StoredPair, decoded

AT_ONCE = 64
"""Pairs decoded ahead."""
FIRST_KEYS = 5
"""Named of each kind of damage, and of each group of equal images."""
LARGEST_GROUPS = 12
ASPECTS = {
    f"{wide}:{high}": wide / high
    for wide, high in (
        *((1, 4), (1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (4, 5), (1, 1)),
        *((5, 4), (4, 3), (3, 2), (16, 9), (2, 1), (3, 1), (4, 1)),
    )
}
"""Widths over heights that images are counted under, each under the nearest one."""
WORD = re.compile(r"\w+(?:['’-]\w+)*")  # noqa: RUF001, an apostrophe is meant


@dataclass(frozen=True, kw_only=True)
class Damage:
    """Samples that cannot be used, for one reason."""

    reason: str
    samples: int
    keys: tuple[str, ...]
    """The first ones, of samples or of the shards that lost them."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """Images that are equal to the last bit once they are decoded."""

    images: int
    """How many could go without a loss: all but one of each group."""
    groups: int
    largest: tuple[tuple[int, ...], ...]
    """The first places of the largest groups."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Description:
    """A split in numbers; places are those of its source."""

    pairs: int
    """That the split has; damaged ones may be among them."""
    looked_at: int
    good: int
    damage: tuple[Damage, ...]
    """The most frequent reason first."""
    formats: Mapping[str, int]
    bytes: int
    """Of the good image files."""
    sizes: Frequencies
    """Width and height in pixels: `640x480`."""
    sides: Mapping[int, int]
    """How many images have a shorter side of so many pixels."""
    aspects: Mapping[str, int]
    """How many images are nearest to each of ASPECTS."""
    captions: Frequencies
    captions_per_image: Mapping[int, int]
    caption_words: Mapping[int, int]
    """How many captions are so many words long, as white space parts them."""
    words: Frequencies
    """In small letters, without punctuation around them."""
    labels: Frequencies
    copies: Copies
    shown: tuple[int, ...]
    """Places of good pairs to look at, one from each part of the split."""
    places: Int64[np.ndarray, "N"]
    """Of the good pairs."""
    fingerprints: UInt64[np.ndarray, "N"]
    """Of their pixels."""


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What is kept of a pair for a moment."""

    place: int
    format: str
    bytes: int
    height: int
    width: int
    fingerprint: int
    captions: tuple[str, ...]
    label: str | None


def evenly(count: int, most: int) -> Int64[np.ndarray, "L"]:
    """Take at most so many places among `count`, evenly spread, in order."""
    if most < 1:
        raise ValueError(f"the most pairs to look at must be at least 1, got {most}")
    return np.arange(min(count, most)) * count // max(1, min(count, most))


def describe(
    source: PairSource,
    places: Iterable[int],
    losses: Iterable[Damaged] = (),
    *,
    shown: int = 36,
    seed: int = 0,
) -> Description:
    """Decode the pairs at some places, some ahead in threads, and count what is in them.

    Args:
        source: of the pairs.
        places: of the pairs to look at, see `evenly`.
        losses: what was lost before, see `salvage`.
        shown: pairs to choose for a contact sheet.
        seed: of that choice.
    """
    tally = _Tally()
    for loss in losses:
        tally.add_damage(loss.key, loss.reason, loss.samples)
    for look in _looks(source, places):
        tally.add(look)
    return tally.description(len(source), shown, seed)


def in_both(one: Description, other: Description) -> Int64[np.ndarray, "L"]:
    """Find the places in `one` of images that are in `other` too, equal to the last bit."""
    return one.places[np.isin(one.fingerprints, other.fingerprints)]


class _Tally:
    """What was counted so far."""

    def __init__(self) -> None:
        self.looked_at = self.bytes = 0
        self.damage: Counter[str] = Counter()
        self.keys: dict[str, list[str]] = {}
        self.formats: Counter[str] = Counter()
        self.sides, self.per_image, self.lengths = Counter[int](), Counter[int](), Counter[int]()
        self.aspects = Counter(dict.fromkeys(ASPECTS, 0))
        self.sizes, self.captions = FrequentTexts(), FrequentTexts()
        self.words, self.labels = FrequentTexts(), FrequentTexts()
        self.places, self.fingerprints = array("q"), array("Q")

    def add_damage(self, key: str, reason: str, samples: int = 1) -> None:
        self.damage[reason] += samples
        keys = self.keys.setdefault(reason, [])
        if len(keys) < FIRST_KEYS and key not in keys:
            keys.append(key)

    def add(self, look: _Look | Damaged) -> None:
        self.looked_at += 1
        if isinstance(look, Damaged):
            self.add_damage(look.key, look.reason)
            return
        self.formats[look.format] += 1
        self.bytes += look.bytes
        self.sizes.add([f"{look.width}x{look.height}"])
        self.sides[min(look.width, look.height)] += 1
        self.aspects[nearest_aspect(look.width, look.height)] += 1
        self.per_image[len(look.captions)] += 1
        self.captions.add(look.captions)
        for caption in look.captions:
            self.lengths[len(caption.split())] += 1
            self.words.add(WORD.findall(caption.casefold()))
        self.labels.add([] if look.label is None else [look.label])
        self.places.append(look.place)
        self.fingerprints.append(look.fingerprint)

    def description(self, pairs: int, shown: int, seed: int) -> Description:
        places = np.array(self.places, dtype=np.int64)
        fingerprints = np.array(self.fingerprints, dtype=np.uint64)
        return Description(
            pairs=pairs,
            looked_at=self.looked_at,
            good=len(places),
            damage=tuple(
                Damage(reason=reason, samples=samples, keys=tuple(self.keys[reason]))
                for reason, samples in sorted(self.damage.items(), key=lambda x: (-x[1], x[0]))
            ),
            formats=dict(self.formats),
            bytes=self.bytes,
            sizes=self.sizes.frequencies(),
            sides=dict(self.sides),
            aspects=dict(self.aspects),
            captions=self.captions.frequencies(),
            captions_per_image=dict(self.per_image),
            caption_words=dict(self.lengths),
            words=self.words.frequencies(),
            labels=self.labels.frequencies(),
            copies=_copies(places, fingerprints),
            shown=tuple(places[one_of_each_part(len(places), shown, seed)].tolist()),
            places=places,
            fingerprints=fingerprints,
        )


def nearest_aspect(width: int, height: int) -> str:
    """Name the proportion of ASPECTS that an image is nearest to."""
    return min(ASPECTS, key=lambda name: abs(log(width / height / ASPECTS[name])))


def one_of_each_part(count: int, parts: int, seed: int) -> list[int]:
    """Draw one index from each of so many equal parts of 0..count-1: all, if there are no more."""
    parts = min(parts, count)
    ends = [part * count // parts for part in range(parts + 1)] if parts else []
    return [
        start + hashed(seed, part) % (end - start)
        for part, (start, end) in enumerate(pairwise(ends))
    ]


def _looks(source: PairSource, places: Iterable[int]) -> Iterator[_Look | Damaged]:
    remaining = iter(places)

    def look(place: int) -> _Look | Damaged:
        return _look(place, source.read(int(place)))

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        while some := list(islice(remaining, AT_ONCE)):
            yield from pool.map(look, some)


def _look(place: int, sample: StoredPair | Pair | Damaged) -> _Look | Damaged:
    pair = decoded(sample)
    if isinstance(pair, Damaged):
        return pair
    raw = sample.image if isinstance(sample, StoredPair) else b""
    height, width, _ = pair.image.shape
    return _Look(
        place=place,
        format=image_format(raw) or "pixels",
        bytes=len(raw),
        height=height,
        width=width,
        fingerprint=_fingerprint(pair.image),
        captions=pair.captions,
        label=pair.label,
    )


def _fingerprint(image: UInt8[np.ndarray, "H W 3"]) -> int:
    """64 bits of the pixels: among ten million images two meet by chance once in 400,000 tries."""
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8)
    digest.update(repr(image.shape).encode())
    return int.from_bytes(digest.digest(), "little")


def _copies(places: Int64[np.ndarray, "N"], fingerprints: UInt64[np.ndarray, "N"]) -> Copies:
    order = np.argsort(fingerprints, kind="stable")
    _, starts, counts = np.unique(fingerprints[order], return_index=True, return_counts=True)
    several = np.flatnonzero(counts > 1)
    groups = sorted((-counts[i], places[order[starts[i]]], i) for i in several)
    return Copies(
        images=int((counts - 1).sum()),
        groups=len(several),
        largest=tuple(
            tuple(places[order[starts[i] :][: min(counts[i], FIRST_KEYS)]].tolist())
            for _, _, i in groups[:LARGEST_GROUPS]
        ),
    )
