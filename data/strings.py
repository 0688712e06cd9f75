"""Strings: images of random letters and digits, drawn, not downloaded, whose content is countable.

String `index` of a split is a pure function of the two: 4 to 8 characters, any as likely as any
other, four to a line. A character is log2 36 bits, so an image holds 21 to 41 of them, and what a
reader recovers from any code of the image can be held against what the code could hold. Where the
block stands and its two colours are drawn too, a few bits more.

    train, val, test   independent draws of one law
    reader             the same: for networks that read, never for a model that they read

Letters: S pixels on a side, h, w rows and columns of a glyph.
"""

import math
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from .sample import Pair, Pairs, pairs_from

ALPHABET = string.ascii_uppercase + string.digits
BITS = math.log2(len(ALPHABET))
"""What one character says."""
LENGTHS = (4, 5, 6, 7, 8)
"""Characters of a string, all as often."""
SPLITS = ("train", "val", "test", "reader")

IN_A_LINE = 4
GLYPH = (6, 8)
"""Pixels across and down of the widest and highest character of the font, Q with its tail."""
STEP = (7, 10)
"""Pixels from one character to the next, and from one line to the next."""
SHIFT = 2
"""Most pixels by which the block strays from its middle place, each way."""
LEAST_SIZE = 32
"""Pixels on a side that a string has room in, wherever it strays."""
DARK, LIGHT = (0, 80), (150, 256)
"""From and below what the levels of each colour of ground and ink are drawn."""
DRAWN_ANEW = 1

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What is in one image."""

    text: str
    shift: tuple[int, int]
    """Pixels across and down from the middle place."""
    ground: Colour
    ink: Colour


def written(split: str, index: int) -> Written:
    """Draw string `index` (0 or more) of a split: a pure function of both.

    Raises:
        ValueError: for a split that is not one of SPLITS.
    """
    if split not in SPLITS:
        raise ValueError(f"strings have the splits {', '.join(SPLITS)}, got {split!r}")
    random = np.random.default_rng([DRAWN_ANEW, SPLITS.index(split), index])
    length = LENGTHS[random.integers(len(LENGTHS))]
    across, down = random.integers(-SHIFT, SHIFT + 1, 2).tolist()
    return Written(
        text="".join(ALPHABET[at] for at in random.integers(len(ALPHABET), size=length)),
        shift=(across, down),
        ground=tuple(random.integers(*DARK, 3).tolist()),
        ink=tuple(random.integers(*LIGHT, 3).tolist()),
    )


def render(drawn: Written, image_size: int) -> UInt8[np.ndarray, "S S 3"]:
    """Write a string in the middle of an image, but for its shift.

    Raises:
        ValueError: for an image without room for it.
    """
    if image_size < LEAST_SIZE:
        raise ValueError(
            f"strings need images of at least {LEAST_SIZE} pixels a side, got {image_size}"
        )
    image = np.empty((image_size, image_size, 3), np.uint8)
    image[:] = drawn.ground
    lines = math.ceil(max(LENGTHS) / IN_A_LINE)
    left = (image_size - (IN_A_LINE - 1) * STEP[0] - GLYPH[0]) // 2 + drawn.shift[0]
    top = (image_size - (lines - 1) * STEP[1] - GLYPH[1]) // 2 + drawn.shift[1]
    for at, character in enumerate(drawn.text):
        x, y = left + at % IN_A_LINE * STEP[0], top + at // IN_A_LINE * STEP[1]
        image[y : y + GLYPH[1], x : x + GLYPH[0]][glyph(character)] = drawn.ink
    return image


@cache
def glyph(character: str) -> Bool[np.ndarray, "h w"]:
    """The pixels of a character in the bitmap font that Pillow brings along."""
    across, down = GLYPH
    above = 2  # rows that no character of the alphabet reaches into
    canvas = Image.new("1", (across, above + down))
    ImageDraw.Draw(canvas).text((0, 0), character, font=ImageFont.load_default_imagefont(), fill=1)
    return np.array(canvas)[above:]


def string_pairs(split: str, number: int, image_size: int) -> Iterator[Pair]:
    """Render the first `number` strings of a split; the caption of each is the string itself.

    Raises:
        ValueError: for an unknown split, a number below 1, or images without room.
    """
    if number < 1:
        raise ValueError(f"the number of strings must be at least 1, got {number}")
    for index in range(number):
        drawn = written(split, index)
        image = render(drawn, image_size)
        yield Pair(key=f"{split}-{index:07d}", image=image, captions=(drawn.text,))


def load_strings(split: str, number: int, image_size: int) -> Pairs:
    """Hold the first `number` strings of a split in memory."""
    return pairs_from(f"strings/{split}", string_pairs(split, number, image_size), skipped={})
