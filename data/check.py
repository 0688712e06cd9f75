"""Trust a folder of shards, or say what is wrong with it: every defect, by shard and key."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from .curated import folders_of, read_view
from .manifest import NAME, Manifest, Shard, is_complete, read_manifest
from .sample import Damaged, Pair, decoded
from .shards import shards_by_split
from .tars import pairs_in_tar

AT_ONCE = 64
"""Pairs decoded ahead, which bounds memory however large a shard is."""


@dataclass(frozen=True, kw_only=True)
class Defect:
    """What is wrong, and where."""

    shard: str
    key: str
    """Of the sample; empty where the whole shard is meant."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What was found good, by split."""

    samples: Counter[str] = field(default_factory=Counter)
    captions: Counter[str] = field(default_factory=Counter)


def find_defects(folder: str | Path, good: Counts) -> Iterator[Defect]:
    """Decode every sample of every split and hold all against the manifest, where there is one.

    Args:
        folder: of shards.
        good: counts the good samples as they are read.

    Raises:
        FileNotFoundError: if the folder is not there, or has no shards.
        ValueError: if its manifest is not one, or one of a view.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    if view := read_view(folder):
        named = sorted({str(each) for split in view.values() for each in folders_of(folder, split)})
        raise ValueError(f"{folder} is a view and has no shards: check {', '.join(named)}")
    manifest = read_manifest(folder)
    splits = shards_by_split(folder, manifest["shards"])
    if not splits:
        raise FileNotFoundError(f"{folder} has no shards named SPLIT-000000.tar")
    whole = set()
    for split, paths in splits.items():
        defects = 0
        for defect in _of_split(split, paths, manifest, good):
            yield defect
            defects += 1
        if not defects:
            whole.add(split)
    if manifest["shards"]:
        yield from _against(manifest, splits, whole, good)


def _of_split(
    split: str, paths: Iterable[Path], manifest: Manifest, good: Counts
) -> Iterator[Defect]:
    seen: set[str] = set()
    for path in paths:
        lost: Counter[str] = Counter()
        for sample in _decoded(path, manifest["shards"].get(path.name)):
            if isinstance(sample, Pair) and sample.key in seen:
                yield Defect(shard=path.name, key=sample.key, reason="key twice")
            elif isinstance(sample, Pair):
                seen.add(sample.key)
                good.samples[split] += 1
                good.captions[split] += len(sample.captions)
            elif sample.key == path.name:  # what the shard itself has lost
                lost[sample.reason] += sample.samples
            else:
                yield Defect(shard=path.name, key=sample.key, reason=sample.reason)
        for reason, samples in lost.items():
            of_many = f", {samples} samples" * (samples > 1)
            yield Defect(shard=path.name, key="", reason=reason + of_many)
    if not is_complete(manifest, split):
        yield Defect(shard=NAME, key="", reason=f"split {split} was never finished")


def _decoded(path: Path, entry: Shard | None) -> Iterator[Pair | Damaged]:
    samples = pairs_in_tar(path, entry)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        while some := list(islice(samples, AT_ONCE)):
            yield from pool.map(decoded, some)


def _against(
    manifest: Manifest, splits: dict[str, list[Path]], whole: set[str], good: Counts
) -> Iterator[Defect]:
    """What the manifest says otherwise, of splits that have no defect yet."""
    present = {path.name for paths in splits.values() for path in paths}
    for shard in sorted(present - manifest["shards"].keys()):
        yield Defect(shard=shard, key="", reason="not in the manifest")
    for split in sorted(whole & manifest["splits"].keys()):
        said = manifest["splits"][split]
        for what, told, found in (
            ("samples", said["samples"], good.samples[split]),
            ("captions", said["captions"], good.captions[split]),
        ):
            if found != told:
                reason = f"the manifest says {told} {what} of {split}, {found} are good"
                yield Defect(shard=NAME, key="", reason=reason)
