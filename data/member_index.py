"""Where each pair of a shard lies, as a table that is mapped into memory: `train-000000.index.npy`.

A row names a pair, says where its files lie in the tar, and carries a checksum of their bytes: what
is read later is what was written, or it is counted as altered. Nothing in a row is a path.
"""

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from .atomic import written_whole
from .captions import DamagedCaption, parse_captions
from .sample import LABEL_SUFFIX, Damaged, StoredPair, file_roles, parsed_pair
from .tar_index import MAX_MEMBER_BYTES, Member, TarIndex

Rows: TypeAlias = np.ndarray
"""One row a pair, of the type `row_type`."""

ROLES = ("image", "captions", "label")
PLACE = (("start", "<u8"), ("size", "<u4"))
MAX_KEY_BYTES = 1_024
MAX_TAR_BYTES = 2**62
ALTERED = "altered sample"
_LOADING = Lock()
"""numpy parses a header as Python, and Python 3.11 cannot do so in two threads at once: now and
then it raises SystemError. See https://github.com/python/cpython/issues/106905."""


def row_type(key_bytes: int) -> np.dtype:
    """Describe a row whose key takes up to so many bytes."""
    places = [(f"{role}_{what}", kind) for role in ROLES for what, kind in PLACE]
    return np.dtype([("key", f"S{max(1, key_bytes)}"), *places, ("is_json", "?"), ("crc", "<u4")])


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The pairs of a shard, and what else is in it."""

    rows: Rows
    damaged: tuple[Damaged, ...]


def index_pairs(index: TarIndex) -> ShardIndex:
    """Find the pairs among a tar's files, without a look into them: the checksums stay 0."""
    pairs, damaged, longest = [], [], 1
    for key, files in index.samples.items():
        roles = "key twice" if key in index.repeated else file_roles(files)
        if len(key.encode()) > MAX_KEY_BYTES:
            roles = "key too long"
        if isinstance(roles, str):
            damaged.append(Damaged(key=key, reason=roles))
        else:
            pairs.append(_row(key.encode(), files, *roles))
            longest = max(longest, len(key.encode()))
    rows = np.array(pairs, row_type(longest))
    return ShardIndex(rows=rows, damaged=tuple(damaged))


def with_checksums(rows: Rows, path: Path) -> Rows:
    """Read every pair of a shard to fill in its checksum."""
    rows = rows.copy()
    with path.open("rb", buffering=0) as file:
        for place in range(len(rows)):
            rows["crc"][place] = _checksum(*_read_files(file.fileno(), row_at(rows, place)))
    return rows


class Row(NamedTuple):
    """A row as numbers: numpy takes a microsecond for each field of its own."""

    key: bytes
    image_start: int
    image_size: int
    captions_start: int
    captions_size: int
    label_start: int
    label_size: int
    is_json: bool
    crc: int


def row_at(rows: Rows, place: int) -> Row:
    """Take out one row."""
    return Row._make(rows.item(place))


def read_pair(file: int, row: Row, *, check: bool) -> StoredPair | Damaged:
    """Read the pair of a row from an open shard; `check` asks for the bytes that were indexed."""
    key = key_of(row)
    image, text, label = _read_files(file, row)
    if check and _checksum(image, text, label) != row.crc:
        return Damaged(key=key, reason=ALTERED)
    return parsed_pair(key, image, text, _kind(row), label if row.label_start else None)


def key_of(row: Row) -> str:
    """Give the key of a row."""
    return row.key.decode("utf-8", "backslashreplace")


def read_captions(file: int, row: Row) -> tuple[str, ...]:
    """Read the captions of a row's pair alone; none where they are damaged."""
    try:
        return parse_captions(os.pread(file, row.captions_size, row.captions_start), _kind(row))
    except DamagedCaption:
        return ()


def _kind(row: Row) -> Literal["txt", "json"]:
    return "json" if row.is_json else "txt"


def _read_files(file: int, row: Row) -> tuple[bytes, bytes, bytes]:
    """Read image, captions and label.

    They are read and not mapped: under a map, a shard that is cut while in use kills the process.
    """
    image = os.pread(file, row.image_size, row.image_start)
    captions = os.pread(file, row.captions_size, row.captions_start)
    return (
        image,
        captions,
        os.pread(file, row.label_size, row.label_start) if row.label_size else b"",
    )


def save_index(path: Path, rows: Rows) -> None:
    """Write the index of a shard."""
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)


def load_index(path: Path) -> Rows:
    """Map the index of a shard into memory.

    Raises:
        ValueError: if the file is no such index.
    """
    try:
        with _LOADING:
            rows = np.lib.format.open_memmap(path, mode="r")
    except OSError:  # the disk's fault, not the file's
        raise
    except Exception:  # hostile headers make numpy raise nearly anything
        raise ValueError(f"{path} is not an index of a shard") from None
    is_table = rows.ndim == 1 and rows.dtype.names == row_type(1).names
    if not is_table or rows.dtype != row_type(rows.dtype[0].itemsize) or not _is_bounded(rows):
        raise ValueError(f"{path} is not an index of a shard")
    return rows


def _is_bounded(rows: Rows) -> bool:
    """Whether no row has a longer key, or asks for more bytes at once, than we ever write."""
    return rows.dtype[0].itemsize <= MAX_KEY_BYTES and all(
        (rows[f"{role}_size"] <= MAX_MEMBER_BYTES + 1).all()
        and (rows[f"{role}_start"] <= MAX_TAR_BYTES).all()
        for role in ROLES
    )


def _row(key: bytes, files: Mapping[str, Member], image: str, text: str) -> tuple[object, ...]:
    nothing = Member(start=0, size=0)
    members = (files[image], files[text], files.get(LABEL_SUFFIX, nothing))
    places = [
        number for each in members for number in (each.start, min(each.size, MAX_MEMBER_BYTES + 1))
    ]
    return (key, *places, text == "json", 0)


def _checksum(*files: bytes) -> int:
    value = 0
    for content in files:
        value = zlib.crc32(content, value)
    return value
