"""What image decoding promises."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data import DamagedImage, decode_image, encode_image, fit_image
from data import images as bounds

GREY = np.linspace(0, 255, 48 * 32 * 3).reshape(48, 32, 3).astype(np.uint8)


def file_of(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    return file.getvalue()


def reason_of(raw: bytes) -> str:
    with pytest.raises(DamagedImage) as refused:
        decode_image(raw)
    return refused.value.reason


def test_png_gives_back_every_pixel() -> None:
    assert np.array_equal(decode_image(encode_image(GREY)), GREY)


@pytest.mark.parametrize("image_format", ["jpg", "webp"])
def test_lossy_formats_give_back_nearly_the_same(image_format: bounds.ImageFormat) -> None:
    again = decode_image(encode_image(GREY, image_format))
    assert np.abs(again.astype(int) - GREY).mean() < 3


@pytest.mark.parametrize(
    ("size", "image_format", "reason"),
    [
        ((4_001, 4_000), "webp", "image too large"),
        ((900, 16_384), "webp", "image too large"),
        ((2, 41), "png", "image too narrow"),
    ],
)
def test_what_would_not_be_read_again_is_not_written(
    size: tuple[int, int], image_format: bounds.ImageFormat, reason: str
) -> None:
    with pytest.raises(DamagedImage, match=reason):
        encode_image(np.zeros((*size, 3), np.uint8), image_format)


def test_a_file_that_would_be_too_long_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_IMAGE_BYTES", len(encode_image(GREY)))
    encode_image(GREY)
    monkeypatch.setattr(bounds, "MAX_IMAGE_BYTES", len(encode_image(GREY)) - 1)
    with pytest.raises(DamagedImage, match="image too large"):
        encode_image(GREY)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    white = Image.new("RGB", (5, 4), "white").convert(mode)
    assert np.array_equal(decode_image(file_of(white, "PNG")), np.full((4, 5, 3), 255))


def test_cmyk_becomes_rgb() -> None:
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red, green, blue = decode_image(file_of(ink, "JPEG"))[4, 4]
    assert red > 240 and green < 15 and blue < 15


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.full((4, 4), 32_896, dtype=np.uint16))  # 128 * 257
    assert np.unique(decode_image(file_of(deep, "PNG"))).tolist() == [128]


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (decode_image(file_of(clear, "PNG")) == 255).all()
    palette = Image.new("P", (4, 4), 0)
    assert (decode_image(file_of(palette, "PNG", transparency=0)) == 255).all()


def test_a_turned_photograph_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode_image(file_of(Image.new("RGB", (6, 4)), "JPEG", exif=exif)).shape == (6, 4, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_cut_file_is_refused_wherever_it_is_cut(kind: str) -> None:
    random = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    whole = file_of(Image.fromarray(random), kind)
    for end in range(0, len(whole) - 16, 23):
        assert reason_of(whole[:end]) in {"not an image", "truncated image", "damaged image"}


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused_whatever_their_name(kind: str) -> None:
    assert reason_of(file_of(Image.new("RGB", (4, 4)), kind)) == "not an image"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_bomb_is_refused_by_its_header() -> None:
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk
    bomb += struct.pack(">I", zlib.crc32(chunk)) + struct.pack(">I", 0) + b"IDAT" + bytes(4)
    assert reason_of(bomb) == "image too large"


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode_image(GREY)
    monkeypatch.setattr(bounds, "MAX_IMAGE_BYTES", 10)
    assert reason_of(raw) == "image too large"


def test_a_thread_of_pixels_is_refused() -> None:
    assert reason_of(file_of(Image.new("RGB", (500, 2)), "PNG")) == "image too narrow"


def test_fitting_keeps_the_middle() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    assert (fit_image(wide, 5) == 255).all() and fit_image(wide, 5).shape == (5, 5, 3)


def test_an_image_that_fits_is_left_alone() -> None:
    square = GREY[:32]
    assert np.array_equal(fit_image(square, 32), square)


def test_shrinking_averages() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(fit_image(stripes, 8).astype(int) - 127).max() < 8
