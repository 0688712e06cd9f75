"""Pairs to WebDataset shards: `SPLIT-000000.tar` holds an image, KEY.txt and perhaps KEY.cls for
each pair, and beside it lies its member index.

After every shard the manifest is written, so that what is finished stays, whatever stops the
building: a full disk, a signal, a lost machine. The same build goes on where the last one stopped.
"""

import fcntl
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from .atomic import written_whole
from .bare_image import DamagedImage
from .images import Fit, ImageFormat, encode_image, fit_image, image_format
from .manifest import (
    Manifest,
    Split,
    Statistics,
    describe_shard,
    read_manifest,
    sha256_of,
    write_manifest,
)
from .member_index import MAX_KEY_BYTES, index_pairs, load_index, save_index, with_checksums
from .sample import LABEL_SUFFIX, Damaged, Pair, StoredPair, decoded, in_words
from .shards import check_length, index_path, shards_by_split
from .tar_index import index_tar

Sample = StoredPair | Pair | Damaged


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How images are stored."""

    format: ImageFormat | Literal["keep"] = "keep"
    """`keep` leaves a file as it is, byte by byte, unless it is resized; then it keeps its format.
    png loses nothing, jpg and webp are of quality 95."""
    size: int | None = None
    """Pixels; null keeps every size."""
    fit: Fit = "shorter"
    """Which sides have that size: `crop` and `squash` make squares, `shorter` and `longer` scale
    that side down and keep the proportions."""

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1, got {self.size}")


@dataclass(frozen=True, kw_only=True)
class _Ready:
    """A pair as it will lie in a tar."""

    key: str
    files: dict[str, bytes]
    captions: tuple[str, ...]


def write_shards(
    folder: str | Path,
    split: str,
    pairs: Iterable[Sample],
    *,
    encoding: Encoding = Encoding(),
    per_shard: int = 2_000,
    workers: int = 1,
    build: Mapping[str, Any] | None = None,
    about: str | None = None,
    licence: str | None = None,
) -> Manifest:
    """Write a split and enter it in the folder's manifest; the same pairs give the same bytes.

    Damaged samples are left out and counted in the manifest, by reason. Keys are percent-quoted and
    free of dots, so that every reader agrees where a key ends. A split that an earlier call began,
    with the same arguments, is gone on with; one that is complete is left as it is.

    Args:
        folder: of the shards.
        split: letters, digits, _ and -.
        pairs: in an order that is the same when the build is run again.
        encoding: of the images.
        per_shard: pairs in a tar.
        workers: threads that decode, resize and encode.
        build: what else the shards depend on, such as the source's name; goes into the manifest.
        about: where the pairs come from, for the manifest.
        licence: for the manifest.

    Raises:
        ValueError: if no pair is left, an argument is out of range, or the split was begun with
            other arguments or of other pairs, has lost a shard since, or is being written.
    """
    folder = Path(folder)
    if per_shard < 1 or workers < 1:
        raise ValueError(f"per_shard and workers must be at least 1, got {per_shard}, {workers}")
    if not re.fullmatch(r"[\w-]+", split):
        raise ValueError(f"a split's name has letters, digits, _ and - only, got {split!r}")
    options = {
        "image_format": encoding.format,
        "size": encoding.size,
        "fit": encoding.fit,
        "per_shard": per_shard,
        **(build or {}),
    }
    with _alone_in(folder):
        begun = _Begun(folder, split, options)
        begun.tell(about, licence)
        if not begun.split["complete"]:
            ready = _prepared(begun.after_what_is_read(pairs), encoding, workers)
            while group := begun.take(ready, per_shard):
                begun.add(group)
            if not begun.split["samples"]:
                skipped = in_words(begun.split["skipped"])
                raise ValueError(f"split {split!r} has no pair to write, {skipped}")
            begun.finish()
        return begun.manifest


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other builds out of a folder: each would overwrite what the other says in the manifest.

    A folder that was made for this and stays empty is removed.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{folder} is being written by another build: wait for it") from None
        yield
    finally:
        os.close(lock)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


class _Begun:
    """A split as far as it is written."""

    def __init__(self, folder: Path, split: str, build: dict[str, Any]) -> None:
        self.folder, self.name = folder, split
        self.manifest = read_manifest(folder)
        present = shards_by_split(folder).get(split, [])
        self.split = _so_far(self.manifest["splits"].get(split), build)
        if present and split not in self.manifest["splits"]:
            raise ValueError(f"{folder} already has shards of split {split!r}, of another making")
        for option, value in self.split.get("build", {}).items():
            if build.get(option) != value:
                raise ValueError(
                    f"split {split!r} in {folder} was built with {option}={value!r}, "
                    f"not {build.get(option)!r}"
                )
        names = [name for name in self.manifest["shards"] if name.rpartition("-")[0] == split]
        self.shards = [folder / name for name in sorted(names)]
        for path in self.shards:
            check_length(path, self.manifest["shards"][path.name])
        if not self.split["complete"]:
            if not self.shards:  # what was read for the first one is lost with it
                self.split.update({"read": 0, "last": "", "skipped": {}})
            self._path().unlink(missing_ok=True)  # written, but the manifest was not
            for path in folder.glob(f".{split}-??????.*.tmp"):
                path.unlink()
        self.skipped = Counter(self.split["skipped"])
        self.keys = {
            key for path in self.shards for key in load_index(index_path(path))["key"].tolist()
        }

    def tell(self, about: str | None, licence: str | None) -> None:
        """Enter where the pairs come from; in a split that is complete, at once."""
        if about is not None:
            self.manifest["source"] = about
        if licence is not None:
            self.manifest["licence"] = licence
        if self.split["complete"] and (about or licence):
            self._save()

    def after_what_is_read(self, pairs: Iterable[Sample]) -> Iterator[Sample]:
        """Skip what an earlier call has read; its last pair must still stand where it stood."""
        rest = iter(pairs)
        keys = deque((sample.key for sample in islice(rest, self.split["read"])), maxlen=1)
        last = _quoted(keys[0]) if keys else ""
        if last != self.split["last"]:
            raise ValueError(
                f"the source of split {self.name!r} has changed since its building was interrupted:"
                f" pair {self.split['read'] - 1} was {self.split['last']!r}, it is {last!r}"
            )
        return rest

    def take(self, ready: Iterator[_Ready | Damaged], most: int) -> list[_Ready]:
        """Take pairs for the next shard, counting what is read and what is left out."""
        group: list[_Ready] = []
        for sample in ready:
            self.split["read"] += 1
            self.split["last"] = _quoted(sample.key) if isinstance(sample, Damaged) else sample.key
            if isinstance(sample, Damaged):
                self.skipped[sample.reason] += sample.samples
            elif sample.key.encode() in self.keys:
                self.skipped["key twice"] += 1
            else:
                self.keys.add(sample.key.encode())
                group.append(sample)
            if len(group) == most:
                break
        self.split["skipped"] = dict(self.skipped)
        return group

    def add(self, group: Sequence[_Ready]) -> None:
        """Write the next shard, its index, and the manifest that has them."""
        if not self.shards:  # a tar that no manifest knows would be taken for another's
            self._save()
        path = self._path()
        with written_whole(path) as temporary:
            _write_tar(temporary, group)
        try:
            rows = with_checksums(index_pairs(index_tar(path)).rows, path)
            save_index(index_path(path), rows)
        except BaseException:
            path.unlink()
            raise
        entry = describe_shard(path, len(group))
        entry["index_sha256"] = sha256_of(index_path(path))
        self.shards.append(path)
        self.manifest["shards"][path.name] = entry
        self.split["samples"] += len(group)
        self.split["captions"] += sum(len(pair.captions) for pair in group)
        self.split["fields"] = sorted({*self.split["fields"], *(s for x in group for s in x.files)})
        self.split["statistics"] = _counted(self.split["statistics"], group)
        self._save()

    def _path(self) -> Path:
        """Where the next shard goes."""
        return self.folder / f"{self.name}-{len(self.shards):06d}.tar"

    def finish(self) -> None:
        """Say that nothing is missing."""
        self.split["complete"] = True
        self._save()

    def _save(self) -> None:
        self.manifest["splits"][self.name] = self.split
        write_manifest(self.folder, self.manifest)


def _so_far(found: Split | None, build: dict[str, Any]) -> Split:
    """Fill up what a manifest says of a split; what it does not call unfinished is complete."""
    empty: Split = {
        "samples": 0,
        "captions": 0,
        "skipped": {},
        "fields": [],
        "statistics": {},
        "build": build,
        "read": 0,
        "last": "",
        "complete": found is not None,
    }
    return {**empty, **(found or {})}  # type: ignore[typeddict-item]


def _counted(before: Statistics, group: Sequence[_Ready]) -> Statistics:
    """Add the captions of a shard to the statistics of its split."""
    words = [len(text.split()) for pair in group for text in pair.captions]
    numbers = [len(pair.captions) for pair in group]
    return {
        "words": sum(words) + before.get("words", 0),
        "words_min": min([*words, before.get("words_min", words[0])]),
        "words_max": max([*words, before.get("words_max", 0)]),
        "per_image_min": min([*numbers, before.get("per_image_min", numbers[0])]),
        "per_image_max": max([*numbers, before.get("per_image_max", 0)]),
    }


def _prepared(
    samples: Iterable[Sample], encoding: Encoding, workers: int
) -> Iterator[_Ready | Damaged]:
    """Decode, resize and encode in threads; the order stays."""
    waiting: deque[Future[_Ready | Damaged]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for sample in samples:
            waiting.append(pool.submit(_ready, sample, encoding))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _ready(sample: Sample, encoding: Encoding) -> _Ready | Damaged:
    pair = decoded(sample)
    if isinstance(pair, Damaged):
        return pair
    found = image_format(sample.image) if isinstance(sample, StoredPair) else None
    suffix = (found or "png") if encoding.format == "keep" else encoding.format
    image = pair.image
    if encoding.size is not None:
        image = fit_image(image, encoding.size, encoding.fit)
    if isinstance(sample, StoredPair) and suffix == found and image is pair.image:
        raw = sample.image
    else:
        try:
            raw = encode_image(image, suffix)
        except DamagedImage as error:
            return Damaged(key=pair.key, reason=str(error))
    files = {suffix: raw, "txt": "\n".join(pair.captions).encode()}
    if pair.label is not None:
        files[LABEL_SUFFIX] = pair.label.encode()
    key = _quoted(pair.key)
    if len(key) > MAX_KEY_BYTES:
        return Damaged(key=pair.key, reason="key too long")
    return _Ready(key=key, files=files, captions=pair.captions)


def _quoted(key: str) -> str:
    return quote(key, safe="", errors="backslashreplace").replace(".", "%2E")


def _write_tar(path: Path, pairs: Sequence[_Ready]) -> None:
    from webdataset import TarWriter  # here alone: a machine that only trains may be without it

    with path.open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
        for pair in pairs:
            tar.write({"__key__": pair.key, **pair.files})
