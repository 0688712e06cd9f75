"""Open what is there of a folder of shards, and say what is not: for looking, not for training.

`open_shards` refuses a folder with one shard cut or missing; here its other pairs are still read.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from .manifest import Manifest, Shard, read_manifest
from .member_index import load_index
from .sample import Damaged, PairSource
from .shards import ShardFile, ShardSet, index_fault, index_path, scan, shards_by_split


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
    if index_fault(path, entry):
        return None
    try:
        rows = load_index(index_path(path))
    except ValueError:
        return None
    again = partial(load_index, index_path(path))
    return ShardFile(path=path, pairs=len(rows), rows=again, has_checksums=True)


def _scanned(path: Path, entry: Shard | None, losses: list[Damaged], seen: set[bytes]) -> ShardFile:
    """Index a shard header by header, and note what is in it besides whole pairs."""
    rows, lost = scan(path, entry, seen)
    losses += lost
    is_cut = any(loss.reason == "broken shard" for loss in lost)
    if entry and not is_cut and path.stat().st_size != entry["bytes"]:
        losses.append(Damaged(key=path.name, reason="altered shard"))
    if fault := index_fault(path, entry):
        losses.append(Damaged(key=path.name, reason=fault))
    return ShardFile(path=path, pairs=len(rows), rows=lambda: rows)
