"""Rules of a curation that read captions.

A caption that fails a rule counts for nothing in the rules after it, and an image goes with the
last of its captions. One that keeps a good caption keeps the others too: a view of a set chooses
pairs, it does not rewrite them.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

import numpy as np

from .candidates import Candidates, Left, Rule
from .order import hashed

LAST_LETTER = 0x20000
"""Past it come rare Chinese characters only, and what has no name."""


def word_count(least: int | None = None, most: int | None = None) -> Rule:
    """Ask for a number of words; None asks nothing.

    Raises:
        ValueError: for a number below 1, or none between the two.
    """
    low, high = 1 if least is None else least, float("inf") if most is None else most
    if low < 1 or high < low:
        raise ValueError(f"words must be at least 1, and the most no less, got {least} to {most}")
    return _of_captions(
        "word count", {"least": least, "most": most}, lambda text: low <= len(text.split()) <= high
    )


def repetition(most: float) -> Rule:
    """Ask that of a caption's words no more than a share are the same one, said again and again.

    A word that comes once is not repeated, however short the caption.

    Raises:
        ValueError: for a share outside 0..1.
    """
    _check_share("the share of a repeated word", most)
    return _of_captions("repetition", {"most": most}, lambda text: _repeated(text) <= most)


def script(name: str, least: float) -> Rule:
    """Ask that a share of a caption's letters are of a script; one without letters fails.

    Args:
        name: as it begins the names of letters in Unicode: LATIN, CYRILLIC, GREEK, ARABIC, CJK,
            HIRAGANA, HANGUL ...
        least: share, in 0..1.

    Raises:
        ValueError: for a script that has no letters, or a share outside 0..1.
    """
    _check_share("the share of a script", least)
    if name not in _scripts():
        raise ValueError(f"no letter of Unicode has a name that begins with {name!r}")
    return _of_captions(
        "script", {"name": name, "least": least}, lambda text: _share_of(name, text) >= least
    )


def repeated_caption(most: int) -> Rule:
    """Ask that a caption stands with no more than so many images of the set.

    Raises:
        ValueError: for a number below 1.
    """
    _check_count("images of one caption", most)

    def apply(candidates: Candidates) -> Left:
        images = Counter(text for captions in candidates.captions for text in set(captions))
        return _passing(candidates, lambda text: images[text] <= most)

    return Rule(name="repeated caption", options={"most": most}, apply=apply)


def balance(most: int, seed: int) -> Rule:
    """Thin out the pairs whose every word is common, so that rare ones weigh more.

    A word that n images have keeps each of them with a chance of `most` / n, and an image stays if
    one of its words keeps it. It has one draw for all its words, a pure function of the seed and
    its row: its chance is that of its rarest word. (MetaCLIP draws anew for every word.)

    Source: Xu et al. 2023, "Demystifying CLIP data", algorithm 1, https://arxiv.org/abs/2309.16671.

    Raises:
        ValueError: for a number below 1 or a negative seed.
    """
    _check_count("images of a word", most)
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")

    def apply(candidates: Candidates) -> Left:
        words = [_words(captions) for captions in candidates.captions]
        images = Counter(word for of_one in words for word in of_one)
        chances = [max((most / images[word] for word in of_one), default=1.0) for of_one in words]
        draws = [hashed(seed, row) / 2**64 for row in candidates.rows.tolist()]
        return Left(candidates=candidates.keep(np.array(draws) < np.array(chances)))

    return Rule(name="balance", options={"most": most, "seed": seed}, apply=apply)


def _of_captions(name: str, options: Mapping[str, Any], passes: Callable[[str], bool]) -> Rule:
    return Rule(name=name, options=options, apply=lambda candidates: _passing(candidates, passes))


def _passing(candidates: Candidates, passes: Callable[[str], bool]) -> Left:
    return Left(
        candidates=candidates.narrow(
            [tuple(filter(passes, captions)) for captions in candidates.captions]
        )
    )


def _words(captions: tuple[str, ...]) -> set[str]:
    """The words of an image: runs of letters and digits, so that a comma makes no new one."""
    return {word for text in captions for word in re.findall(r"\w+", text.casefold())}


def _repeated(text: str) -> float:
    words = re.findall(r"\w+", text.casefold())
    most = max(Counter(words).values(), default=0)
    return most / len(words) if most > 1 else 0.0


def _share_of(name: str, text: str) -> float:
    letters = [character for character in text if character.isalpha()]
    return sum(_script_of(letter) == name for letter in letters) / max(1, len(letters))


@lru_cache(maxsize=1 << 16)
def _script_of(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


@cache
def _scripts() -> set[str]:
    return {
        unicodedata.name(x, "").partition(" ")[0]
        for x in map(chr, range(LAST_LETTER))
        if x.isalpha()
    }


def _check_share(what: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{what} must lie in 0..1, got {share}")


def _check_count(what: str, count: int) -> None:
    if count < 1:
        raise ValueError(f"{what} must be at least 1, got {count}")
