"""Images made to do harm: each is a pair's image or is refused, in little time and memory."""

import io
import pickle
import struct
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data import DamagedImage, decode_image

SECONDS = 5.0
MEGABYTES = 300
SMALL = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
SHAPE = (24, 32, 3)

Outcome = tuple[int, int, int] | str
"""Of the decoded image, or why it is refused."""


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# PNG, by its chunks


def chunk(kind: bytes, content: bytes, length: int | None = None) -> bytes:
    size = struct.pack(">I", len(content) if length is None else length)
    return size + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def header(width: int, height: int, bits: int = 8, colours: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def rows(width: int, height: int, channels: int = 3, filtered: int = 0) -> bytes:
    return chunk(b"IDAT", zlib.compress((bytes([filtered]) + bytes(width * channels)) * height))


def with_chunk(*chunks: bytes, before: bool = True) -> bytes:
    pixels = (*chunks, rows(8, 8)) if before else (rows(8, 8), *chunks)
    return png(header(8, 8), *pixels)


def flat(width: int, height: int, bits: int, colours: int) -> bytes:
    """Nothing but zeros, compressed a thousandfold."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    size = -(-width * channels * bits // 8)
    return png(header(width, height, bits, colours), rows(1, height, size, 4 * (bits == 8)))


def interlaced(side: int) -> bytes:
    """Of 16-bit RGBA, each row by the costliest filter."""
    steps = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4))
    steps += ((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    whole = b"".join(
        (b"\4" + bytes(8 * -(-(side - x) // dx))) * -(-(side - y) // dy) for x, y, dx, dy in steps
    )
    return png(header(side, side, 16, 6, 1), chunk(b"IDAT", zlib.compress(whole)))


# JPEG, by its segments


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(*segments: bytes) -> bytes:
    """A good JPEG file with other segments before its own."""
    return b"\xff\xd8" + b"".join(segments) + saved(SMALL, "JPEG")[2:]


def table(which: int, symbol: int) -> bytes:
    """A Huffman table of one symbol, its code is 0."""
    return segment(0xC4, bytes([which, 1, *[0] * 15, symbol]))


def scan(components: list[int], first: int, last: int, high: int, low: int) -> bytes:
    places = b"".join(bytes([each, 0]) for each in components)
    return segment(0xDA, bytes([len(components)]) + places + bytes([first, last, high << 4 | low]))


def jpeg(
    width: int,
    height: int,
    *scans: bytes,
    components: int = 3,
    kind: int = 0xC2,
    bits: int = 8,
    sampling: int = 0x11,
) -> bytes:
    parts = b"".join(bytes([n + 1, sampling, 0]) for n in range(components))
    frame = struct.pack(">BHHB", bits, height, width, components) + parts
    tables = segment(0xDB, bytes([0, *[1] * 64])) + table(0, 0) + table(0x10, 0)
    return b"\xff\xd8" + tables + segment(kind, frame) + b"".join(scans) + b"\xff\xd9"


def scans(number: int, content: bytes = b"") -> list[bytes]:
    first = scan([1, 2, 3], 0, 0, 0, 0)
    return [first, *[scan([n % 3 + 1], 1, 63, 0, 0) + content for n in range(number - 1)]]


def costly_scans(width: int, height: int, components: int) -> list[bytes]:
    """Thirty scans of 32 MB in all, every coefficient of every block coded."""
    blocks = -(-width // 8) * -(-height // 8)
    parts = [scan([*range(1, components + 1)], 0, 0, 0, 13) + bytes(blocks * components // 8 + 2)]
    parts.append(table(0x10, 1))
    parts += [scan([n + 1], 1, 63, 0, 13) + bytes(blocks * 16) for n in range(components)]
    parts.append(table(0x10, 0xE0))
    left = 32 * 2**20 - 2_000 - sum(map(len, parts))
    for number in range(29 - components):
        low = 12 - number // components
        parts.append(scan([number % components + 1], 1, 63, low + 1, low) + bytes(left // 29))
    return parts


# Exif


def exif_of(orientation: int, kind: int = 3) -> bytes:
    return b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, kind, 1, orientation, 0)


def exif_bomb(size: int) -> bytes:
    """Thousands of entries, each of them as long as the whole."""
    count = min(size // 12 - 2, 65_000)
    entries = b"".join(struct.pack(">HHII", n, 7, size - 20, 8) for n in range(count))
    return (b"MM\0*\0\0\0\x08" + struct.pack(">H", count) + entries).ljust(size, b"\0")


def exif_circle() -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 8, 8)


# WebP, by its chunks


def riff(*chunks: tuple[bytes, bytes], length: int | None = None) -> bytes:
    parts = b"".join(
        kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)
        for kind, content in chunks
    )
    size = len(parts) + 4 if length is None else length
    return b"RIFF" + struct.pack("<I", size) + b"WEBP" + parts


def webp_pixels() -> bytes:
    """The VP8L chunk's content of a small image."""
    return saved(SMALL, "WEBP", lossless=True)[20:]


ANIM = (b"ANIM", bytes(6))


def canvas(width: int, height: int, flags: int) -> tuple[bytes, bytes]:
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return b"VP8X", bytes([flags, 0, 0, 0]) + sides


def frame(x: int = 0) -> tuple[bytes, bytes]:
    pixels = webp_pixels()
    place = struct.pack("<I", x)[:3] + bytes(3) + bytes([31, 0, 0, 23, 0, 0, 10, 0, 0, 0])
    return b"ANMF", place + b"VP8L" + struct.pack("<I", len(pixels)) + pixels


class Canary:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("canary", "w")


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jpg", saved(SMALL, "JPEG"))
    return file.getvalue()


NOTHING, LARGE, NARROW = "not an image", "image too large", "image too narrow"
UNUSUAL = "unusual JPEG"
CUT, DAMAGED, PARTS, SCANS = "truncated image", "damaged image", "too many parts", "too many scans"

IMAGES: dict[str, tuple[Callable[[], bytes], Outcome]] = {
    # too large
    "169 Mpx in 20 kB": (lambda: flat(13_000, 13_000, 1, 0), LARGE),
    "more pixels than 64 bits count": (lambda: png(header(2**31 - 1, 2**31 - 1)), LARGE),
    "a negative side": (lambda: png(header(2**32 - 1, 8), rows(8, 8)), LARGE),
    "100,000 x 1": (lambda: flat(100_000, 1, 8, 2), NARROW),
    "1 x 100,000": (lambda: flat(1, 100_000, 8, 2), NARROW),
    "a JPEG of 4 Gpx": (lambda: jpeg(65_535, 65_535, *scans(1)), LARGE),
    "a thin JPEG": (lambda: jpeg(65_535, 8, *scans(1)), NARROW),
    "a WebP canvas of 281 Tpx": (lambda: riff(canvas(2**24, 2**24, 0)), DAMAGED),
    "a WebP canvas of 256 Mpx": (lambda: riff(canvas(16_383, 16_383, 2), ANIM, frame()), LARGE),
    "25 Mpx and a row": (lambda: flat(5_000, 5_001, 1, 0), LARGE),
    "CMYK of 25 Mpx": (lambda: jpeg(5_000, 5_000, *scans(1), components=4), LARGE),
    "32 MB and a byte": (lambda: with_segments().ljust(32 * 2**20 + 1, b"\0"), LARGE),
    # no pixels
    "nothing": (lambda: b"", NOTHING),
    "one byte": (lambda: b"\xff", NOTHING),
    "PNG without height": (lambda: png(header(8, 0), rows(8, 8)), NOTHING),
    "PNG without sides": (lambda: png(header(0, 0), rows(8, 8)), NOTHING),
    "JPEG without height": (lambda: jpeg(8, 0, *scans(1)), NOTHING),
    "JPEG without sides": (lambda: jpeg(0, 0, *scans(1)), NOTHING),
    "PNG without data": (lambda: png(header(8, 8)), DAMAGED),
    "PNG without header": (lambda: png(rows(8, 8)), NOTHING),
    "PNG of a signature": (lambda: b"\x89PNG\r\n\x1a\n", NOTHING),
    "JPEG of two markers": (lambda: b"\xff\xd8\xff\xd9", CUT),
    "JPEG that ends first": (lambda: b"\xff\xd8\xff\xd9" + with_segments()[2:], CUT),
    "WebP of a signature": (lambda: b"RIFF\xff\xff\xff\xffWEBP", NOTHING),
    "WebP without a frame": (lambda: riff(canvas(32, 24, 2)), DAMAGED),
    # odd, and good
    "CMYK": (lambda: saved(SMALL.convert("CMYK"), "JPEG"), SHAPE),
    "progressive CMYK": (lambda: saved(SMALL.convert("CMYK"), "JPEG", progressive=True), SHAPE),
    "RGB in a JPEG": (lambda: saved(SMALL, "JPEG", keep_rgb=True), SHAPE),
    "grey": (lambda: saved(SMALL.convert("L"), "JPEG"), SHAPE),
    "restart markers": (lambda: saved(SMALL, "JPEG", restart_marker_blocks=1), SHAPE),
    "16-bit grey": (lambda: flat(8, 8, 16, 0), (8, 8, 3)),
    "16-bit colours": (lambda: flat(8, 8, 16, 2), (8, 8, 3)),
    "16-bit colours with alpha": (lambda: flat(8, 8, 16, 6), (8, 8, 3)),
    "interlaced 16-bit": (lambda: interlaced(9), (9, 9, 3)),
    "two bits": (lambda: flat(9, 8, 2, 0), (8, 9, 3)),
    "palette with alpha": (
        lambda: saved(SMALL.convert("P"), "PNG", transparency=bytes(range(200))),
        SHAPE,
    ),
    "a transparent colour": (lambda: with_chunk(chunk(b"tRNS", bytes(6))), (8, 8, 3)),
    "a transparency too short": (lambda: with_chunk(chunk(b"tRNS", b"\0")), NOTHING),
    "animated WebP": (
        lambda: saved(SMALL, "WEBP", save_all=True, append_images=[SMALL.rotate(180)] * 3),
        SHAPE,
    ),
    "animated PNG": (
        lambda: saved(SMALL, "PNG", save_all=True, append_images=[SMALL.rotate(180)] * 3),
        SHAPE,
    ),
    "a million frames to come": (
        lambda: with_chunk(chunk(b"acTL", struct.pack(">II", 10**6, 0))),
        (8, 8, 3),
    ),
    "PNG without its end": (lambda: with_chunk()[:-12], (8, 8, 3)),
    "more after the end": (lambda: with_chunk() + b"x" * 10**6, (8, 8, 3)),
    "a second JPEG after the first": (lambda: with_segments() * 2, SHAPE),
    "a film after a photograph": (lambda: with_segments() + b"\xff\xda" * 99, SHAPE),
    "junk between segments": (lambda: with_segments(segment(0xFE, b"") + b"\0" * 2**23), SHAPE),
    "8 MB of fill bytes": (lambda: with_segments(b"\xff" * 2**23), SHAPE),
    # how the camera was held
    **{
        f"orientation {n} of {kind}": (make, (32, 24, 3) if 5 <= n <= 8 else SHAPE)
        for n in (0, 1, 4, 6, 8, 9, 65_535)
        for kind, make in (
            ("JPEG", lambda n=n: with_segments(segment(0xE1, b"Exif\0\0" + exif_of(n)))),
            ("PNG", lambda n=n: saved(SMALL, "PNG", exif=exif_of(n))),
            ("WebP", lambda n=n: saved(SMALL, "WEBP", exif=exif_of(n))),
        )
    },
    "orientation as a text": (lambda: saved(SMALL, "PNG", exif=exif_of(6, kind=2)), SHAPE),
    "orientation in XMP": (
        lambda: with_segments(
            segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x tiff:Orientation="6"/>')
        ),
        SHAPE,
    ),
    "Exif in a circle": (lambda: saved(SMALL, "WEBP", exif=exif_circle()), SHAPE),
    "Exif cut": (lambda: saved(SMALL, "WEBP", exif=exif_of(6)[:14]), SHAPE),
    "Exif far outside": (lambda: saved(SMALL, "PNG", exif=b"II*\0\xff\xff\xff\xff"), SHAPE),
    "Exif of nothing": (lambda: with_segments(segment(0xE1, b"Exif\0\0")), SHAPE),
    # bombs beside the pixels
    "Exif bomb in a JPEG": (
        lambda: with_segments(segment(0xE1, b"Exif\0\0" + exif_bomb(65_000))),
        SHAPE,
    ),
    "Exif bomb in a PNG": (lambda: with_chunk(chunk(b"eXIf", exif_bomb(2**23))), (8, 8, 3)),
    "Exif bomb in a WebP": (lambda: saved(SMALL, "WEBP", exif=exif_bomb(2**23)), SHAPE),
    "60,000 pieces of Exif": (
        lambda: with_segments(segment(0xE1, b"Exif\0\0" + bytes(99)) * 60_000),
        SHAPE,
    ),
    "a million segments": (lambda: with_segments(segment(0xFE, b"") * 10**6), PARTS),
    "a million markers": (lambda: with_segments(b"\xff\xd0" * 10**6), PARTS),
    "a million chunks": (lambda: with_chunk(chunk(b"teXt", b"") * 10**6), PARTS),
    "a million chunks of no data": (lambda: with_chunk(chunk(b"IDAT", b"") * 10**6), PARTS),
    "60,000 chunks of no data": (lambda: with_chunk(chunk(b"IDAT", b"") * 60_000), (8, 8, 3)),
    "60,000 headers": (lambda: with_chunk(header(8, 8) * 60_000), (8, 8, 3)),
    "60,000 quantisation tables": (
        lambda: with_segments(segment(0xDB, bytes(65)) * 60_000),
        SHAPE,
    ),
    "a zTXt bomb": (
        lambda: with_chunk(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26)))),
        (8, 8, 3),
    ),
    "a hundred zTXt bombs": (
        lambda: with_chunk(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**20))) * 100),
        (8, 8, 3),
    ),
    "an iTXt bomb": (
        lambda: with_chunk(chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(2**26)))),
        (8, 8, 3),
    ),
    "an ICC bomb": (
        lambda: with_chunk(chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**26)))),
        (8, 8, 3),
    ),
    "ICC in 255 pieces, one missing": (
        lambda: with_segments(
            *(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(9_999)) for n in range(254))
        ),
        SHAPE,
    ),
    "a Photoshop block in a circle": (
        lambda: with_segments(segment(0xED, b"Photoshop 3.0\x008BIM\0\0\0\0\xff\xff\xff\xf0")),
        SHAPE,
    ),
    "an MPF block that lies": (
        lambda: with_segments(segment(0xE2, b"MPF\0II*\0\xff\xff\xff\x7f")),
        SHAPE,
    ),
    # scans
    "thirty scans": (lambda: jpeg(64, 64, *scans(30)), (64, 64, 3)),
    "thirty-one scans": (lambda: jpeg(64, 64, *scans(31)), SCANS),
    "thousands of scans": (lambda: jpeg(5_000, 5_000, *scans(5_000)), SCANS),
    "thousands of scans, not progressive": (
        lambda: jpeg(5_000, 5_000, *[scan([n % 3 + 1], 0, 63, 0, 0) for n in range(99)], kind=0xC0),
        SCANS,
    ),
    "scans of a file in arithmetic code": (lambda: jpeg(64, 64, *scans(9), kind=0xCA), UNUSUAL),
    "arithmetic code": (lambda: jpeg(64, 64, scan([1, 2, 3], 0, 63, 0, 0), kind=0xC9), UNUSUAL),
    "lossless": (lambda: jpeg(64, 64, scan([1, 2, 3], 1, 0, 0, 0), kind=0xC3), UNUSUAL),
    # JPEG files that contradict themselves
    "twelve bits": (lambda: jpeg(64, 64, *scans(1), bits=12), NOTHING),
    "no component": (lambda: jpeg(64, 64, *scans(1), components=0), NOTHING),
    "two components": (lambda: jpeg(64, 64, *scans(1), components=2), NOTHING),
    "255 components": (lambda: jpeg(64, 64, *scans(1), components=255), NOTHING),
    "sampling by nothing": (lambda: jpeg(64, 64, *scans(1), sampling=0), DAMAGED),
    "sampling by fifteen": (lambda: jpeg(64, 64, *scans(1), sampling=0xFF), DAMAGED),
    "a scan of bands that are not there": (
        lambda: jpeg(64, 64, scan([1, 2, 3], 63, 1, 0, 0)),
        DAMAGED,
    ),
    "two frames": (lambda: with_segments(jpeg(9, 9)[2:-2]), DAMAGED),
    "a Huffman table of 4,000 codes": (
        lambda: with_segments(segment(0xC4, bytes([0, *[255] * 16]) + bytes(4_080))),
        DAMAGED,
    ),
    "a quantisation table cut": (lambda: with_segments(segment(0xDB, bytes(9))), NOTHING),
    "a segment longer than the file": (lambda: with_segments()[:-600] + b"\xff\xfe\xff\xff", CUT),
    "a segment of no length": (lambda: with_segments(b"\xff\xfe\0\0"), SHAPE),
    # PNG files that contradict themselves
    "a chunk longer than the file": (
        lambda: png(header(8, 8), chunk(b"IDAT", b"", 2**31)),
        DAMAGED,
    ),
    "a chunk of 4 GB": (lambda: png(header(8, 8), chunk(b"tEXt", b"", 2**32 - 1)), NOTHING),
    "three bits": (lambda: png(header(8, 8, 3), rows(8, 8)), NOTHING),
    "colours of type 5": (lambda: png(header(8, 8, 8, 5), rows(8, 8)), NOTHING),
    "a palette that is not there": (lambda: png(header(8, 8, 8, 3), rows(8, 8, 1)), (8, 8, 3)),
    "a palette too long": (
        lambda: png(header(8, 8, 8, 3), chunk(b"PLTE", bytes(3_000)), rows(8, 8, 1)),
        DAMAGED,
    ),
    "a filter of type 9": (lambda: png(header(8, 8), rows(8, 8, filtered=9)), DAMAGED),
    "a checksum that is wrong": (lambda: with_chunk().replace(b"IHDR", b"IHDr"), NOTHING),
    "two headers": (lambda: png(header(8, 8), header(9_000, 9_000), rows(8, 8)), LARGE),
    "a header after the data": (lambda: png(header(8, 8), rows(8, 8), header(9, 9)), (8, 8, 3)),
    "too few rows": (lambda: png(header(8, 8), rows(8, 4)), (8, 8, 3)),
    "too many rows": (lambda: png(header(8, 8), rows(8, 99_999)), (8, 8, 3)),
    # WebP files that contradict themselves
    "a frame beside the canvas": (lambda: riff(canvas(32, 24, 2), ANIM, frame(x=99)), DAMAGED),
    "5,000 frames": (lambda: riff(canvas(32, 24, 2), ANIM, *[frame()] * 5_000), SHAPE),
    "a million chunks in a WebP": (
        lambda: riff(canvas(32, 24, 0), *[(b"abcd", b"")] * 10**6, (b"VP8L", webp_pixels())),
        SHAPE,
    ),
    "a WebP that says it is 4 GB": (
        lambda: riff((b"VP8L", webp_pixels()), length=2**32 - 1),
        DAMAGED,
    ),
    "a WebP of another codec": (lambda: riff((b"VP9 ", bytes(99))), NOTHING),
    # other formats under a name that ends in .jpg
    **{
        f"{kind} as .jpg": (lambda kind=kind: saved(SMALL, kind), NOTHING)
        for kind in ("GIF", "BMP", "TIFF", "PPM", "ICO", "PCX", "TGA", "EPS", "PDF", "SGI", "DDS")
    },
    "animated GIF": (
        lambda: saved(SMALL.convert("P"), "GIF", save_all=True, append_images=[SMALL] * 3),
        NOTHING,
    ),
    "FITS": (lambda: b"SIMPLE  =                    T".ljust(2_880), NOTHING),
    "PSD": (lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 8, 8, 3), NOTHING),
    "SVG": (
        lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>',
        NOTHING,
    ),
    "an SVG bomb": (lambda: b'<!DOCTYPE x [<!ENTITY a "&b;&b;">]><svg>&a;</svg>', NOTHING),
    "HTML": (lambda: b"<html>404</html>", NOTHING),
    "a pickle": (lambda: pickle.dumps(Canary()), NOTHING),
    "a zip": (zipped, NOTHING),
    "a script": (lambda: b"#!/bin/sh\ntouch canary\n", NOTHING),
    "PostScript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n(canary) (w) file\n", NOTHING),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hostile_image_is_decoded_or_refused_by_its_reason(name: str) -> None:
    make, outcome = IMAGES[name]
    raw = make()
    start = time.process_time()
    assert outcome_of(raw) == outcome
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_cut_at_any_byte_is_refused_or_has_all_its_pixels(kind: str) -> None:
    raw = saved(SMALL, kind)
    whole = decode_image(raw)
    for end in range(len(raw)):
        try:
            assert np.array_equal(decode_image(raw[:end]), whole)
        except DamagedImage:
            continue
        assert end > len(raw) - 21  # pixels are all there, what ends the file is not


