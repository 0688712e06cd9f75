"""The manifest of a shard folder: what each shard holds, so that a loss is seen and counted."""

import hashlib
import json
from pathlib import Path
from typing import TypedDict

from .atomic import written_whole

NAME = "manifest.json"


class Shard(TypedDict):
    """One tar file: its samples, its size and the sha256 of its bytes, in hex."""

    samples: int
    bytes: int
    sha256: str


class Split(TypedDict):
    """A split's counts; `skipped` says, by reason, what was left out in writing."""

    samples: int
    captions: int
    skipped: dict[str, int]


class Manifest(TypedDict):
    """All shards of a folder by file name, and its splits by name."""

    shards: dict[str, Shard]
    splits: dict[str, Split]


def describe_shard(path: Path, samples: int) -> Shard:
    """Measure and hash a shard that has been written."""
    return {"samples": samples, "bytes": path.stat().st_size, "sha256": sha256_of(path)}


def sha256_of(path: Path) -> str:
    """Hash a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest; an empty one where there is none.

    Raises:
        ValueError: if the file is not a manifest.
    """
    path = folder / NAME
    if not path.exists():
        return {"shards": {}, "splits": {}}
    try:
        found = json.loads(path.read_text())
        counts = [shard["samples"] for shard in found["shards"].values() if shard["sha256"]]
        for split in found["splits"].values():
            counts += [split["samples"], split["captions"]]
        if any(type(count) is not int for count in counts):
            raise TypeError
        return {"shards": dict(found["shards"]), "splits": dict(found["splits"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a manifest of shards") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a folder's manifest in place of the old one."""
    with written_whole(folder / NAME) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
