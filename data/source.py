"""One door to every kind of pairs."""

from collections.abc import Sequence

from .sample import Pairs
from .scenes import load_scenes
from .shards import load_shards


def open_pairs(
    source: Sequence[str], split: str, image_size: int, count: int | None = None
) -> Pairs:
    """Load a split of `("scenes",)`, which are drawn, or of local shard folders.

    Args:
        source: the word "scenes", or folders.
        split: such as "train" or "test".
        image_size: pixels on a side.
        count: pairs to take; None takes all that a folder has. Scenes need a number.

    Raises:
        FileNotFoundError: if a folder, or the split in it, is not there.
        ValueError: for a count that cannot be had, or too many damaged samples.
    """
    if tuple(source) != ("scenes",):
        return load_shards(source, split, image_size, count=count)
    if count is None:
        raise ValueError("scenes never end: count must be a number, got None")
    return load_scenes(split, count, image_size)
