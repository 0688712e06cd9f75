"""Caption files to clean, bounded text, and which caption an image shows in an epoch."""

import json
import unicodedata
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate, islice
from typing import Any, Literal

from .order import hashed

MAX_CAPTION_BYTES = 2**20
MAX_CAPTIONS = 64
MAX_CHARACTERS = 2_000
MAX_LABEL_BYTES = 200
TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""Characters that turn the direction of the text after them, so that it shows as it is not."""


class DamagedCaption(ValueError):
    """A caption file that is skipped; `reason` is a short phrase to count by."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def parse_captions(raw: bytes, kind: Literal["txt", "json"]) -> tuple[str, ...]:
    """Read the captions of one image, blank ones dropped: at least one.

    A txt file has one caption a line; a json file is an object with "captions" (a list of strings)
    or "caption" (a string), its other fields are left alone.

    Raises:
        DamagedCaption: for every other input, whatever is wrong with it.
    """
    if len(raw) > MAX_CAPTION_BYTES:
        raise DamagedCaption("caption file too large")
    try:
        text = raw.decode().removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise DamagedCaption("caption not UTF-8") from None
    return captions_from(text.splitlines() if kind == "txt" else _from_json(text))


def captions_from(texts: object) -> tuple[str, ...]:
    """Take a list of texts as the captions of one image, blank ones dropped: at least one.

    Raises:
        DamagedCaption: for anything but a list of texts, or too much of them.
    """
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DamagedCaption("caption not text")
    if sum(map(len, texts)) > MAX_CAPTION_BYTES:
        raise DamagedCaption("caption too long")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        raise DamagedCaption("caption not UTF-8") from None
    return _bounded(tuple(islice(filter(None, map(clean_caption, texts)), MAX_CAPTIONS + 1)))


def label_from(raw: bytes) -> str:
    """Read the name or number of a class.

    Raises:
        DamagedCaption: if there is none, or it is too long or not UTF-8.
    """
    if len(raw) > MAX_LABEL_BYTES:
        raise DamagedCaption("label too long")
    try:
        label = clean_caption(raw.decode())
    except UnicodeDecodeError:
        raise DamagedCaption("label not UTF-8") from None
    if not label:
        raise DamagedCaption("label empty")
    return label


def clean_caption(text: str) -> str:
    """Make one line of a caption: no control characters, none that turn the direction of text.

    What shows nothing at all comes back empty.
    """
    spaced = " ".join(text.split())
    if spaced.isprintable():
        return spaced
    kept = (c for c in text if c not in TURNING)
    shown = "".join(" " if c.isspace() else c for c in kept if c.isspace() or not _is_control(c))
    cleaned = " ".join(shown.split())
    return cleaned if any(c.isprintable() and not c.isspace() for c in cleaned) else ""


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def choose_caption(
    captions: Sequence[str],
    seed: int,
    epoch: int,
    index: int,
    last_share: float = 0.0,
    length_power: float = 0.0,
) -> str:
    """Draw the caption that image `index` shows in an epoch: a pure function of its arguments.

    It is the last one, the fullest where captions grow in detail, with a chance of `last_share`;
    else any of them, each with a weight of its number of words to the `length_power`: above 0 long
    ones come more often, below 0 bare phrases.
    """
    if len(captions) == 1:
        return captions[0]
    if hashed(seed, epoch, index, 0) < last_share * 2**64:
        return captions[-1]
    state = hashed(seed, epoch, index)
    if not length_power:
        return captions[state % len(captions)]
    ends = list(accumulate(max(1, len(text.split())) ** length_power for text in captions))
    return captions[min(bisect(ends, state / 2**64 * ends[-1]), len(captions) - 1)]


def _bounded(captions: tuple[str, ...]) -> tuple[str, ...]:
    if not captions:
        raise DamagedCaption("no caption")
    if len(captions) > MAX_CAPTIONS:
        raise DamagedCaption("too many captions")
    if max(map(len, captions)) > MAX_CHARACTERS:
        raise DamagedCaption("caption too long")
    return captions


def _from_json(text: str) -> object:
    try:
        fields = json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError:
        raise DamagedCaption("caption nested too deep") from None
    except DamagedCaption:
        raise
    except ValueError:
        raise DamagedCaption("caption not JSON") from None
    return _captions_among(fields)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise DamagedCaption("caption field twice")
    return dict(pairs)


def _captions_among(fields: Any) -> object:
    if not isinstance(fields, dict) or ("caption" in fields) == ("captions" in fields):
        raise DamagedCaption("no caption")
    return fields["captions"] if "captions" in fields else [fields["caption"]]
