"""A tar as it comes over a network, from first byte to last: its pairs, and what is lost of them.

Only files of one key that follow each other make a pair: nothing is joined across other keys or
across shards. What has been given stays right whatever comes later. A tar has no checksum of what
is inside its files: that is what an index is for, see `member_index`.
"""

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import closing

from .braces import without_query
from .member_index import MAX_KEY_BYTES
from .sample import Damaged, StoredPair, file_roles, stored_pair
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
    """A stream as tarfile wants it, which skips by reading and never goes back.

    It is read in bounded pieces: a hostile header may ask for a name of 1 GB.
    """

    def __init__(self, stream: ByteStream) -> None:
        super().__init__(_Raw(stream), BLOCK)
        self.position = 0
        self.last_block = b""
        """The last piece that may have been a header."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read `size` bytes, or refuse as a damaged tar is refused."""
        if size is None or not 0 <= size <= MAX_MEMBER_BYTES + 1:
            raise tarfile.ReadError(f"a header asks for {size} bytes")
        content = super().read(size)
        self.position += len(content)
        if size == tarfile.BLOCKSIZE:
            self.last_block = content
        return content

    def tell(self) -> int:
        return self.position

    def seek(self, position: int, whence: int = io.SEEK_SET, /) -> int:
        """Skip forward."""
        if whence != io.SEEK_SET or position < self.position:
            raise tarfile.ReadError("a header leads backwards")
        while self.position < position:
            if not self.read(min(position - self.position, BLOCK)):
                raise tarfile.ReadError("cut")
        return self.position


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
        with tarfile.open(fileobj=file, mode="r:") as tar:
            while info := tar.next():
                tar.members.clear()  # type: ignore[attr-defined]  # it keeps them all
                key, suffix = split_name(info.name)
                if info.isreg() and not info.issparse() and suffix:
                    yield key, suffix, _content(file, info)
        is_whole = _ends_in_zeros(file)
    except Exception:  # hostile headers make tarfile raise nearly anything, and so do networks
        is_whole = False
    if not is_whole:
        yield None


def _content(file: ForwardFile, info: tarfile.TarInfo) -> bytes:
    """Read a file, of a longer one no more than what shows a decoder that it is too long."""
    size = min(info.size, MAX_MEMBER_BYTES + 1)
    file.seek(info.offset_data)
    content = file.read(size)
    if len(content) < size:
        raise tarfile.ReadError("cut")
    return content


def _ends_in_zeros(file: ForwardFile) -> bool:
    """Tell the end from a damaged header, at which tarfile stops too, by what was read last."""
    if file.last_block != bytes(tarfile.BLOCKSIZE):
        return False
    end = file.position + MAX_MEMBER_BYTES
    while block := file.read(BLOCK):
        if any(block) or file.position > end:
            return False
    return True


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
