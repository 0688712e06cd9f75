"""Words of captions as tags of their images.

N images   T words
"""

import re
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

MOST_WORDS = 64
LEAST_IMAGES = 8
"""Images of which a word must be said, or nobody can learn it."""
WORD = re.compile(r"[^\W\d_]{3,}")
"""Three letters or more: shorter ones seldom name what is seen."""


def common_words(captions: Sequence[Sequence[str]]) -> list[str]:
    """The words that are said of most images, but of no more than half: those tell nothing apart.

    Raises:
        ValueError: if there is no such word.
    """
    counts = Counter(word for of_one in captions for word in _words(of_one))
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    fitting = [word for word, n in ranked if LEAST_IMAGES <= n <= len(captions) / 2]
    if not fitting:
        raise ValueError(
            f"no word is said of at least {LEAST_IMAGES} and at most half of {len(captions)} images"
        )
    return fitting[:MOST_WORDS]


def tags_of(captions: Sequence[Sequence[str]], words: Sequence[str]) -> Bool[Tensor, "N T"]:
    """Which words are said of each image, in any of its captions."""
    said = [_words(of_one) for of_one in captions]
    return torch.tensor([[word in of_one for word in words] for of_one in said])


def _words(captions: Sequence[str]) -> set[str]:
    return {word for caption in captions for word in WORD.findall(caption.casefold())}
