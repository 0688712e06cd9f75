"""The regular files of a tar by its headers: POSIX with PAX headers, and GNU's long names.

tarfile stops without a word at a damaged header, and takes a header at its word: it keeps every
one in memory, reads a sparse map as long as the file, and before Python 3.11.10 needs the square of
a PAX header's length in time. Here a tar is read to the zeros that end it, or it is broken.

Source: POSIX.1-2017, pax, https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

ReadAt = Callable[[int, int], bytes]
"""Gives bytes from a place on, as many as asked for unless the tar ends; no place is before that of
an earlier call."""

BLOCK = 512
MAX_HEADER_BYTES = 2**20
"""Of a PAX header or a long name."""
MAX_END = 2**25
"""Bytes of zeros."""
FILES = frozenset({b"0", b"\0", b"7"})
WITHOUT_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Links, devices, folders, pipes."""
LONG_NAME, LONG_LINK, PAX, PAX_OF_ALL, SPARSE = b"L", b"K", b"x", b"g", b"S"
PAX_SPARSE = b"GNU.sparse."
"""How the names begin that a PAX header gives the parts of a sparse file."""
OCTAL = re.compile(rb"[0-7]*")
RECORD = re.compile(rb"([1-9]\d{0,9}) ([^=]+)=", re.DOTALL)
"""How a record of a PAX header begins: its length, its name."""


class BrokenTar(ValueError):
    """A tar with a damaged header, or that ends before its end."""


@dataclass(frozen=True, kw_only=True)
class TarredFile:
    """Where a file's bytes lie in a tar."""

    name: str
    """As it stands there; bytes that are not UTF-8 come as surrogates."""
    start: int
    size: int


def files_in_tar(read: ReadAt, length: int | None = None) -> Iterator[TarredFile]:
    """Yield the regular files of a tar in their order, without links, folders and sparse files.

    Args:
        read: reads the tar.
        length: of the tar, where it is known: then a file that is cut does not come.

    Raises:
        BrokenTar: where a header is damaged, or after the last whole file, if less than a block of
            zeros or anything else comes there.
    """
    at, of_all, of_next = 0, dict[bytes, bytes](), dict[bytes, bytes]()
    while any(block := _read(read, at, BLOCK)):
        kind, size = block[156:157], _checked_size(block)
        at += BLOCK
        if kind in (LONG_NAME, LONG_LINK, PAX, PAX_OF_ALL):
            content = _read(read, at, size)
            at += _padded(size)
            if kind == LONG_NAME:
                of_next[b"path"] = content
            elif kind != LONG_LINK:
                (of_next if kind == PAX else of_all).update(_pax_fields(content))
            continue
        said, of_next = {**of_all, **of_next}, {}
        if kind == SPARSE:
            at = _after_map(read, at, block)
        if kind not in WITHOUT_DATA:
            size = _decimal(said[b"size"]) if b"size" in said else size
            if length is not None and at + size > length:
                raise BrokenTar("a file is cut")
            if kind in FILES and PAX_SPARSE not in said:
                name = said.get(b"path", _name(block)).partition(b"\0")[0]
                readable = name.decode("utf-8", "surrogateescape")
                yield TarredFile(name=readable, start=at, size=size)
            at += _padded(size)
    _check_end(read, at + BLOCK)


def _read(read: ReadAt, start: int, size: int) -> bytes:
    if size > MAX_HEADER_BYTES:
        raise BrokenTar(f"a header asks for {size} bytes")
    content = read(start, size)
    if len(content) < size:
        raise BrokenTar("the tar is cut")
    return content


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _checked_size(block: bytes) -> int:
    """The size that a header gives, once its bytes add up to its checksum."""
    told = _number(block[148:156])
    content = block[:148] + b" " * 8 + block[156:]
    if told != sum(content) and told != sum(memoryview(content).cast("b")):  # some sum signed bytes
        raise BrokenTar("a header is damaged")
    return _number(block[124:136])


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # GNU: the other bytes are the number
        return int.from_bytes(field[1:])
    digits = field.partition(b"\0")[0].strip(b" ")
    if not OCTAL.fullmatch(digits):
        raise BrokenTar("a header has no number where one belongs")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not re.fullmatch(rb"\d{1,19}", digits):
        raise BrokenTar("a PAX header has no size where one belongs")
    return int(digits)


def _name(block: bytes) -> bytes:
    name, prefix = (block[start:end].partition(b"\0")[0] for start, end in ((0, 100), (345, 500)))
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _pax_fields(content: bytes) -> dict[bytes, bytes]:
    """The records of a PAX header that tell where a file lies, each `LENGTH NAME=VALUE`."""
    fields, at, end = {}, 0, len(content.rstrip(b"\0"))
    while at < end:
        record = RECORD.match(content, at)
        after = at + int(record[1]) if record else 0
        if not record or not record.end() < after <= end or content[after - 1] != ord("\n"):
            raise BrokenTar("a PAX header is damaged")
        name = PAX_SPARSE if record[2].startswith(PAX_SPARSE) else record[2]
        if name in (b"path", b"size", PAX_SPARSE):
            fields[name] = content[record.end() : after - 1]
        at = after
    return fields


def _after_map(read: ReadAt, at: int, block: bytes) -> int:
    """Where an old sparse file's data begin: its map may go on in blocks of its own."""
    goes_on = block[482]
    while goes_on:
        goes_on = _read(read, at, BLOCK)[504]
        at += BLOCK
    return at


def _check_end(read: ReadAt, start: int) -> None:
    at = start
    while block := read(at, 2**18):
        at += len(block)
        if any(block) or at > start + MAX_END:
            raise BrokenTar("the end is not an end")
