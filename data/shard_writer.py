"""Pairs to WebDataset shards: `SPLIT-000000.tar` holds an image and KEY.txt for each pair."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from .atomic import written_whole
from .images import ImageFormat, encode_image
from .manifest import Manifest, Shard, describe_shard, read_manifest, write_manifest
from .sample import Damaged, Pair, in_words
from .shards import shards_by_split


def write_shards(
    folder: str | Path,
    split: str,
    pairs: Iterable[Pair | Damaged],
    *,
    per_shard: int = 2_000,
    image_format: ImageFormat = "png",
) -> Manifest:
    """Write a split and enter it in the folder's manifest; the same pairs give the same bytes.

    Damaged samples are left out and counted in the manifest, by reason. Keys are percent-quoted and
    free of dots, so that every reader agrees where a key ends.

    Raises:
        FileExistsError: if the folder has shards of the split.
        ValueError: if no pair is left, one key comes twice, or an argument is out of range.
    """
    folder = Path(folder)
    if per_shard < 1:
        raise ValueError(f"per_shard must be at least 1, got {per_shard}")
    if not re.fullmatch(r"[\w-]+", split):
        raise ValueError(f"a split's name has letters, digits, _ and - only, got {split!r}")
    if split in shards_by_split(folder):
        raise FileExistsError(f"{folder} already has shards of split {split!r}")
    manifest = read_manifest(folder)
    counted = _Counted(pairs)
    shards = _write_all(folder, split, iter(counted), per_shard, image_format)
    if not shards:
        raise ValueError(f"split {split!r} has no pair to write, {in_words(counted.skipped)}")
    manifest["shards"] |= shards
    manifest["splits"][split] = {
        "samples": len(counted.keys),
        "captions": counted.captions,
        "skipped": dict(counted.skipped),
    }
    write_manifest(folder, manifest)
    return manifest


class _Counted:
    """Pairs as they pass by, counted; damaged ones stay behind."""

    def __init__(self, pairs: Iterable[Pair | Damaged]) -> None:
        self.pairs = pairs
        self.keys: set[str] = set()
        self.captions = 0
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Pair]:
        for pair in self.pairs:
            if isinstance(pair, Damaged):
                self.skipped[pair.reason] += 1
                continue
            if pair.key in self.keys:
                raise ValueError(f"two pairs have the key {pair.key!r}")
            self.keys.add(pair.key)
            self.captions += len(pair.captions)
            yield pair


def _write_all(
    folder: Path, split: str, pairs: Iterator[Pair], per_shard: int, image_format: ImageFormat
) -> dict[str, Shard]:
    shards: dict[str, Shard] = {}
    try:
        while group := list(islice(pairs, per_shard)):
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{split}-{len(shards):06d}.tar"
            with written_whole(path) as temporary:
                _write_tar(temporary, group, image_format)
            shards[path.name] = describe_shard(path, len(group))
    except BaseException:  # half a split would read like a whole one
        for name in shards:
            (folder / name).unlink()
        raise
    return shards


def _write_tar(path: Path, pairs: Sequence[Pair], image_format: ImageFormat) -> None:
    from webdataset import TarWriter  # here alone: a machine that only trains may be without it

    with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for pair in pairs:
            tar.write(
                {
                    "__key__": quote(pair.key, safe="").replace(".", "%2E"),
                    image_format: encode_image(pair.image, image_format),
                    "txt": "\n".join(pair.captions).encode(),
                }
            )
