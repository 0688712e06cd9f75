"""One pass over the images of a source: what the rules of a curation ask of each.

Letters: N images that are looked at, B of them at a time, S pixels on a side.
"""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int32, Int64, UInt8
from torch import Tensor

from .images import Fit, fit_image
from .sample import Damaged, PairSource, decoded
from .similar import DIGEST_BYTES, SIDE, Progress, digest, silent, thumbnail

AT_ONCE = 64
"""Images in a batch of the scorer; as many are decoded ahead."""


@runtime_checkable
class Scorer(Protocol):
    """A model that says how well captions fit an image."""

    @property
    def image_size(self) -> int:
        """S, of the images it reads."""

    @property
    def fit(self) -> Fit:
        """How images come to that size: `crop` or `squash`."""

    def __call__(
        self, images: UInt8[Tensor, "B 3 S S"], captions: Sequence[Sequence[str]]
    ) -> Float[Tensor, "B"]:
        """Score each image with that of its captions, at least one, which fits it best."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Looks:
    """What is remembered of each image: about 800 bytes."""

    sizes: Int32[np.ndarray, "N 2"]
    """Height and width in pixels."""
    digests: UInt8[np.ndarray, "N 16"]
    thumbnails: UInt8[np.ndarray, "N 16 16 3"]
    scores: Float32[np.ndarray, "N"]
    """NaN where there is no scorer."""

    def __getitem__(self, which: Bool[np.ndarray, "N"]) -> "Looks":
        return Looks(**{name: values[which] for name, values in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """What is remembered of one image, and the image as the scorer reads it."""

    size: tuple[int, int]
    digest: bytes
    thumbnail: UInt8[np.ndarray, "16 16 3"]
    shown: UInt8[np.ndarray, "S S 3"] | None


def look_at(
    source: PairSource,
    rows: Int64[np.ndarray, "N"],
    *,
    scorer: Scorer | None = None,
    captions: Sequence[Sequence[str]] = (),
    progress: Progress = silent,
) -> tuple[Looks, Bool[np.ndarray, "N"], Counter[str]]:
    """Decode each image once.

    Args:
        source: of the images.
        rows: which of them.
        scorer: None leaves the scores out.
        captions: of each image, for the scorer.
        progress: of batches.

    Returns:
        What was seen, which images could be read (zeros were seen of the others), and how many
        could not, by reason.
    """
    looks = Looks(
        sizes=np.zeros((len(rows), 2), np.int32),
        digests=np.zeros((len(rows), DIGEST_BYTES), np.uint8),
        thumbnails=np.zeros((len(rows), SIDE, SIDE, 3), np.uint8),
        scores=np.full(len(rows), np.nan, np.float32),
    )
    is_good = np.zeros(len(rows), dtype=bool)
    reasons = Counter[str]()
    starts = progress(range(0, len(rows), AT_ONCE), "images")
    for start, batch in _batches(source, rows, scorer, starts):
        good = {}
        for place, look in enumerate(batch, start):
            if isinstance(look, str):
                reasons[look] += 1
                continue
            good[place] = look
            is_good[place] = True
            looks.sizes[place] = look.size
            looks.digests[place] = np.frombuffer(look.digest, np.uint8)
            looks.thumbnails[place] = look.thumbnail
        if scorer and good:
            looks.scores[list(good)] = _scores(scorer, good.values(), [captions[i] for i in good])
    return looks, is_good, reasons


def _batches(
    source: PairSource, rows: Int64[np.ndarray, "N"], scorer: Scorer | None, starts: Iterable[int]
) -> Iterator[tuple[int, Iterator[_Look | str]]]:
    """Decode in threads, one batch ahead."""

    def look(row: int) -> _Look | str:
        return _look(source, row, scorer)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        waiting: deque[tuple[int, Iterator[_Look | str]]] = deque()
        for start in starts:
            waiting.append((start, pool.map(look, rows[start : start + AT_ONCE].tolist())))
            if len(waiting) > 1:
                yield waiting.popleft()
        yield from waiting


def _look(source: PairSource, row: int, scorer: Scorer | None) -> _Look | str:
    pair = decoded(source.read(row))
    if isinstance(pair, Damaged):
        return pair.reason
    height, width, _ = pair.image.shape
    return _Look(
        size=(height, width),
        digest=digest(pair.image),
        thumbnail=thumbnail(pair.image),
        shown=fit_image(pair.image, scorer.image_size, scorer.fit) if scorer else None,
    )


def _scores(
    scorer: Scorer, looks: Iterable[_Look], captions: Sequence[Sequence[str]]
) -> Float32[np.ndarray, "B"]:
    shown = np.stack([look.shown for look in looks if look.shown is not None])  # [B, S, S, 3]
    images = torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous()
    return scorer(images, captions).float().cpu().numpy()
