"""Which files of which sample lie where in a tar, read from its headers alone.

tarfile stops without a word at a damaged header, and a tar cut between two members reads like a
shorter one; so the end is checked here: nothing but zeros, and at least one block of them.
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

from .captions import MAX_CAPTION_BYTES
from .images import MAX_IMAGE_BYTES
from .sample import CAPTION_SUFFIXES, IMAGE_SUFFIXES, LABEL_SUFFIX, file_roles

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


class BoundedFile(io.FileIO):
    """A file read in bounded pieces: a hostile header may ask for a name of 1 GB."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or refuse as a damaged tar is refused."""
        if size is None or not 0 <= size <= MAX_MEMBER_BYTES:
            raise tarfile.ReadError(f"a header asks for {size} bytes")
        return super().read(size) or b""


def index_tar(path: Path) -> TarIndex:
    """Index a tar file; what is no tar at all has no samples and is not whole."""
    samples: dict[str, dict[str, Member]] = {}
    repeated = set()
    with BoundedFile(path) as file:
        members, is_whole = _members(file)
    for key, suffix, member in members:
        if suffix in samples.setdefault(key, {}):
            repeated.add(key)
        samples[key][suffix] = member
    if members and not is_whole:
        last = members[-1][0]
        if isinstance(file_roles(samples[last]), str):
            del samples[last]
    return TarIndex(samples=samples, repeated=frozenset(repeated), is_whole=is_whole)


def _members(file: BoundedFile) -> tuple[list[tuple[str, str, Member]], bool]:
    """List key, suffix and place of each file of use, and say whether the tar is whole."""
    found: list[tuple[str, str, Member]] = []
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                key, suffix = split_name(info.name)
                inside = info.offset_data <= info.offset_data + info.size <= size
                if info.isreg() and not info.issparse() and suffix and inside:
                    found.append((key, suffix, Member(start=info.offset_data, size=info.size)))
                if not info.offset_data <= tar.offset <= size:  # cut, or backwards into a circle
                    return found, False
            return found, _ends_in_zeros(file, tar.offset)
    except OSError:  # the disk's fault, not the tar's
        raise
    except Exception:  # hostile headers make tarfile raise nearly anything
        return found, False


def split_name(name: str) -> tuple[str, str]:
    """Split a file's name at its last dot into key and suffix; suffixes of no use come back empty.

    The key is a name and never a path: nothing is opened or written by it.
    """
    key, _, suffix = name.rpartition(".")
    known = suffix.lower() in (*IMAGE_SUFFIXES, *CAPTION_SUFFIXES, LABEL_SUFFIX)
    readable = key.encode("utf-8", "backslashreplace").decode()
    return readable, suffix.lower() if known and key else ""


def _ends_in_zeros(file: BoundedFile, start: int) -> bool:
    file.seek(start)
    length = 0
    while block := file.read(2**20):
        if any(block):
            return False
        length += len(block)
    return length >= tarfile.BLOCKSIZE
