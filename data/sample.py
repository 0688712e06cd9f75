"""What a pair is: an image and the captions that say what it shows.

Letters: N images of a split, H, W height and width in pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .bare_image import DamagedImage
from .captions import DamagedCaption, captions_from, label_from, parse_captions
from .images import decode_image

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
CAPTION_SUFFIXES = ("txt", "json")
"""The first that is there is read: img2dataset writes both, with the same caption."""
LABEL_SUFFIX = "cls"


@dataclass(frozen=True, kw_only=True)
class StoredPair:
    """A pair as it is stored: an image file that nobody has looked into yet, and its captions."""

    key: str
    image: bytes
    captions: tuple[str, ...]
    """At least one."""
    label: str | None = None
    """Of a class; null where none is known."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image with its captions, at least one."""

    key: str
    image: UInt8[np.ndarray, "H W 3"]
    captions: tuple[str, ...]
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A sample that is skipped; `reason` is a short phrase to count by."""

    key: str
    reason: str
    samples: int = 1
    """How many are lost: a broken shard has lost several."""


@runtime_checkable
class PairSource(Protocol):
    """Pairs by random access: shards, Hugging Face datasets, views of them, or pixels in memory."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """sha256 of what the pairs are, in hex: a resumed run must find the same."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Pairs of each set that the source is joined of, in the order of their indices."""

    @property
    def skipped(self) -> Mapping[str, int]:
        """How many samples were left out when the source was opened, by reason."""

    def __len__(self) -> int: ...

    def read(self, index: int) -> "StoredPair | Pair | Damaged":
        """Read pair `index`; may be called from several threads at once."""

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Read the captions of pair `index` alone; none where they are damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Pairs in memory, decoded once and held as uint8, N * 3 * H * W bytes."""

    name: str
    images: UInt8[Tensor, "N 3 H W"]
    captions: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    skipped: dict[str, int]
    """How many samples were left out, by reason."""
    fingerprint: str
    """sha256 of pixels, captions and keys, in hex."""

    @property
    def counts(self) -> tuple[int, ...]:
        return (len(self),)

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> Pair:
        """Give pair `index`, its pixels not copied."""
        pixels = self.images[index].permute(1, 2, 0).numpy()
        return Pair(key=self.keys[index], image=pixels, captions=self.captions[index])

    def captions_of(self, index: int) -> tuple[str, ...]:
        return self.captions[index]


def pairs_from(name: str, samples: Iterable[Pair | Damaged], skipped: Mapping[str, int]) -> Pairs:
    """Hold samples in memory; `skipped` counts, by reason, what was left out before them.

    Raises:
        ValueError: if no pair is left, or the images differ in size.
    """
    pixels, captions, keys, reasons = bytearray(), [], [], Counter(skipped)
    shape: tuple[int, ...] = ()
    for sample in samples:
        if isinstance(sample, Damaged):
            reasons[sample.reason] += sample.samples
            continue
        shape = shape or sample.image.shape
        if sample.image.shape != shape:
            raise ValueError(
                f"images of {name} must be of one size, {shape[:2]}, got {sample.image.shape[:2]}"
            )
        pixels += sample.image.transpose(2, 0, 1).tobytes()
        captions.append(sample.captions)
        keys.append(sample.key)
    if not keys:
        raise ValueError(f"{name} has no pair that can be read, {in_words(reasons)}")
    images = torch.frombuffer(pixels, dtype=torch.uint8)
    return Pairs(
        name=name,
        images=images.view(-1, 3, *shape[:2]),
        captions=tuple(captions),
        keys=tuple(keys),
        skipped=dict(reasons),
        fingerprint=_fingerprint(pixels, shape, captions, keys),
    )


def in_words(skipped: Mapping[str, int]) -> str:
    """Say how many samples were skipped and why."""
    counts = [f"{count} {reason}" for reason, count in sorted(skipped.items()) if count]
    return f"skipped: {', '.join(counts) or 'none'}"


def file_roles(suffixes: Collection[str]) -> tuple[str, str] | str:
    """Find a sample's image and its captions by their suffixes, or say what is missing."""
    images = [suffix for suffix in IMAGE_SUFFIXES if suffix in suffixes]
    texts = [suffix for suffix in CAPTION_SUFFIXES if suffix in suffixes]
    if len(images) != 1:
        return "two images" if images else "no image"
    return (images[0], texts[0]) if texts else "no caption"


def stored_pair(key: str, files: Mapping[str, bytes]) -> StoredPair | Damaged:
    """Make a pair of a sample's files, given by suffix."""
    roles = file_roles(files)
    if isinstance(roles, str):
        return Damaged(key=key, reason=roles)
    image, text = roles
    return parsed_pair(key, files[image], files[text], text, files.get(LABEL_SUFFIX))


def parsed_pair(
    key: str, image: bytes, text: bytes, kind: str, label: bytes | None
) -> StoredPair | Damaged:
    """Make a pair of the bytes of its files; `kind` is the suffix of its captions'."""
    try:
        return StoredPair(
            key=key,
            image=image,
            captions=parse_captions(text, "json" if kind == "json" else "txt"),
            label=None if label is None else label_from(label),
        )
    except DamagedCaption as error:
        return Damaged(key=key, reason=error.reason)


def listed_pair(
    key: str, image: bytes, captions: object, label: object = None
) -> StoredPair | Damaged:
    """Make a pair of an image file, what should be a list of its captions, and its label."""
    try:
        return StoredPair(
            key=key,
            image=image,
            captions=captions_from(captions),
            label=None if label is None else label_from(str(label).encode("utf-8", "replace")),
        )
    except DamagedCaption as error:
        return Damaged(key=key, reason=error.reason)


def decoded(
    sample: StoredPair | Pair | Damaged, into: UInt8[np.ndarray, "h w 3"] | None = None
) -> Pair | Damaged:
    """Decode the image of a pair, unless it is or cannot be; for `into` see `decode_image`."""
    if not isinstance(sample, StoredPair):
        return sample
    try:
        image = decode_image(sample.image, into)
    except DamagedImage as error:
        return Damaged(key=sample.key, reason=error.reason)
    return Pair(key=sample.key, image=image, captions=sample.captions, label=sample.label)


def _fingerprint(
    pixels: bytearray, shape: tuple[int, ...], captions: list[tuple[str, ...]], keys: list[str]
) -> str:
    digest = hashlib.sha256(pixels)
    digest.update(repr((shape, captions, keys)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
