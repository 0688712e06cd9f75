"""Sheets of images as PNG files: strips and grids, with what they show written beside them.

Letters: N images, S pixels on a side. Images are uint8, red, green, blue.
"""

import io
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .files import replace_file

Array: TypeAlias = Tensor | NDArray[Any]
"""On the CPU."""

INK = "#222831"
FONT_FILE = files("matplotlib") / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
MARGIN, GAP = 20, 10
"""Pixels around a sheet of images, and between them."""
STRIP_SIDE, GRID_SIDE = 128, 192
"""About the pixels on a side of one enlarged image."""
TEXT, TEXT_LINE = 16, 21
"""Pixels of a letter's size, and from one line to the next."""
CAPTION_LINES = 8
CAPTION_LETTERS = 800
"""A caption that needs more lines ends in an ellipsis; more letters are not even measured."""


def prefix_strips(originals: Array, rebuilt: Mapping[int, Array], path: Path) -> None:
    """Draw each image as its prefixes rebuild it, from the shortest on, one image a row.

    Args:
        originals: [N, 3, S, S], the last column.
        rebuilt: prefix length to images [N, 3, S, S].
        path: of the PNG file.

    Raises:
        ValueError: if there is no prefix, or images are not uint8, square and of one shape.
    """
    if not rebuilt:
        raise ValueError("rebuilt must hold at least 1 prefix, got 0")
    first, *others = sorted(rebuilt)
    titles = {first: f"{first} token{'s' * (first > 1)}", **{k: str(k) for k in others}}
    strips({**{title: rebuilt[k] for k, title in titles.items()}, "original": originals}, path)


def strips(columns: Mapping[str, Array], path: Path) -> None:
    """Draw images [N, 3, S, S] column by column under their titles, one image a row.

    Raises:
        ValueError: if there is no column, or images are not uint8, square and of one shape.
    """
    if not columns:
        raise ValueError("strips must have at least 1 column, got 0")
    checked = {title: _checked_images(each) for title, each in columns.items()}
    shapes = {images.shape for images in checked.values()}
    if len(shapes) > 1:
        raise ValueError(f"the columns of a strip must have one shape, got {sorted(shapes)}")
    pictures = {
        title: [_enlarged(image, STRIP_SIDE) for image in images]
        for title, images in checked.items()
    }
    rows = len(next(iter(pictures.values())))
    side = next(iter(pictures.values()))[0].width
    step, top = side + GAP, MARGIN + TEXT_LINE + GAP // 2
    width, height = len(columns) * step - GAP + 2 * MARGIN, rows * step - GAP + top + MARGIN
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (title, enlarged) in enumerate(pictures.items()):
        left = MARGIN + column * step
        draw.text((left + side / 2, MARGIN), title, fill=INK, font=_font(), anchor="ma")
        for row, picture in enumerate(enlarged):
            sheet.paste(picture, (left, top + row * step))
    save_image(sheet, path)


def captioned_grid(images: Array, captions: Sequence[str], path: Path, columns: int = 4) -> None:
    """Draw images [N, 3, S, S] row by row, each above its caption.

    Raises:
        ValueError: if the counts differ, columns is below 1, or images are not uint8 and square.
    """
    pictures = [_enlarged(image, GRID_SIDE) for image in _checked_images(images)]
    if len(captions) != len(pictures):
        raise ValueError(f"each image needs a caption, got {len(captions)} for {len(pictures)}")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns}")
    texts = [_wrapped(caption, pictures[0].width) for caption in captions]
    starts = range(0, len(pictures), columns)
    rows = [(pictures[at : at + columns], texts[at : at + columns]) for at in starts]
    _draw_grid(rows, path)


def _draw_grid(
    rows: Sequence[tuple[Sequence[Image.Image], Sequence[Sequence[str]]]], path: Path
) -> None:
    """Draw rows of pictures over their captions, a caption being lines of text."""
    side, step = rows[0][0][0].width, rows[0][0][0].width + 2 * GAP
    heights = [side + GAP + max(map(len, texts)) * TEXT_LINE + 2 * GAP for _, texts in rows]
    width = len(rows[0][0]) * step - 2 * GAP + 2 * MARGIN
    sheet = Image.new("RGB", (width, sum(heights) - 2 * GAP + 2 * MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (pictures, texts) in enumerate(rows):
        top = MARGIN + sum(heights[:number])
        for column, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
            left = MARGIN + column * step
            sheet.paste(picture, (left, top))
            for line, text in enumerate(lines):
                place = (left, top + side + GAP + line * TEXT_LINE)
                draw.text(place, text, fill=INK, font=_font())
    save_image(sheet, path)


def _enlarged(image: UInt8[np.ndarray, "3 S S"], side: int) -> Image.Image:
    """Repeat every pixel a whole number of times, so that the image has about `side` of them."""
    size = image.shape[-1] * max(1, round(side / image.shape[-1]))
    return Image.fromarray(image.transpose(1, 2, 0)).resize((size, size), Image.Resampling.NEAREST)


def _wrapped(caption: str, width: int) -> list[str]:
    """Break a caption into lines of at most `width` pixels, between words where it can."""
    printable = "".join(c if c.isprintable() else " " for c in caption[:CAPTION_LETTERS])
    rest, lines = " ".join(printable.split()), list[str]()
    while rest and len(lines) < CAPTION_LINES:
        fits = _letters_that_fit(rest, width)
        space = rest.rfind(" ", 0, fits + 1) if fits < len(rest) else -1
        cut = space if space > 0 else fits
        lines.append(rest[:cut])
        rest = rest[cut:].lstrip()
    if rest:
        line = lines[-1]
        lines[-1] = line[: _letters_that_fit(line, width - int(_font().getlength("…")) - 1)] + "…"
    return lines


def _letters_that_fit(text: str, width: int) -> int:
    """How many of the first letters are at most `width` pixels long together, at least 1."""
    count = 1
    while count < len(text) and _font().getlength(text[: count + 1]) <= width:
        count += 1
    return count


def _checked_images(images: Array) -> UInt8[np.ndarray, "N 3 S S"]:
    array = np.asarray(images)
    if array.dtype != np.uint8:
        raise ValueError(f"images must be uint8, got {array.dtype}")
    is_square = array.ndim == 4 and array.shape[1] == 3 and array.shape[2] == array.shape[3]
    if not is_square or not array.size:
        raise ValueError(f"images must have the shape [N, 3, S, S], got {list(array.shape)}")
    return array


@cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(FONT_FILE), TEXT)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG file, whole or not at all."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    replace_file(path, buffer.getvalue())
