"""Image files down to what makes their pixels.

All else in a file is a place for bombs, and decoders look into it: Exif entries that each ask for
the whole file, millions of empty segments, text that unpacks to gigabytes, scan upon scan.
"""

import re
import struct
from collections.abc import Iterator

MAX_PARTS = 2**16
"""Segments or chunks of a file: one for every 8 kB, in files of 32 MB as others write them."""
MAX_SCANS = 30
"""Of a JPEG file, usually 1 or 10: each goes over all pixels, and may be a few bytes long."""

SOF, PROGRESSIVE, SOS, APP1 = frozenset({0xC0, 0xC1, 0xC2}), 0xC2, 0xDA, 0xE1
OTHER_SOF = frozenset(range(0xC3, 0xD0)) - {0xC4, 0xC8}
"""Lossless and arithmetic coding: browsers refuse them, the latter packs much work in few bytes."""
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment."""
COMMENTS = frozenset({*range(0xE0, 0xF0), 0xFE})
COLOURS = (b"JFIF\0", b"Adobe")
"""How the segments begin that tell a decoder what the colours mean."""
MARKER = re.compile(rb"\xff[^\x00\xff]")
EXIF = b"Exif\0\0"
PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})


class DamagedImage(ValueError):
    """An image that is skipped; `reason` is a short phrase to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def bare_jpeg(raw: bytes) -> tuple[bytes, bytes]:
    """Leave out what a JPEG file holds besides its pixels, and give its Exif block by itself.

    Raises:
        DamagedImage: if it has no scan, too many, or is coded in a way that nobody uses.
    """
    kept, exif = [raw[:2]], b""
    is_progressive, components = False, b""
    for marker, start, end in _segments(raw):
        content = raw[start + 4 : end]
        if marker in OTHER_SOF:
            raise DamagedImage("unusual JPEG")
        if marker == SOS:
            has_more_scans = is_progressive or content[:1] < components
            if has_more_scans and raw.count(b"\xff\xda", start) > MAX_SCANS:
                raise DamagedImage("too many scans")
            return b"".join([*kept, raw[start:]]), exif
        if marker in SOF:
            is_progressive, components = marker == PROGRESSIVE, content[5:6]
        if marker == APP1 and content.startswith(EXIF):
            exif = exif or content
        if marker not in COMMENTS or content.startswith(COLOURS):
            kept.append(raw[start:end])
    raise DamagedImage("truncated image")


def bare_png(raw: bytes) -> tuple[bytes, bytes]:
    """Leave out what a PNG file holds besides its pixels, and give its Exif block by itself.

    Raises:
        DamagedImage: if it has too many chunks.
    """
    kept, exif, start = [raw[:8]], b"", 8
    for _ in range(MAX_PARTS):
        if start + 8 > len(raw):
            return b"".join(kept), exif
        length, kind = struct.unpack_from(">I4s", raw, start)
        end = start + 12 + length
        if kind in PIXEL_CHUNKS:
            kept.append(raw[start:end])
        elif kind == b"eXIf":
            exif = exif or raw[start + 8 : end - 4]
        start = len(raw) if kind == b"IEND" else end
    raise DamagedImage("too many parts")


def orientation_of(exif: bytes) -> int:
    """Read from an Exif block how the camera was held: 1 to 8, and 1 where nothing is said.

    Source: Exif 2.3, tag 0x0112 of the first directory.
    """
    exif = exif.removeprefix(EXIF)
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, first)
        for number in range(entries):
            entry = struct.unpack_from(f"{order}HHIH", exif, first + 2 + 12 * number)
            if entry[:3] == (0x0112, 3, 1):
                return entry[3] if 1 <= entry[3] <= 8 else 1
    except struct.error:  # cut
        pass
    return 1


def _segments(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, start and end of each segment of a JPEG file up to its first scan."""
    at = 2
    for _ in range(MAX_PARTS):
        found = MARKER.search(raw, at)
        if not found or found.end() + 2 > len(raw):
            return
        marker, at = raw[found.end() - 1], found.end()
        if marker in ALONE:
            continue
        if marker == 0xD9:
            return
        at += max(2, int.from_bytes(raw[at : at + 2]))
        yield marker, found.start(), at
    raise DamagedImage("too many parts")
