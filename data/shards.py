"""WebDataset shards to pairs: `SPLIT-000000.tar` holds KEY.jpg, png or webp and KEY.txt or json.

Read by tarfile and not by webdataset, which after a damaged header or a cut goes on without a word
and can join the image of one sample to the text of another. Here every loss is counted.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path

from .manifest import Shard, read_manifest, sha256_of
from .sample import Damaged, Pair, Pairs, decode_pair, in_words, pairs_from
from .tar_index import MAX_MEMBER_BYTES, TarIndex, index_tar

Files = tuple[str, dict[str, bytes]]
"""A sample not yet decoded: its key, and its files by suffix."""

AT_ONCE = 64
"""Samples decoded ahead, which bounds memory however large a shard is."""


def load_shards(
    folders: Sequence[str | Path],
    split: str,
    image_size: int,
    *,
    count: int | None = None,
    max_skipped: float = 0.01,
) -> Pairs:
    """Decode a split of local shard folders into memory, cropped and resized.

    Args:
        folders: where the shards are.
        split: the part of the shards' names before the number.
        image_size: pixels on a side.
        count: pairs to take, the first ones; None takes all.
        max_skipped: share of damaged samples that is put up with, in 0..1; one always is.

    Raises:
        FileNotFoundError: if a folder, or the split in it, is not there.
        ValueError: if too many samples are damaged, or there are fewer pairs than `count`.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    if count is not None and count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    name = f"{'+'.join(Path(folder).resolve().name for folder in folders)}/{split}"
    pairs = pairs_from(name, _first(count, read_shards(folders, split, image_size)), skipped={})
    lost = sum(pairs.skipped.values())
    if lost > max(1, max_skipped * (len(pairs) + lost)):
        raise ValueError(
            f"{name} has {len(pairs)} good pairs and too many bad ones, {in_words(pairs.skipped)}"
        )
    if count is not None and len(pairs) < count:
        raise ValueError(f"{name} has {len(pairs)} pairs, {count} were asked for")
    return pairs


def read_shards(
    folders: Sequence[str | Path], split: str, image_size: int | None = None
) -> Iterator[Pair | Damaged]:
    """Yield every sample of a split in stored order; without an image size images stay as they are.

    What cannot be used comes as `Damaged`: a damaged sample, and each sample that a shard has lost,
    as far as the manifest, or else the way the tar ends, can tell.
    """
    return (sample for _, sample in read_by_shard(folders, split, image_size))


def read_by_shard(
    folders: Sequence[str | Path], split: str, image_size: int | None = None
) -> Iterator[tuple[str, Pair | Damaged]]:
    """Like `read_shards`, each sample with the name of its shard.

    What the shard itself has lost has the shard's name as its key.
    """
    seen: set[str] = set()
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for prefix, path, entry in _shards(folders, split):
            samples = _samples(path, entry)
            while some := list(islice(samples, AT_ONCE)):
                for sample in pool.map(lambda s: _decode(s, image_size), some):
                    key = prefix + sample.key
                    if isinstance(sample, Pair) and key in seen:
                        yield path.name, Damaged(key=key, reason="key twice")
                    else:
                        seen.add(key)
                        yield path.name, replace(sample, key=key)


def shards_by_split(folder: Path) -> dict[str, list[Path]]:
    """Find a folder's shards, in order, by the split in their names."""
    splits: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.tar")):
        if name := re.fullmatch(r"(.+)-\d+\.tar", path.name):
            splits.setdefault(name[1], []).append(path)
    return splits


def _first(count: int | None, samples: Iterable[Pair | Damaged]) -> Iterator[Pair | Damaged]:
    good = 0
    for sample in samples:
        yield sample
        good += isinstance(sample, Pair)
        if good == count:
            return


def _shards(folders: Sequence[str | Path], split: str) -> list[tuple[str, Path, Shard | None]]:
    """List a split's shards with the prefix of their keys and their entry in the manifest."""
    if not folders:
        raise ValueError("no folder of shards is given")
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f"{folder} is not a local folder")
    found = []
    for prefix, path in zip(_prefixes(folders), map(Path, folders), strict=True):
        entries = read_manifest(path)["shards"]
        listed = {
            path / name for name in entries if re.fullmatch(rf"{re.escape(split)}-\d+\.tar", name)
        }
        present = shards_by_split(path)
        if not present:
            raise FileNotFoundError(f"{path} has no shards named SPLIT-000000.tar")
        if split not in present:
            raise FileNotFoundError(
                f"{path} has no split {split!r}, it has {', '.join(sorted(present))}"
            )
        for shard in sorted(listed | set(present[split])):
            found.append((prefix, shard, entries.get(shard.name)))
    return found


def _prefixes(folders: Sequence[str | Path]) -> list[str]:
    """Tell the keys of several folders apart by the part of their paths in which they differ."""
    paths = [Path(folder).resolve() for folder in folders]
    if len(paths) == 1:
        return [""]
    if len(set(paths)) < len(paths):
        raise ValueError(f"a folder is given twice among {', '.join(map(str, folders))}")
    above = os.path.commonpath(paths)
    return [f"{path.relative_to(above).as_posix()}/" for path in paths]


def _samples(path: Path, entry: Shard | None) -> Iterator[Files | Damaged]:
    if not path.exists():
        yield from _lost(path, entry["samples"] if entry else 1, "missing shard")
        return
    index = index_tar(path)
    with path.open("rb") as file:
        for key, members in index.samples.items():
            if key in index.repeated:
                yield Damaged(key=key, reason="key twice")
                continue
            files = {}
            for suffix, member in members.items():
                file.seek(member.start)
                files[suffix] = file.read(min(member.size, MAX_MEMBER_BYTES + 1))
            yield key, files
    yield from _losses(path, entry, index)


def _losses(path: Path, entry: Shard | None, index: TarIndex) -> Iterator[Damaged]:
    missing = entry["samples"] - len(index.samples) if entry else 0
    if missing > 0 or not index.is_whole:
        yield from _lost(path, max(1, missing), "broken shard")
    elif entry and sha256_of(path) != entry["sha256"]:
        yield from _lost(path, 1, "altered shard")


def _lost(path: Path, count: int, reason: str) -> Iterator[Damaged]:
    return (Damaged(key=path.name, reason=reason) for _ in range(count))


def _decode(sample: Files | Damaged, image_size: int | None) -> Pair | Damaged:
    return sample if isinstance(sample, Damaged) else decode_pair(*sample, image_size)
