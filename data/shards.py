"""WebDataset shards as pairs by random access: `SPLIT-000000.tar` holds KEY.jpg, png or webp and
KEY.txt or json, and KEY.cls where classes are known.

Opening a folder reads its manifest and no shard; a folder without one is read once, header by
header. Read by our own index and not by webdataset, which after a damaged header or a cut goes on
without a word and can join the image of one sample to the text of another.
"""

import hashlib
import io
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path

import numpy as np

from .manifest import NAME, SHARD_NAME, Manifest, Shard, check_complete, read_manifest, sha256_of
from .member_index import (
    Row,
    Rows,
    index_pairs,
    key_of,
    load_index,
    read_captions,
    read_pair,
    row_at,
)
from .sample import Damaged, StoredPair, in_words
from .tar_index import TarIndex, index_tar

OPEN_SHARDS = 128
"""Kept open at once: a process may open about 1,000 files."""
INDICES = 1_024
"""Held in memory at once, checked when they are read: 120 kB for 2,000 pairs."""


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A shard and where the pairs in it lie."""

    path: Path
    pairs: int
    rows: Callable[[], Rows]
    has_checksums: bool = False


class ShardSet:
    """A split of a folder of shards."""

    def __init__(
        self, name: str, shards: list[ShardFile], skipped: dict[str, int], fingerprint: str
    ) -> None:
        self.name, self.skipped, self.fingerprint = name, skipped, fingerprint
        self._shards = shards
        self._ends = list(accumulate(shard.pairs for shard in shards))
        self._file = lru_cache(maxsize=OPEN_SHARDS)(self._opened)
        self._rows = lru_cache(maxsize=INDICES)(self._indexed)

    @property
    def counts(self) -> tuple[int, ...]:
        return (len(self),)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int) -> StoredPair | Damaged:
        """Read pair `index`, held against its checksum where the shard has an index."""
        shard, file, row = self._find(index)
        return read_pair(file.fileno(), row, check=shard.has_checksums)

    def captions_of(self, index: int) -> tuple[str, ...]:
        """Read the captions of pair `index` alone; none where they are damaged."""
        _, file, row = self._find(index)
        return read_captions(file.fileno(), row)

    def where(self, index: int) -> tuple[str, str]:
        """Say in which shard pair `index` lies, and its key."""
        shard, _, row = self._find(index)
        return shard.path.name, key_of(row)

    def _find(self, index: int) -> tuple[ShardFile, io.FileIO, Row]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has pairs 0..{len(self) - 1}, got {index}")
        number = bisect_right(self._ends, index)
        shard = self._shards[number]
        row = row_at(self._rows(number), index - (self._ends[number] - shard.pairs))
        return shard, self._file(number), row

    def _opened(self, number: int) -> io.FileIO:
        return io.FileIO(self._shards[number].path)

    def _indexed(self, number: int) -> Rows:
        return np.array(self._shards[number].rows())  # a map of each would keep a file open


def open_shards(folder: str | Path, split: str) -> ShardSet:
    """Open a split of a local folder.

    Raises:
        FileNotFoundError: if the folder, the split in it or one of its shards is not there.
        ValueError: if a shard is not as long as its manifest says, the split was never finished,
            or no pair in it can be read.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    folder = Path(folder)
    manifest = read_manifest(folder)
    check_complete(folder, manifest, split)
    shards, skipped, seen = [], Counter[str](), set[bytes]()
    digest = hashlib.sha256()
    for path in _paths(folder, split, manifest):
        entry = manifest["shards"].get(path.name)
        check_length(path, entry)
        if entry and "index_sha256" in entry:
            shards.append(_indexed(path, entry))
            digest.update(f"{path.name} {entry['sha256']}\n".encode())
        else:
            rows, lost = scan(path, entry, seen)
            for each in lost:
                skipped[each.reason] += each.samples
            shards.append(ShardFile(path=path, pairs=len(rows), rows=partial(_same, rows)))
            digest.update(f"{path.name} {path.stat().st_size}\n".encode() + rows.tobytes())
    name = f"{folder.resolve().name}/{split}"
    if not sum(shard.pairs for shard in shards):
        raise ValueError(f"{name} has no pair that can be read, {in_words(skipped)}")
    return ShardSet(name, shards, dict(skipped), digest.hexdigest())


