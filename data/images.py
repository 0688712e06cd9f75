"""Image files to uint8 arrays and back: three formats, bounds checked before any pixel is decoded.

Letters: H, W height and width in pixels; S pixels on a side.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ImageFormat = Literal["png", "jpg", "webp"]
Fit = Literal["crop", "squash", "shorter", "longer"]
"""How an image comes to a size: the largest centred square, resized; squashed to a square; or
scaled as it is until its shorter, or its longer, side has the size (never enlarged)."""

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_IMAGE_BYTES = 32 * 2**20
MAX_PIXELS = 25_000_000
"""With alpha about 275 MB while it is composited: a 20 kB file can hold a thousand times more."""
MAX_ASPECT = 20
"""Longer side over shorter; past it a centre crop shows nothing of the image."""
MAX_SCANS = 30
"""Of a progressive JPEG, usually 10: each goes over all pixels, and may be a few bytes long."""
MAX_SEGMENTS = 64
SCAN = b"\xff\xda"
EXIF = 0xE1
SEQUENTIAL = (0xC0, 0xC1)
"""Frames of which one scan may hold all components: then there is no other."""
QUALITY = 95
"""Of the JPEG and WebP files that we write."""


class DamagedImage(ValueError):
    """An image that is skipped; `reason` is a short phrase to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(
    raw: bytes, into: UInt8[np.ndarray, "h w 3"] | None = None
) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a JPEG, PNG or WebP file (the first frame) upright, transparency laid on white.

    Args:
        raw: the file.
        into: memory that is used, and returned, if the image happens to be of its size.

    Raises:
        DamagedImage: for every other input, whatever is wrong with it.
    """
    if len(raw) > MAX_IMAGE_BYTES:
        raise DamagedImage("image too large")
    if image_format(raw) == "jpg":
        header = _jpeg_header(raw)
        if not header.has_one_scan and raw.count(SCAN) > MAX_SCANS:
            raise DamagedImage("too many scans")
        if not header.has_exif:  # there an image that a camera turned says so
            plain = _decode_plain_jpeg(raw, into)
            if plain is not None:
                return plain
    return _decode(raw)


@dataclass(frozen=True)
class _Header:
    """What the segments before a JPEG's pixels say."""

    has_exif: bool
    has_one_scan: bool


def _jpeg_header(raw: bytes) -> _Header:
    """Walk over a JPEG's segments up to its first scan; odd ones promise nothing."""
    place, parts, has_exif = 2, 0, False
    for _ in range(MAX_SEGMENTS):
        if place + 10 > len(raw) or raw[place] != 0xFF:
            break
        marker, length = raw[place + 1], 256 * raw[place + 2] + raw[place + 3]
        if marker == SCAN[1]:
            return _Header(has_exif, has_one_scan=raw[place + 4] == parts)
        if marker in SEQUENTIAL:
            parts = raw[place + 9]
        elif marker == EXIF and raw.startswith(b"Exif", place + 4):
            has_exif = True
        place += 2 + length
    return _Header(has_exif=True, has_one_scan=False)


def _decode_plain_jpeg(
    raw: bytes, into: UInt8[np.ndarray, "h w 3"] | None
) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decode a JPEG file by itself: Pillow needs two and a half times as long for the same pixels.

    None is for all that is odd about a file: let Pillow say what it makes of it.
    """
    try:
        import simplejpeg  # here alone: a machine that only generates may be without it
    except ImportError:
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(raw)
        if colours not in ("YCbCr", "RGB", "Gray"):
            return None
        _check_size(width, height)
        if into is None or into.shape != (height, width, 3):
            return np.asarray(simplejpeg.decode_jpeg(raw))
        simplejpeg.decode_jpeg(raw, buffer=into)
        return into
    except DamagedImage:
        raise
    except Exception:
        return None


def _decode(raw: bytes) -> UInt8[np.ndarray, "H W 3"]:
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
            _check_size(*image.size)
            image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(image)))
    except DamagedImage:
        raise
    except UnidentifiedImageError:
        raise DamagedImage("not an image") from None
    except Image.DecompressionBombError:
        raise DamagedImage("image too large") from None
    except Exception as error:  # hostile bytes make Pillow raise nearly anything
        cut = "truncated" in str(error).lower()
        raise DamagedImage("truncated image" if cut else "damaged image") from error


def image_format(raw: bytes) -> ImageFormat | None:
    """Tell the format of an image file by how it begins."""
    if raw.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP" else None


def fit_image(
    image: UInt8[np.ndarray, "H W 3"], size: int, fit: Fit = "crop"
) -> UInt8[np.ndarray, "h w 3"]:
    """Bring an image to `size` pixels, antialiased; one that has it stays as it is."""
    height, width, _ = image.shape
    if height == width == size:
        return image
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        return resize(image, size, size)
    if fit == "squash":
        return resize(image, size, size)
    scale = min(1.0, size / (min if fit == "shorter" else max)(height, width))
    return resize(image, max(1, round(height * scale)), max(1, round(width * scale)))


def resize(
    image: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Resize an image, antialiased, to other proportions too."""
    if image.shape[:2] == (height, width):
        return image
    small = Image.fromarray(np.ascontiguousarray(image))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def encode_image(image: UInt8[np.ndarray, "H W 3"], image_format: ImageFormat = "png") -> bytes:
    """Write an image file: png loses nothing, jpg and webp are of quality 95."""
    file = io.BytesIO()
    kind = "JPEG" if image_format == "jpg" else image_format.upper()
    Image.fromarray(image).save(file, format=kind, quality=QUALITY)
    return file.getvalue()


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise DamagedImage("image too large")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DamagedImage("image too narrow")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
        levels = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")