COSTLY: dict[str, Callable[[], bytes]] = {
    "progressive JPEG": lambda: jpeg(5_000, 5_000, *costly_scans(5_000, 5_000, 3)),
    "CMYK JPEG": lambda: jpeg(4_000, 4_000, *costly_scans(4_000, 4_000, 4), components=4),
    "interlaced PNG": lambda: interlaced(5_000),
    "WebP": lambda: saved(Image.new("RGBA", (4_000, 4_000), (9, 9, 9, 9)), "WEBP", lossless=True),
}
MEASURE = """
import os, resource, sys, time
from data import DamagedImage, decode_image
for path in sys.argv[1:]:
    if os.fork():
        os.wait()
        continue
    raw = open(path, "rb").read()
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    decode_image(raw)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(time.process_time() - start, (after - before) / 1024, flush=True)
    os._exit(0)
"""


def test_the_costliest_images_stay_within_time_and_memory(folder: Path) -> None:
    for name, make in COSTLY.items():
        (folder / name).write_bytes(make())
    paths = [str(folder / name) for name in COSTLY]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, *paths],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = run.stdout.splitlines()
    assert len(lines) == len(COSTLY), run.stderr
    for name, line in zip(COSTLY, lines, strict=True):
        seconds, megabytes = map(float, line.split())
        print(f"{name}: {seconds:.2f} s, {megabytes:.0f} MB")
        assert seconds < SECONDS and megabytes < MEGABYTES, name


def outcome_of(raw: bytes) -> Outcome:
    try:
        return decode_image(raw).shape
    except DamagedImage as error:
        return error.reason