def shards_by_split(folder: Path, listed: Iterable[str] = ()) -> dict[str, list[Path]]:
    """Find the shards of a folder, and those listed as its own, by the split in their names."""
    splits: dict[str, list[Path]] = {}
    for path in sorted({folder / name for name in listed} | set(folder.glob("*.tar"))):
        if name := SHARD_NAME.fullmatch(path.name):
            splits.setdefault(name[1], []).append(path)
    return splits


def index_path(shard: Path) -> Path:
    """Say where the member index of a shard lies."""
    return shard.with_suffix(".index.npy")


def _paths(folder: Path, split: str, manifest: Manifest) -> list[Path]:
    """List the shards of a split that are there, or that the manifest has."""
    splits = shards_by_split(folder, manifest["shards"])
    if not splits:
        raise FileNotFoundError(f"{folder} has no shards named SPLIT-000000.tar")
    if split not in splits:
        raise FileNotFoundError(
            f"{folder} has no split {split!r}, it has {', '.join(sorted(splits))}"
        )
    return splits[split]


def check_length(path: Path, entry: Shard | None) -> None:
    """Refuse a shard that is not there, or not as long as the manifest says."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, {path.parent / NAME} has it")
    length = path.stat().st_size
    if entry and length != entry["bytes"]:
        raise ValueError(f"{path} has {length} bytes, its manifest says {entry['bytes']}")


def _indexed(path: Path, entry: Shard) -> ShardFile:
    def rows() -> Rows:
        if sha256_of(index_path(path)) != entry["index_sha256"]:
            raise ValueError(f"{index_path(path)} is not the index that its manifest names")
        found = load_index(index_path(path))
        if len(found) != entry["samples"]:
            raise ValueError(
                f"{index_path(path)} has {len(found)} pairs, its manifest says {entry['samples']}"
            )
        return found

    if not index_path(path).is_file():
        raise FileNotFoundError(f"{index_path(path)} is missing, its manifest has it")
    return ShardFile(path=path, pairs=entry["samples"], rows=rows, has_checksums=True)


def scan(path: Path, entry: Shard | None, seen: set[bytes]) -> tuple[Rows, list[Damaged]]:
    """Index a shard header by header, and list what is in it besides pairs, or is not.

    Args:
        path: of the shard.
        entry: what a manifest says of it.
        seen: keys of the shards before it, to which its own are added.
    """
    tar = index_tar(path)
    index = index_pairs(tar)
    lost = [*index.damaged, *broken(path, entry, tar)]
    is_new = []
    for key in index.rows["key"].tolist():
        is_new.append(key not in seen)
        if key in seen:
            lost.append(Damaged(key=key.decode(), reason="key twice"))
        seen.add(key)
    return index.rows[is_new], lost


def broken(path: Path, entry: Shard | None, tar: TarIndex) -> list[Damaged]:
    """Say how many pairs a shard has lost, if any: one, where nobody knows."""
    missing = entry["samples"] - len(tar.samples) if entry else 0
    if missing <= 0 and tar.is_whole:
        return []
    return [Damaged(key=path.name, reason="broken shard", samples=max(1, missing))]


def index_fault(path: Path, entry: Shard | None) -> str:
    """Say why the index of a shard is of no use; nothing if it is, or there should be none."""
    if not entry or "index_sha256" not in entry:
        return ""
    if not index_path(path).is_file():
        return "missing index"
    return "" if sha256_of(index_path(path)) == entry["index_sha256"] else "altered index"


def _same(rows: Rows) -> Rows:
    return rows
