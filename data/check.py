"""Trust a folder of shards, or say what is wrong with it: every defect, by shard and key."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .manifest import NAME, Manifest, read_manifest
from .sample import Damaged
from .shards import read_by_shard, shards_by_split


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
        ValueError: if its manifest is not one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a local folder")
    manifest, splits = read_manifest(folder), shards_by_split(folder)
    if not splits and not manifest["shards"]:
        raise FileNotFoundError(f"{folder} has no shards named SPLIT-000000.tar")
    whole = set()
    for split in splits:
        defects = 0
        for defect in _of_split(folder, split, good):
            yield defect
            defects += 1
        if not defects:
            whole.add(split)
    if manifest["shards"]:
        yield from _against(manifest, splits, whole, good)


def _of_split(folder: Path, split: str, good: Counts) -> Iterator[Defect]:
    lost: Counter[tuple[str, str]] = Counter()
    for shard, sample in read_by_shard([folder], split):
        if not isinstance(sample, Damaged):
            good.samples[split] += 1
            good.captions[split] += len(sample.captions)
        elif sample.key == shard:  # what the shard itself has lost comes once for each sample
            lost[shard, sample.reason] += 1
        else:
            yield Defect(shard=shard, key=sample.key, reason=sample.reason)
    for (shard, reason), samples in lost.items():
        yield Defect(shard=shard, key="", reason=reason + f", {samples} samples" * (samples > 1))


def _against(
    manifest: Manifest, splits: dict[str, list[Path]], whole: set[str], good: Counts
) -> Iterator[Defect]:
    """What the manifest says otherwise, of splits that have no defect yet."""
    present = {path.name for paths in splits.values() for path in paths}
    for shard in sorted(present - manifest["shards"].keys()):
        yield Defect(shard=shard, key="", reason="not in the manifest")
    read = {shard for shard in manifest["shards"] if shard.rpartition("-")[0] in splits}
    for shard in sorted(manifest["shards"].keys() - read):
        yield Defect(shard=shard, key="", reason="missing shard")
    for split in sorted(whole & manifest["splits"].keys()):
        said = manifest["splits"][split]
        for what, told, found in (
            ("samples", said["samples"], good.samples[split]),
            ("captions", said["captions"], good.captions[split]),
        ):
            if found != told:
                reason = f"the manifest says {told} {what} of {split}, {found} are good"
                yield Defect(shard=NAME, key="", reason=reason)
