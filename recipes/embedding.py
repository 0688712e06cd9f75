"""Images of a source to embeddings, as they are read: memory holds one batch of them.

N images   E size of the embedding
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from data import Damaged, PairSource, check_skipped, decoded, in_words
from recipes.clip import BATCH, Clip

Shown = tuple[Tensor, tuple[str, ...]]
"""An image's pixels as a model sees them, and its captions."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """The good pairs of a source."""

    images: Float[Tensor, "N E"]
    captions: list[tuple[str, ...]]
    skipped: Counter[str]
    """How many samples were left out, by reason."""


def embed_images(pairs: PairSource, clip: Clip, max_skipped: float) -> Embedded:
    """Embed every image that can be read.

    Raises:
        ValueError: if too many cannot, or none is left.
    """
    skipped, captions, parts = Counter(pairs.skipped), [], []
    for batch in tqdm(
        _batches(pairs, clip, skipped), "embed", -(-len(pairs) // BATCH), disable=None
    ):
        if batch:
            parts.append(clip.embed_images(torch.stack([pixels for pixels, _ in batch])))
            captions += [of_one for _, of_one in batch]
    check_skipped(pairs, len(captions), skipped, max_skipped)
    if not captions:
        raise ValueError(f"{pairs.name} has no pair that can be read, {in_words(skipped)}")
    return Embedded(images=torch.cat(parts), captions=captions, skipped=skipped)


def _batches(pairs: PairSource, clip: Clip, skipped: Counter[str]) -> Iterator[list[Shown]]:
    """Read and show BATCH pairs at a time, in threads; the bad ones are counted."""

    def read(index: int) -> Shown | Damaged:
        pair = decoded(pairs.read(index))
        return pair if isinstance(pair, Damaged) else (clip.pixels(pair.image), pair.captions)

    with ThreadPoolExecutor(2) as pool:
        for first in range(0, len(pairs), BATCH):
            good = []
            for shown in pool.map(read, range(first, min(first + BATCH, len(pairs)))):
                if isinstance(shown, Damaged):
                    skipped[shown.reason] += shown.samples
                else:
                    good.append(shown)
            yield good
