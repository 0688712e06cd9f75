"""A tar as it comes over a network, from first byte to last: its pairs, and what is lost of them.

Only files of one key that follow each other make a pair: nothing is joined across other keys or
across shards. What has been given stays right whatever comes later. A tar has no checksum of what
is inside its files: that is what an index is for, see `member_index`.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import closing

from .braces import without_query
from .member_index import MAX_KEY_BYTES
from .sample import Damaged, StoredPair, file_roles, stored_pair
from .tar_headers import BrokenTar, files_in_tar
from .tar_index import MAX_MEMBER_BYTES, split_name
from .urls import ByteStream, open_shard

BROKEN = "broken shard"
UNREADABLE = "unreadable shard"
MAX_KEYS = 1_000_000
"""In a shard; one with more is taken to be broken."""
BLOCK = 2**18


def pairs_in_url(url: str) -> Iterator[StoredPair | Damaged]:
    """Yield the pairs of a shard, see `pairs_in_stream`; the shard is known by its URL."""
    try:
        stream = open_shard(url)
    except Exception:  # every library of every scheme has its own
        yield Damaged(key=without_query(url), reason=UNREADABLE)
        return
    with closing(stream):
        yield from pairs_in_stream(stream, without_query(url))


def pairs_in_stream(stream: ByteStream, name: str) -> Iterator[StoredPair | Damaged]:
    """Yield the pairs of a tar in their order; all else comes as `Damaged`.

    A shard that ends before its end, or after it, comes last, with its name as the key.
    """
    seen: set[int] = set()
    key, files = "", dict[str, bytes | None]()
    for found in _files(ForwardFile(stream)):
        if found is None or len(seen) > MAX_KEYS:
            if not isinstance(file_roles(files), str):
                yield from _sample(key, files, seen)
            yield Damaged(key=name, reason=BROKEN)
            return
        following, suffix, content = found
        if following != key:
            yield from _sample(key, files, seen)
            key, files = following, {}
        files[suffix] = None if suffix in files else content
    yield from _sample(key, files, seen)


class ForwardFile(io.BufferedReader):
    """A stream that is read by place, which skips by reading and never goes back."""

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(_Raw(stream), BLOCK)
        self.position = 0

    def read_at(self, start: int, size: int) -> bytes:
        """Read up to `size` bytes, fewer at the end of the stream only."""
        if start < self.position:
            raise ValueError(f"a stream cannot go back from {self.position} to {start}")
        while self.position < start:
            skipped = self.read(min(start - self.position, BLOCK))
            if not skipped:
                return b""
            self.position += len(skipped)
        content = self.read(size)
        self.position += len(content)
        return content


class _Raw(io.RawIOBase):
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview", /) -> int:  # type: ignore[override]
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def _files(file: ForwardFile) -> Iterator[tuple[str, str, bytes] | None]:
    """Yield key, suffix and bytes of each file of use; None, last, if the tar is not whole."""
    try:
        for each in files_in_tar(file.read_at):
            key, suffix = split_name(each.name)
            if not suffix:
                continue
            size = min(each.size, MAX_MEMBER_BYTES + 1)  # which shows a decoder that it is too long
            content = file.read_at(each.start, size)
            if len(content) < size:
                raise BrokenTar("a file is cut")
            yield key, suffix, content
    except Exception:  # networks raise nearly anything
        yield None


def _sample(
    key: str, files: Mapping[str, bytes | None], seen: set[int]
) -> Iterator[StoredPair | Damaged]:
    """Make a pair of the files between two other keys; nothing of none."""
    if not files:
        return
    contents = {suffix: content for suffix, content in files.items() if content is not None}
    if hash(key) in seen or len(contents) < len(files):
        yield Damaged(key=key, reason="key twice")
    elif len(key.encode()) > MAX_KEY_BYTES:
        yield Damaged(key=key, reason="key too long")
    else:
        yield stored_pair(key, contents)
    seen.add(hash(key))
