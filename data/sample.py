"""What a pair is: an image and the captions that say what it shows.

Letters: N images of a split, H, W height and width in pixels.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from .captions import DamagedCaption, captions_from, parse_captions
from .images import DamagedImage, decode_image, fit_image

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
CAPTION_SUFFIXES = ("txt", "json")
"""The first that is there is read: img2dataset writes both, with the same caption."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One image with its captions, at least one."""

    key: str
    image: UInt8[np.ndarray, "H W 3"]
    captions: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A sample that is skipped; `reason` is a short phrase to count by."""

    key: str
    reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """A whole split, decoded once and held as uint8, N * 3 * H * W bytes: it must fit in memory."""

    name: str
    images: UInt8[Tensor, "N 3 H W"]
    captions: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]
    skipped: dict[str, int]
    """How many samples were left out, by reason."""
    fingerprint: str
    """sha256 of pixels, captions and keys, in hex."""

    def __len__(self) -> int:
        return len(self.images)


def pairs_from(name: str, samples: Iterable[Pair | Damaged], skipped: Mapping[str, int]) -> Pairs:
    """Hold samples in memory; `skipped` counts, by reason, what was left out before them.

    Raises:
        ValueError: if no pair is left, or the images differ in size.
    """
    pixels, captions, keys, reasons = bytearray(), [], [], Counter(skipped)
    shape: tuple[int, ...] = ()
    for sample in samples:
        if isinstance(sample, Damaged):
            reasons[sample.reason] += 1
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


def decode_pair(
    key: str, files: Mapping[str, bytes], image_size: int | None = None
) -> Pair | Damaged:
    """Make a pair of a sample's files, given by suffix; an image size crops and resizes."""
    images = [files[suffix] for suffix in IMAGE_SUFFIXES if suffix in files]
    if len(images) != 1:
        return Damaged(key=key, reason="two images" if images else "no image")
    return _decoded(key, images[0], lambda: _captions(files), image_size)


def pair_of(key: str, image: bytes, captions: object) -> Pair | Damaged:
    """Make a pair of an image file and what should be a list of its captions."""
    return _decoded(key, image, lambda: captions_from(captions), image_size=None)


def _decoded(
    key: str, raw: bytes, read_captions: Callable[[], tuple[str, ...]], image_size: int | None
) -> Pair | Damaged:
    try:
        captions, image = read_captions(), decode_image(raw)
    except (DamagedImage, DamagedCaption) as error:
        return Damaged(key=key, reason=error.reason)
    image = image if image_size is None else fit_image(image, image_size)
    return Pair(key=key, image=image, captions=captions)


def _captions(files: Mapping[str, bytes]) -> tuple[str, ...]:
    if "txt" in files:
        return parse_captions(files["txt"], "txt")
    if "json" in files:
        return parse_captions(files["json"], "json")
    raise DamagedCaption("no caption")


def _fingerprint(
    pixels: bytearray, shape: tuple[int, ...], captions: list[tuple[str, ...]], keys: list[str]
) -> str:
    digest = hashlib.sha256(pixels)
    digest.update(repr((shape, captions, keys)).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
