"""Open what is there of a folder of shards, and say what is not: for looking, not for training.

`open_shards` refuses a folder with one shard cut or missing; here its other pairs are still read.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .manifest import Manifest, Shard, read_manifest, sha256_of
from .member_index import Rows, index_pairs, load_index
from .sample import Damaged, PairSource
from .shards import ShardFile, ShardSet, index_path, shards_by_split
from .tar_index import index_tar


@dataclass(frozen=True, kw_only=True)
class Salvaged:
    """A split: the pairs that can be read, perhaps none, and what is lost."""

    pairs: PairSource
    losses: tuple[Damaged, ...]


def salvage(folder: str | Path, split: str | None = None) -> dict[str, Salvaged]:
    """Open all splits of a folder, or the one that is named.

    Raises:
        FileNotFoundError: if the folder, a shard in it or the split is not there.
        ValueError: if its manifest is not one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    manifest = read_manifest(folder)
    splits = shards_by_split(folder, manifest["shards"])
    if not splits:
        raise FileNotFoundError(f"{folder} has no shards named SPLIT-000000.tar")
    if split is not None and split not in splits:
        raise FileNotFoundError(
            f"{folder} has no split {split!r}, it has {', '.join(sorted(splits))}"
        )
    wanted = sorted(splits) if split is None else [split]
    return {name: _salvaged(folder, name, splits[name], manifest) for name in wanted}


def _salvaged(folder: Path, split: str, paths: Iterable[Path], manifest: Manifest) -> Salvaged:
    shards: list[ShardFile] = []
    losses: list[Damaged] = []
    seen: set[bytes] = set()
    for path in paths:
        entry = manifest["shards"].get(path.name)
        if not path.is_file():
            samples = entry["samples"] if entry else 1
            losses.append(Damaged(key=path.name, reason="missing shard", samples=samples))
            continue
        if manifest["shards"] and entry is None:
            losses.append(Damaged(key=path.name, reason="not in the manifest"))
        shard = _indexed(path, entry)
        shards.append(shard or _scanned(path, entry, losses, seen))
    name = f"{folder.resolve().name}/{split}"
    skipped = Counter[str]()
    for loss in losses:
        skipped[loss.reason] += loss.samples
    return Salvaged(pairs=ShardSet(name, shards, dict(skipped), ""), losses=tuple(losses))


def _indexed(path: Path, entry: Shard | None) -> ShardFile | None:
    """Open a shard by its index, if both are what the manifest says."""
    if not entry or "index_sha256" not in entry or path.stat().st_size != entry["bytes"]:
        return None
    if _index_fault(path, entry):
        return None
    rows = partial(load_index, index_path(path))
    return ShardFile(path=path, pairs=len(rows()), rows=rows, has_checksums=True)


def _index_fault(path: Path, entry: Shard | None) -> str:
    """Say why the index of a shard is of no use; nothing if it is, or there should be none."""
    if not entry or "index_sha256" not in entry:
        return ""
    if not index_path(path).is_file():
        return "missing index"
    if sha256_of(index_path(path)) != entry["index_sha256"]:
        return "altered index"
    try:
        load_index(index_path(path))
    except ValueError:
        return "damaged index"
    return ""


def _scanned(path: Path, entry: Shard | None, losses: list[Damaged], seen: set[bytes]) -> ShardFile:
    """Index a shard header by header, and note what is in it besides whole pairs."""
    tar = index_tar(path)
    index = index_pairs(tar)
    losses += index.damaged
    missing = entry["samples"] - len(tar.samples) if entry else 0
    if missing > 0 or not tar.is_whole:
        losses.append(Damaged(key=path.name, reason="broken shard", samples=max(1, missing)))
    elif entry and path.stat().st_size != entry["bytes"]:
        losses.append(Damaged(key=path.name, reason="altered shard"))
    if fault := _index_fault(path, entry):
        losses.append(Damaged(key=path.name, reason=fault))
    rows = _without_repeats(index.rows, losses, seen)
    return ShardFile(path=path, pairs=len(rows), rows=lambda: rows)


def _without_repeats(rows: Rows, losses: list[Damaged], seen: set[bytes]) -> Rows:
    is_new = []
    for key in rows["key"].tolist():
        is_new.append(key not in seen)
        if key in seen:
            losses.append(Damaged(key=key.decode(), reason="key twice"))
        seen.add(key)
    return rows[is_new]
