"""One door to every kind of pairs."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from .curated import open_view, read_view
from .framing import Framing
from .hf import Columns, HFPairs
from .joined import Joined, first
from .sample import Damaged, Pair, Pairs, PairSource, decoded, in_words, pairs_from
from .scenes import POLICIES, load_scenes
from .shards import open_shards
from .skips import MAX_SKIPPED
from .strings import load_strings

DRAWN = {name: partial(load_scenes, policy=name) for name in POLICIES} | {"strings": load_strings}
"""What draws pairs, by the name of the source."""
HUGGING_FACE = "hf:"
AT_ONCE = 64
"""Pairs decoded ahead when a split is read into memory."""
MAX_WITHIN = 8
"""Views of views, one in another: more are taken to go round in a circle."""


def open_source(
    source: Sequence[str | Path],
    split: str,
    *,
    image_size: int,
    count: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    columns: Columns = Columns(),  # noqa: B008, it is frozen
) -> PairSource:
    """Open a split of scenes or strings, which are drawn now, or of folders of shards, or views.

    Args:
        source: a name in `DRAWN`, such as "scenes", or folders, and Hugging Face datasets as
            "hf:NAME".
        split: such as "train" or "test".
        image_size: of what is drawn, pixels on a side; others keep their sizes.
        count: pairs to take, the first ones; None takes all. What is drawn needs a number.
        max_skipped: share of samples that may be damaged, in 0..1; one always may.
        columns: of the Hugging Face datasets.

    Raises:
        FileNotFoundError: if a folder, or the split in it, is not there.
        ValueError: for a count that cannot be had, or too many damaged samples.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    if is_drawn(source):
        if count is None:
            raise ValueError(f"{source[0]} never end: count must be a number, got None")
        return DRAWN[str(source[0])](split, count, image_size)
    if not source:
        raise ValueError("no folder of shards is given")
    pairs = _joined(source, split, columns)
    check_skipped(pairs, len(pairs), pairs.skipped, max_skipped)
    return pairs if count is None else first(pairs, count)


def is_drawn(source: Sequence[str | Path]) -> bool:
    """Whether the pairs of a source are drawn when they are opened: scenes or strings."""
    return len(source) == 1 and source[0] in DRAWN


def is_of_scenes(source: Sequence[str | Path]) -> bool:
    """Whether a source is scenes, whose factors are known."""
    return len(source) == 1 and source[0] in POLICIES


def in_memory(source: PairSource, image_size: int, *, max_skipped: float = MAX_SKIPPED) -> Pairs:
    """Decode a source, cropped and resized, into memory: N * 3 * S * S bytes.

    Raises:
        ValueError: if too many samples are damaged.
    """
    if isinstance(source, Pairs):
        return source
    pairs = pairs_from(source.name, read_all(source, Framing(size=image_size)), source.skipped)
    check_skipped(source, len(pairs), pairs.skipped, max_skipped)
    return pairs


def read_all(source: PairSource, framing: Framing) -> Iterator[Pair | Damaged]:
    """Read and decode every pair in order, some ahead in threads."""

    def read(index: int) -> Pair | Damaged:
        pair = decoded(source.read(index))
        if isinstance(pair, Damaged):
            return pair
        image = framing.show(pair.image, 0, 0, index)
        return Pair(key=pair.key, image=image, captions=pair.captions, label=pair.label)

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for start in range(0, len(source), AT_ONCE):
            yield from pool.map(read, range(start, min(start + AT_ONCE, len(source))))


def check_skipped(
    source: PairSource, good: int, skipped: Mapping[str, int], max_skipped: float
) -> None:
    """Refuse a source of which too much is damaged, or all.

    Raises:
        ValueError: if more samples are damaged than the share `max_skipped`, one may always be; or
            if none is good.
    """
    lost = sum(skipped.values())
    if lost > max(1, max_skipped * (good + lost)):
        raise ValueError(
            f"{source.name} has {good} good pairs and too many bad ones, {in_words(skipped)}"
        )
    if not good:
        raise ValueError(f"{source.name} has no pair that can be read, {in_words(skipped)}")


def _joined(
    sources: Sequence[str | Path], split: str, columns: Columns, within: int = 0
) -> PairSource:
    """Open folders of shards, views of such folders, and datasets as one source."""
    if within > MAX_WITHIN:
        raise ValueError(f"{sources[0]} is a view within more than {MAX_WITHIN} others")
    prefixes = _prefixes(sources)
    opened = [_opened(str(each), split, columns, within) for each in sources]
    return opened[0] if len(opened) == 1 else Joined(opened, prefixes)


def _opened(source: str, split: str, columns: Columns, within: int) -> PairSource:
    if source.startswith(HUGGING_FACE):
        return HFPairs(source.removeprefix(HUGGING_FACE), split, columns)
    view = read_view(source)
    if view is None:
        return open_shards(source, split)
    return open_view(source, view, split, partial(_joined, columns=columns, within=within + 1))


def _prefixes(folders: Sequence[str | Path]) -> list[str]:
    """Tell the keys of several folders apart by the part of their paths in which they differ."""
    paths = [Path(folder).resolve() for folder in folders]
    if len(paths) == 1:
        return [""]
    if len(set(paths)) < len(paths):
        raise ValueError(f"a folder is given twice among {', '.join(map(str, folders))}")
    above = os.path.commonpath(paths)
    return [f"{path.relative_to(above).as_posix()}/" for path in paths]
