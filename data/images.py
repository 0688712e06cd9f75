"""Image files to uint8 arrays and back: three formats, bounds checked before any pixel is decoded.

Letters: H, W height and width in pixels; S pixels on a side.
"""

import io
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from .bare_image import DamagedImage, bare_jpeg, bare_png, orientation_of

ImageFormat = Literal["png", "jpg", "webp"]
Fit = Literal["crop", "squash", "shorter", "longer"]
"""How an image comes to a size: the largest centred square, resized; squashed to a square; or
scaled as it is until its shorter, or its longer, side has the size (never enlarged)."""

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_IMAGE_BYTES = 32 * 2**20
MAX_PIXELS = 25_000_000
"""At most 280 MB while they are decoded: a 20 kB file can hold a thousand times more."""
MAX_COSTLY_PIXELS = 16_000_000
"""Of a WebP file and of a JPEG file in CMYK, which take twice as much for a pixel."""
MAX_WEBP_SIDE = 16_383
"""By the format."""
MAX_ASPECT = 20
"""Longer side over shorter; past it a centre crop shows nothing of the image."""
QUALITY = 95
"""Of the JPEG and WebP files that we write."""
STRIP = 64
"""Rows that are converted at once."""


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
    kind = image_format(raw)
    if kind == "webp":
        return _decode(raw)
    if kind is None:
        raise DamagedImage("not an image")
    bare, exif = bare_jpeg(raw) if kind == "jpg" else bare_png(raw)
    pixels = _decode_plain_jpeg(bare, into) if kind == "jpg" else None
    return _upright(_decode(bare) if pixels is None else pixels, orientation_of(exif))


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
            is_costly = image.format == "WEBP" or image.mode == "CMYK"
            _check_size(*image.size, MAX_COSTLY_PIXELS if is_costly else MAX_PIXELS)
            image.load()
            pixels = _on_white(image)
            exif = image.info.get("exif", b"")  # of WebP files
        return _upright(pixels, orientation_of(exif))
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
    """Write an image file: png loses nothing, jpg and webp are of quality 95.

    Raises:
        DamagedImage: for what `decode_image` would refuse to read again.
    """
    height, width = image.shape[:2]
    is_webp = image_format == "webp"
    _check_size(width, height, MAX_COSTLY_PIXELS if is_webp else MAX_PIXELS)
    if is_webp and max(width, height) > MAX_WEBP_SIDE:
        raise DamagedImage("image too large")
    file = io.BytesIO()
    kind = "JPEG" if image_format == "jpg" else image_format.upper()
    Image.fromarray(image).save(file, format=kind, quality=QUALITY)
    raw = file.getvalue()
    if len(raw) > MAX_IMAGE_BYTES:
        raise DamagedImage("image too large")
    return raw


def _check_size(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width * height > most:
        raise DamagedImage("image too large")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise DamagedImage("image too narrow")


def _on_white(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """Give an image's pixels, laid on white in strips: whole copies of it would take 400 MB."""
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        bottom = min(top + STRIP, image.height)
        pixels[top:bottom] = _to_rgb(image.crop((0, top, image.width, bottom)))
    return pixels


def _to_rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips at 255
        levels = (np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8)
        return np.repeat(levels[..., None], 3, axis=2)
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB"))
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", coloured.size, "white")
    return np.asarray(Image.alpha_composite(white, coloured).convert("RGB"))


def _upright(pixels: UInt8[np.ndarray, "H W 3"], orientation: int) -> UInt8[np.ndarray, "h w 3"]:
    """Turn and mirror an image by its orientation in Exif's count."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
