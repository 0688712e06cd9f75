"""Images and captions to embeddings, as they are read: memory holds one batch of them.

Of several processes each embeds its share, whole batches of it, so that the embeddings are those of
one process; all of them get all.

N images   M captions   E size of the embedding   R rows of one process, r of all
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from data import Damaged, PairSource, check_skipped, decoded
from recipes.clip import BATCH, Clip
from recipes.engine.processes import is_first, of_all, rank_and_world, texts_of_all

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
    own: Counter[str] = Counter()
    said, parts, share = [], [], share_of(len(pairs))
    quiet = None if is_first() else True
    batches = _batches(pairs, share, clip, own)
    for batch in tqdm(batches, "embed", -(-len(share) // BATCH), disable=quiet):
        if batch:
            parts.append(clip.embed_images(torch.stack([pixels for pixels, _ in batch])))
            said += [of_one for _, of_one in batch]
    captions, skipped = [], Counter(pairs.skipped)
    for found, left_out in map(json.loads, texts_of_all(json.dumps([said, own]))):
        captions += [tuple(of_one) for of_one in found]
        skipped.update(left_out)
    check_skipped(pairs, len(captions), skipped, max_skipped)
    images = rows_of_all(torch.cat(parts) if parts else None, clip.device)
    return Embedded(images=images, captions=captions, skipped=skipped)


def embed_texts(captions: Sequence[str], clip: Clip) -> Float[Tensor, "M E"]:
    """Embed captions, on the CPU."""
    share = share_of(len(captions))
    own = captions[share.start : share.stop]
    return rows_of_all(clip.embed_texts(own) if own else None, clip.device)


def share_of(count: int) -> range:
    """The places, of `count`, that this process embeds: whole batches, one after another."""
    rank, world = rank_and_world()
    batches = -(-count // BATCH)
    first, end = (BATCH * (batches * each // world) for each in (rank, rank + 1))
    return range(min(first, count), min(end, count))


def rows_of_all(rows: Float[Tensor, "R E"] | None, device: torch.device) -> Float[Tensor, "r E"]:
    """The rows of all processes, in their order, on the CPU; None is no row, of some."""
    shapes = [json.loads(text) for text in texts_of_all(json.dumps(_shape(rows)))]
    most, width = (max(shape[place] for shape in shapes) for place in (0, 1))
    padded = torch.zeros(most, width)
    if rows is not None:
        padded[: len(rows)] = rows
    parts = of_all(padded.to(device)).cpu().split(most)
    return torch.cat([part[:count] for part, (count, _) in zip(parts, shapes, strict=True)])


def _shape(rows: Tensor | None) -> list[int]:
    return [0, 0] if rows is None else list(rows.shape)


def _batches(
    pairs: PairSource, share: range, clip: Clip, skipped: Counter[str]
) -> Iterator[list[Shown]]:
    """Read and show BATCH pairs at a time, in threads; the bad ones are counted."""

    def read(index: int) -> Shown | Damaged:
        pair = decoded(pairs.read(index))
        return pair if isinstance(pair, Damaged) else (clip.pixels(pair.image), pair.captions)

    with ThreadPoolExecutor(2) as pool:
        for first in range(0, len(share), BATCH):
            good = []
            for shown in pool.map(read, share[first : first + BATCH]):
                if isinstance(shown, Damaged):
                    skipped[shown.reason] += shown.samples
                else:
                    good.append(shown)
            yield good
