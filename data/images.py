"""Image files to uint8 arrays and back: three formats, bounds checked before any pixel is decoded.

Letters: H, W height and width in pixels; S pixels on a side.
"""

import io
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

ImageFormat = Literal["png", "jpg", "webp"]

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_IMAGE_BYTES = 32 * 2**20
MAX_PIXELS = 25_000_000
"""With alpha about 275 MB while it is composited: a 20 kB file can hold a thousand times more."""
MAX_ASPECT = 20
"""Longer side over shorter; past it a centre crop shows nothing of the image."""


class DamagedImage(ValueError):
    """An image that is skipped; `reason` is a short phrase to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(raw: bytes) -> UInt8[np.ndarray, "H W 3"]:
    """Decode a JPEG, PNG or WebP file (the first frame) upright, transparency laid on white.

    Raises:
        DamagedImage: for every other input, whatever is wrong with it.
    """
    if len(raw) > MAX_IMAGE_BYTES:
        raise DamagedImage("image too large")
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


def fit_image(image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "S S 3"]:
    """Crop the largest centred square and resize it, antialiased, to `size` pixels a side."""
    height, width, _ = image.shape
    if height == width == size:
        return image
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(image[top : top + side, left : left + side])
    return np.array(square.resize((size, size), Image.Resampling.BICUBIC))


def encode_image(image: UInt8[np.ndarray, "H W 3"], image_format: ImageFormat = "png") -> bytes:
    """Write an image file: png loses nothing, jpg and webp are of quality 95."""
    file = io.BytesIO()
    kind = "JPEG" if image_format == "jpg" else image_format.upper()
    Image.fromarray(image).save(file, format=kind, quality=95)
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
