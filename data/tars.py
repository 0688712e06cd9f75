"""Tars from first to last: every pair in stored order, and everything else that is in them."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from .manifest import Shard, check_complete, read_manifest, sha256_of
from .member_index import ALTERED, index_pairs, key_of, load_index, read_pair, row_at
from .sample import Damaged, StoredPair
from .shards import broken, index_fault, index_path, shards_by_split
from .tar_index import index_tar


def pairs_from_tars(folder: str | Path, split: str | None = None) -> Iterator[StoredPair | Damaged]:
    """Yield the pairs of a folder's tars, such as img2dataset's, in order of their names.

    They are held against a manifest and indices, where there are any. What is damaged, half or
    lost comes as `Damaged`.

    Args:
        folder: of the tars.
        split: take those that are named SPLIT-000000.tar; None takes all tars.

    Raises:
        FileNotFoundError: if the folder is not there, or has no such tars.
        ValueError: if the manifest is not one, or says of a split that it was never finished.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    manifest = read_manifest(folder)
    splits = shards_by_split(folder, manifest["shards"])
    for each in splits if split is None else [split]:
        check_complete(folder, manifest, each)
    listed = {folder / name for name in manifest["shards"]}
    paths = splits.get(split) if split else sorted(listed | set(folder.glob("*.tar")))
    if not paths:
        raise FileNotFoundError(f"{folder} has no tars" + f" of split {split!r}" * bool(split))
    return (sample for path in paths for sample in _of(path, manifest["shards"].get(path.name)))


def _of(path: Path, entry: Shard | None) -> Iterator[StoredPair | Damaged]:
    """Yield the pairs of a tar with the keys that they had before they were quoted for it."""
    for sample in pairs_in_tar(path, entry):
        yield replace(sample, key=unquote(sample.key)) if entry else sample


def pairs_in_tar(path: Path, entry: Shard | None = None) -> Iterator[StoredPair | Damaged]:
    """Yield the pairs of one tar, held against what a manifest says of it.

    What the shard itself has lost has the shard's name as its key.
    """
    if not path.is_file():
        yield Damaged(
            key=path.name, reason="missing shard", samples=entry["samples"] if entry else 1
        )
        return
    tar = index_tar(path)
    index = index_pairs(tar)
    yield from index.damaged
    fault = index_fault(path, entry)
    has_index = entry is not None and "index_sha256" in entry and not fault
    wanted = _checksums(path) if has_index else {}
    altered = 0
    with path.open("rb", buffering=0) as file:
        for place in range(len(index.rows)):
            row = row_at(index.rows, place)
            if has_index and row.key not in wanted:  # nobody wrote it
                sample: StoredPair | Damaged = Damaged(key=key_of(row), reason=ALTERED)
            else:
                row = row._replace(crc=wanted.get(row.key, 0))
                sample = read_pair(file.fileno(), row, check=has_index)
            altered += isinstance(sample, Damaged) and sample.reason == ALTERED
            yield sample
    lost = broken(path, entry, tar)
    yield from lost
    if entry and not lost and not altered and sha256_of(path) != entry["sha256"]:
        yield Damaged(key=path.name, reason="altered shard")
    if fault:
        yield Damaged(key=path.name, reason=fault)


def _checksums(path: Path) -> dict[bytes, int]:
    """What the bytes of each pair add up to by the index of the shard."""
    rows = load_index(index_path(path))
    return dict(zip(rows["key"].tolist(), rows["crc"].tolist(), strict=True))
