"""The manifest of a shard folder: what each shard holds, so that a loss is seen and counted."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from .atomic import written_whole

NAME = "manifest.json"
MAX_BYTES = 64 * 2**20
SHARD_NAME = re.compile(r"([^/\x00-\x1f\x7f\ud800-\udfff]{1,200})-\d{1,20}\.tar")
"""Split and number: a name, never a path."""
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_COUNT = 2**48
LEAST_BYTES = 1_024
"""Of a sample in a tar: the headers of its image and its captions."""


class Shard(TypedDict):
    """One tar file, and its member index beside it."""

    samples: int
    bytes: int
    sha256: str
    """Of the tar, in hex."""
    index_sha256: NotRequired[str]
    """Of the member index."""


class Statistics(TypedDict, total=False):
    """Sums and extremes over the captions of a split."""

    words: int
    words_min: int
    words_max: int
    per_image_min: int
    per_image_max: int


class Split(TypedDict):
    """A split's counts."""

    samples: int
    captions: int
    skipped: dict[str, int]
    """What was left out in writing, by reason."""
    fields: NotRequired[list[str]]
    """The suffixes of its files."""
    statistics: NotRequired[Statistics]
    build: NotRequired[dict[str, Any]]
    """Of what it was built, and how."""
    read: NotRequired[int]
    """Samples of the source that are done with: where an interrupted build goes on."""
    last: NotRequired[str]
    """The key of the last of them, quoted."""
    complete: NotRequired[bool]
    """False while it is being built, or after that was interrupted."""


class Manifest(TypedDict):
    """All shards of a folder by file name, and its splits by name."""

    shards: dict[str, Shard]
    splits: dict[str, Split]
    source: NotRequired[str]
    """Where the pairs come from, in words."""
    licence: NotRequired[str]


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
        ValueError: if the file is not a manifest, or one of a view.
    """
    path = folder / NAME
    if not path.is_file():
        return {"shards": {}, "splits": {}}
    found = read_json(path)
    if isinstance(found, dict) and "view" in found:
        raise ValueError(f"{folder} is a view and has no shards of its own")
    try:
        _check(found)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} is not a manifest of shards") from None
    manifest: Manifest = {"shards": found["shards"], "splits": found["splits"]}
    if "source" in found:
        manifest["source"] = str(found["source"])
    if "licence" in found:
        manifest["licence"] = str(found["licence"])
    return manifest


def read_json(path: Path) -> Any:
    """Read a manifest as it stands, whatever kind it is of.

    Raises:
        ValueError: if the file is no manifest, or too large for one.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is too large for a manifest: more than {MAX_BYTES} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not a manifest of shards") from None


def check_complete(folder: Path, manifest: Manifest, split: str) -> None:
    """Refuse a split whose building was interrupted.

    Raises:
        ValueError: if the manifest says so.
    """
    if not is_complete(manifest, split):
        raise ValueError(f"{folder} has a part of split {split!r} only: run its building again")


def is_complete(manifest: Manifest, split: str) -> bool:
    """Say whether the building of a split, as far as the manifest knows of one, came to its end."""
    said = manifest["splits"].get(split)
    return said is None or said.get("complete", True)


def _check(found: Mapping[str, Any]) -> None:
    for name, shard in found["shards"].items():
        hashes = (shard["sha256"], shard.get("index_sha256", shard["sha256"]))
        _demand(SHARD_NAME.fullmatch(name) is not None, all(map(SHA256.fullmatch, hashes)))
        _demand(_are_counts([shard["samples"], shard["bytes"]]))
        _demand(shard["samples"] * LEAST_BYTES <= shard["bytes"])
    for split in found["splits"].values():
        counts = [split["samples"], split["captions"], *split["skipped"].values()]
        counts += [split.get("read", 0), *split.get("statistics", {}).values()]
        fields, build = split.get("fields", []), split.get("build", {})
        _demand(_are_counts(counts), type(split.get("complete", True)) is bool)
        _demand(all(type(field) is str for field in fields), type(build) is dict)


def _are_counts(values: Iterable[object]) -> bool:
    return all(type(value) is int and 0 <= value <= MAX_COUNT for value in values)


def _demand(*conditions: bool) -> None:
    if not all(conditions):
        raise TypeError


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a folder's manifest in place of the old one."""
    with written_whole(folder / NAME) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
