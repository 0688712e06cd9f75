"""Pictures with their captions, as a page shows them: small, and every text as it is."""

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

JPEG = b"\xff\xd8\xff"
"""What every JPEG file begins with."""
SIDE = 128
"""Pixels of a picture's longer side on the page; of a small one every pixel is repeated."""
MAX_LETTERS = 160
"""Of a text, before it ends in an ellipsis."""
OPEN = 2
"""Texts under a picture that are not folded away."""
MAX_TEXTS = 12
JOINERS = "\u200c\u200d"
"""Invisible, but emoji and the scripts of India and Iran are wrong without them."""
UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what no page shows, and some of which turns the text around."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture, its texts and a note."""

    jpeg: bytes
    width: int
    """Pixels."""
    height: int
    texts: Sequence[str]
    note: str

    def __post_init__(self) -> None:
        if not self.jpeg.startswith(JPEG):
            raise ValueError(f"a picture of a gallery must be a JPEG file, {self.note} is not")


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Pictures side by side, as many as the page is wide for."""

    pictures: Sequence[Picture]

    def html(self) -> str:
        """Draw it; each picture's first text describes it to those who do not see it."""
        items = "\n".join(map(_item, self.pictures))
        return f'<ul class="gallery">\n{items}\n</ul>'


def visible(text: str, letters: int = MAX_LETTERS) -> str:
    """Show what no page shows by its code point, such as [U+202E]; cut what is too long."""
    shown = text if len(text) <= letters else f"{text[: letters - 1]}…"
    return "".join(
        f"[U+{ord(x):04X}]" if unicodedata.category(x) in UNSEEN and x not in JOINERS else x
        for x in shown
    )


def _item(picture: Picture) -> str:
    texts = [visible(text) for text in picture.texts]
    source = f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
    alt = escape(texts[0] if texts else picture.note)
    times = max(1, SIDE // max(picture.width, picture.height))
    size = f'width="{picture.width * times}" height="{picture.height * times}"'
    return (
        f'<li><img src="{source}" {size} alt="{alt}">'
        f"{_paragraphs(texts[:OPEN])}{_folded(texts[OPEN:])}"
        f'<p class="note" dir="auto">{escape(visible(picture.note))}</p></li>'
    )


def _paragraphs(texts: Sequence[str]) -> str:
    return "".join(f'<p dir="auto">{escape(text)}</p>' for text in texts)


def _folded(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    rest = len(texts) - (MAX_TEXTS - OPEN)
    left_out = f"<p>and {rest} more</p>" if rest > 0 else ""
    shown = _paragraphs(texts[: MAX_TEXTS - OPEN])
    return f"<details><summary>{len(texts)} more</summary>{shown}{left_out}</details>"
