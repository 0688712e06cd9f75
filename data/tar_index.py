"""Which files of which sample lie where in a tar, read from its headers alone."""

import os
from dataclasses import dataclass
from pathlib import Path

from .captions import MAX_CAPTION_BYTES
from .images import MAX_IMAGE_BYTES
from .sample import CAPTION_SUFFIXES, IMAGE_SUFFIXES, LABEL_SUFFIX, file_roles
from .tar_headers import BrokenTar, files_in_tar

MAX_MEMBER_BYTES = max(MAX_IMAGE_BYTES, MAX_CAPTION_BYTES)
"""More than this is never read at once; a decoder refuses a file that is longer."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where a file's bytes lie."""

    start: int
    size: int


@dataclass(frozen=True, kw_only=True)
class TarIndex:
    """A tar's samples by key, each with its files by suffix, in the order they first appear."""

    samples: dict[str, dict[str, Member]]
    repeated: frozenset[str]
    """Keys with one suffix twice: nobody can tell which image belongs to which text."""
    is_whole: bool
    """False if the tar ends before its end; the sample that was cut is left out."""


def index_tar(path: Path) -> TarIndex:
    """Index a tar file; what is no tar at all has no samples and is not whole."""
    samples: dict[str, dict[str, Member]] = {}
    repeated = set()
    with path.open("rb", buffering=0) as file:
        members, is_whole = _members(file.fileno())
    for key, suffix, member in members:
        if suffix in samples.setdefault(key, {}):
            repeated.add(key)
        samples[key][suffix] = member
    if members and not is_whole:
        last = members[-1][0]
        if isinstance(file_roles(samples[last]), str):
            del samples[last]
    return TarIndex(samples=samples, repeated=frozenset(repeated), is_whole=is_whole)


def _members(file: int) -> tuple[list[tuple[str, str, Member]], bool]:
    """List key, suffix and place of each file of use, and say whether the tar is whole."""
    found: list[tuple[str, str, Member]] = []

    def read(start: int, size: int) -> bytes:
        return os.pread(file, size, start)

    try:
        for each in files_in_tar(read, os.fstat(file).st_size):
            key, suffix = split_name(each.name)
            if suffix:
                found.append((key, suffix, Member(start=each.start, size=each.size)))
    except BrokenTar:
        return found, False
    return found, True


def split_name(name: str) -> tuple[str, str]:
    """Split a file's name at its last dot into key and suffix; suffixes of no use come back empty.

    The key is a name and never a path: nothing is opened or written by it.
    """
    key, _, suffix = name.rpartition(".")
    known = suffix.lower() in (*IMAGE_SUFFIXES, *CAPTION_SUFFIXES, LABEL_SUFFIX)
    readable = key.encode("utf-8", "backslashreplace").decode()
    return readable, suffix.lower() if known and key else ""
