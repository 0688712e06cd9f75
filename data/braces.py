"""Brace patterns of shards: `train-{000000..000123}.tar`, `{a,b}/{1..9}.tar`.

They mean what webdataset takes them to mean, but a count comes before every list that is made.
"""

import re
from collections.abc import Sequence

MAX_SHARDS = 100_000
MAX_LENGTH = 2_000
"""Characters of a URL or pattern."""
PARTS = re.compile(r"\{([^{},]*?\.\.[^{},]*)\}|([{},])|([^{},]+)")
RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})(?:\.\.(-?\d{1,18}))?")


def expand(pattern: str) -> list[str]:
    """Expand lists {a,b} and ranges {1..9}, {01..10..3} in braces, also inside each other.

    Raises:
        ValueError: if there would be more than `MAX_SHARDS`, or braces hold neither.
    """
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"{shown(pattern)} is longer than {MAX_LENGTH} characters")
    outer: list[tuple[list[str], list[str]]] = []
    done: list[str] = []
    ends = [""]
    for part in PARTS.finditer(pattern):
        between, sign, text = part.groups()
        if sign == "{":
            outer.append((done, ends))
            done, ends = [], [""]
        elif sign == "," and outer:
            done, ends = done + ends, [""]
        elif sign == "}":
            if not outer or not done:
                raise ValueError(f"{shown(pattern)} has braces without a list or a range")
            inner = done + ends
            done, ends = outer.pop()
            ends = _joined(ends, inner, pattern)
        else:
            words = [text or sign] if between is None else _range(between, pattern)
            ends = _joined(ends, words, pattern)
    if outer:
        raise ValueError(f"{shown(pattern)} has a brace that is not closed")
    return ends


def check_count(count: int, pattern: str) -> None:
    """Refuse a pattern of too many shards."""
    if count > MAX_SHARDS:
        raise ValueError(f"{shown(pattern)} stands for more than {MAX_SHARDS} shards")


def without_query(url: str) -> str:
    """Name a URL where others may read it: its query may hold a key."""
    return url.partition("?")[0]


def short(text: str) -> str:
    """Cut a text that is too long for a sentence."""
    return text if len(text) <= 200 else f"{text[:200]}..."


def shown(url: str) -> str:
    """Quote a URL for a sentence, without a key or password that may be in it."""
    return repr(short(re.sub("//[^/]*@", "//", without_query(url))))


def _joined(starts: Sequence[str], ends: Sequence[str], pattern: str) -> list[str]:
    check_count(len(starts) * len(ends), pattern)
    return [start + end for start in starts for end in ends]


def _range(between: str, pattern: str) -> list[str]:
    found = RANGE.fullmatch(between)
    if not found:
        raise ValueError(f"{shown(pattern)} has braces without a list or a range")
    first, last = int(found[1]), int(found[2])
    step = abs(int(found[3] or 1)) or 1
    check_count(abs(last - first) // step + 1, pattern)
    is_padded = any(re.match(r"-?0\d", end) for end in found.groups()[:2])
    width = max(len(found[1]), len(found[2])) if is_padded else 0
    numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
    return [f"{number:0{width}d}" for number in numbers]
